"""kvlp link labels, kvlp link score: labels of a table of reports, and how well they agree with a gold standard."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvlp.datasets.report_labels import Reports
    from kvlp.eval.label_agreement import Agreement
    from kvlp.knowledge.graph import KnowledgeGraph
    from kvlp.knowledge.labels import ReportLabeler, Uncertain

__all__ = ["labels", "score"]

_TABLE = typer.Argument(..., metavar="TABLE", help="CSV, JSON Lines or Parquet with report text.")
_TEXT = typer.Option(..., "--text", metavar="COLS", help='Text columns, such as "findings,impression".')
_CLASSES = typer.Option("chexpert14", "--classes", help='"chexpert14", "nih14", a YAML file, or "a,b,c".')
_UNCERTAIN = typer.Option("keep", "--uncertain", help="A doubt becomes: keep (-1), ones, zeros, ignore, graded.")
_GRAPH = typer.Option("chest", "--graph", help="'chest' or the folder of a graph.")
_JSON = typer.Option(False, "--json", help="Print one JSON document.")


def labels(
    table: Path = _TABLE,
    text: str = _TEXT,
    out: Path = typer.Option(..., "--out", help="Table to write: one row a report, one column a class."),
    classes: str = _CLASSES,
    uncertain: str = _UNCERTAIN,
    keep: str = typer.Option("", "--keep", metavar="COLS", help="Columns to copy; default: those that identify a row."),
    graph: str = _GRAPH,
    any_language: bool = typer.Option(False, "--any-language", help="Read rows that are not English, too."),
    as_json: bool = _JSON,
) -> None:
    """Label reports: 1 present, 0 absent, -1 uncertain, empty where nothing is said. Exit 1 if a row was not read."""
    from kvlp.cli.zeroshot import counter
    from kvlp.datasets.report_labels import label_table

    labeler = _labeler(graph, classes, uncertain, language=None if any_language else "en")
    done = label_table(table, out, labeler, columns=_names(text), keep=_names(keep), progress=counter("read reports"))
    if as_json:
        typer.echo(json.dumps({**asdict(done), "path": str(done.path)}, indent=1))
    else:
        typer.echo(f"{done.rows} rows -> {done.path}\n{'class':32} {'present':>8} {'absent':>8} {'uncertain':>10}")
        for name, count in done.counts.items():
            typer.echo(f"{name:32} {count['1']:8} {count['0']:8} {count['-1']:10}")
    for problem in done.problems:
        typer.echo(f"kvlp: {table}: row {problem.row}: {problem.message}", err=True)
    if done.problems:
        raise typer.Exit(1)


def score(
    table: Path = _TABLE,
    text: str = _TEXT,
    gold: str = typer.Option("{}", "--gold", help='Name of the gold columns, "gold_{}" for a class "X" in "gold_X".'),
    classes: str = _CLASSES,
    without: str = typer.Option("", "--without", metavar="CLASSES", help="Classes to leave out of the comparison."),
    uncertain: str = typer.Option("graded", "--uncertain", help="What doubts become: ones, zeros, graded; or several."),
    where: list[str] = typer.Option([], "--where", metavar="COL=VALUE", help="Only rows with this value."),
    id_column: str = typer.Option("", "--id", help="Column with the report's id; default: the first."),
    out: Path | None = typer.Option(None, "--out", help="JSON file for the figures."),
    errors: Path | None = typer.Option(None, "--errors", help="CSV file of disagreements: ids, offsets, no text."),
    graph: str = _GRAPH,
    seed: int = typer.Option(0, "--seed", help="Seed of the bootstrap."),
    as_json: bool = _JSON,
) -> None:
    """Compare labels with a gold standard: F1 by class, micro and macro, with 95 % intervals over reports."""
    from kvlp.datasets.report_labels import read_reports
    from kvlp.eval.label_agreement import agreement, disagreements, present_labels
    from kvlp.knowledge.labels import LabelMap
    from kvlp.knowledge.linking import EntityLinker

    knowledge, listed = _graph_and_classes(graph, classes, _names(without))
    maps = {u: LabelMap(knowledge, listed, uncertain=cast("Uncertain", u)) for u in _names(uncertain)}
    reports = _chosen(read_reports(table, _names(text)), where)
    truth = _gold(reports, gold, list(listed))
    linker = EntityLinker(knowledge)
    mentions = [linker(report) for report in reports.texts]
    rows = {u: agreement(truth, present_labels(m, mentions), m.classes, seed=seed) for u, m in maps.items()}
    document = {
        "reports": len(mentions), "classes": classes, "without": without, "where": where, "seed": seed,
        "interval": "95 % percentile bootstrap of reports, 1000 samples", "graph_hash": knowledge.content_hash,
        "uncertain": {u: [{k: None if v != v else v for k, v in asdict(r).items()} for r in rows[u]] for u in rows},
    }  # fmt: skip
    if out is not None:
        from kvlp.datasets.files import atomic_write

        atomic_write(out, (json.dumps(document, indent=1) + "\n").encode())
    if errors is not None:
        from kvlp.datasets.tables import write_table

        ids = [row.get(id_column or reports.table.columns[0], "") for row in reports.table.rows]
        cases = [asdict(case) for case in disagreements(ids, truth, next(iter(maps.values())), mentions)]
        write_table(errors, ["report", "name", "kind", "phenomenon", "start", "end"], [_strings(c) for c in cases])
    typer.echo(json.dumps(document, indent=1) if as_json else "\n\n".join(_shown(u, rows[u]) for u in rows))


def _labeler(graph: str, classes: str, uncertain: str, language: str | None) -> ReportLabeler:
    from kvlp.knowledge.labels import ReportLabeler
    from kvlp.knowledge.linking import EntityLinker

    knowledge, listed = _graph_and_classes(graph, classes, ())
    linker = EntityLinker(knowledge, language=language)
    return ReportLabeler(knowledge, listed, uncertain=cast("Uncertain", uncertain), linker=linker)


def _graph_and_classes(
    graph: str, classes: str, without: Sequence[str]
) -> tuple[KnowledgeGraph, dict[str, tuple[str, ...]]]:
    from kvlp.knowledge.classes import load_classes
    from kvlp.knowledge.graph import KnowledgeGraph

    listed = {c: (c,) for c in _names(classes)} if "," in classes else load_classes(classes).concepts
    unknown = [c for c in without if c not in listed]
    if unknown:
        raise typer.BadParameter(f"no class '{unknown[0]}' in {classes}", param_hint="--without")
    return KnowledgeGraph.load(graph), {name: listed[name] for name in listed if name not in without}


def _gold(reports: Reports, pattern: str, classes: Sequence[str]) -> Any:
    import numpy as np

    from kvlp.eval.label_agreement import gold_column

    columns = [pattern.replace("{}", name) for name in classes]
    missing = [c for c in columns if c not in reports.table.columns]
    if missing:
        raise typer.BadParameter(f"there is no column '{missing[0]}'", param_hint="--gold")
    return np.stack([gold_column([row.get(c, "") for row in reports.table.rows], c) for c in columns], axis=1)


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _chosen(reports: Reports, where: list[str]) -> Reports:
    from dataclasses import replace

    for condition in where:
        column, equals, value = condition.partition("=")
        if not equals or column not in reports.table.columns:
            raise typer.BadParameter(f"{condition!r}: expected COLUMN=VALUE", param_hint="--where")
        keep = [n for n, row in enumerate(reports.table.rows) if row.get(column, "") == value]
        if not keep:
            raise typer.BadParameter(f"{condition!r}: no row has this value", param_hint="--where")
        table = replace(reports.table, rows=[reports.table.rows[n] for n in keep])
        reports = replace(reports, table=table, texts=tuple(reports.texts[n] for n in keep))
    return reports


def _strings(case: dict[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in case.items()}


def _shown(uncertain: str, rows: list[Agreement]) -> str:
    lines = [f"doubts: {uncertain}", f"{'class':28} {'F1':>6}  {'95 % interval':15} {'P':>6} {'R':>6}  {'positive':>8}"]
    for r in rows:
        if r.f1 != r.f1:
            lines.append(f"{r.name:28} undefined: no positive report")
            continue
        rates = f"{r.precision:6.3f} {r.recall:6.3f}" if r.tp else " " * 13
        positives = f"{r.n_positive} classes" if r.name == "macro" else f"{r.n_positive:8}"
        lines.append(f"{r.name:28} {r.f1:6.3f}  {r.low:.3f} to {r.high:.3f}  {rates}  {positives}")
    return "\n".join(lines)
