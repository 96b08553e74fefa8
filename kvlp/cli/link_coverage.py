"""kvlp link --coverage: how much of a collection of reports is read, and what is missed most often."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvlp.knowledge.graph import KnowledgeGraph
    from kvlp.knowledge.linking.coverage import Coverage

__all__ = ["coverage"]


def coverage(
    file: Path = typer.Argument(
        ..., metavar="FILE", help="CSV, JSON Lines or Parquet; or .txt with one report a line."
    ),
    text: str = typer.Option("", "--text", metavar="COLS", help='Text columns of a table: "findings,impression".'),
    least_texts: int = typer.Option(5, "--least-texts", min=5, help="Show phrases of so many different texts or more."),
    most: int = typer.Option(50, "--most", min=0, help="Show so many phrases and ambiguous surfaces."),
    graph: str = typer.Option("chest", "--graph", help="'chest' or the folder of a graph."),
    types: str = typer.Option("", "--types", help="Only these semantic types, such as 'finding,disease'."),
    any_language: bool = typer.Option(False, "--any-language", help="Read texts that are not English, too."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> None:
    """Tell how much of a collection is read: texts with a concept, phrases that nothing covers, ambiguous surfaces.

    Exit 1 if a row was not read. Phrases may be names: look through them before you pass them on.
    """
    from kvlp.cli.zeroshot import counter
    from kvlp.knowledge.graph import KnowledgeGraph
    from kvlp.knowledge.linking import EntityLinker
    from kvlp.knowledge.linking.coverage import coverage_of

    texts = _texts(file, _names(text))
    kg = KnowledgeGraph.load(graph)
    linker = EntityLinker(kg, types=_names(types) or None, language=None if any_language else "en")
    found = coverage_of(linker, texts, least_texts=least_texts, most=most, progress=counter("read reports"))
    typer.echo(json.dumps(found.to_dict(), ensure_ascii=False, indent=1) if as_json else _shown(found, kg))
    for row, message in found.problems:
        typer.echo(f"kvlp: {file}: row {row}: {message}", err=True)
    if found.problems:
        raise typer.Exit(1)


def _texts(file: Path, columns: list[str]) -> Sequence[str]:
    from kvlp.cli.link import read_report
    from kvlp.datasets.report_labels import read_reports

    if file.suffix.lower() != ".txt":
        if not columns:
            raise typer.BadParameter("name the text columns of the table", param_hint="--text")
        return read_reports(file, columns).texts
    if columns:
        raise typer.BadParameter("a .txt file has no columns", param_hint="--text")
    return read_report(file).splitlines()


def _shown(found: Coverage, graph: KnowledgeGraph) -> str:
    left_out = f"{found.empty} empty, {len(found.problems)} not read"
    lines = [
        f"{found.with_concept} of {found.texts} texts have a concept; {left_out}",
        f"{found.without_concept} of {found.sentences} sentences have none",
        "",
        f"phrases that nothing covers, in {found.least_texts} different texts or more:",
        *(f"{p.texts:8}  {p.words}" for p in found.phrases),
        "",
        "ambiguous surfaces, and what they were taken for:",
    ]
    for a in found.ambiguous:
        chosen = ", ".join(f"{graph[c].name if c else 'nothing'} {n}" for c, n in a.chosen.items())
        lines.append(f"{a.count:8}  {a.surface}: {chosen}" + (f" ({a.undecided} undecided)" if a.undecided else ""))
    return "\n".join(lines)


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
