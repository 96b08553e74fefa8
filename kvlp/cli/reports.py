"""kvlp reports: score generated reports, and see whether a metric notices one planted error."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from kvlp.eval.reports.evaluator import Comparison, Evaluator, ReportScores
    from kvlp.eval.reports.planted import Share
    from kvlp.knowledge.graph import KnowledgeGraph

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

_DEFAULT = "bleu-1,bleu-4,rouge-l,cider,chexpert-f1,concept-graph-f1"
_METRICS = typer.Option(_DEFAULT, "--metrics", help='Names, also "green:FOLDER" and "radgraph:FOLDER".')
_GRAPH = typer.Option("chest", "--graph", help="'chest' or the folder of a graph.")
_SEED = typer.Option(0, "--seed", help="Seed of the resamples, or of the errors.")
_JSON = typer.Option(False, "--json", help="Print one JSON document.")


@app.command("score")
def score(
    table: Path = typer.Argument(..., metavar="TABLE", help="CSV, JSON Lines or Parquet with both reports in a row."),
    refs: str = typer.Option(..., "--refs", metavar="COLS", help='Reference columns, such as "findings,impression".'),
    hyps: str = typer.Option(..., "--hyps", metavar="COLS", help="Columns of the generated report."),
    against: str = typer.Option("", "--against", metavar="COLS", help="Columns of another system to compare with."),
    groups: str = typer.Option("", "--groups", metavar="COL", help="Column with the patient, to be drawn whole."),
    metrics: str = _METRICS,
    out: Path | None = typer.Option(None, "--out", help="Table to write: the scores of each report, no text."),
    graph: str = _GRAPH,
    seed: int = _SEED,
    as_json: bool = _JSON,
) -> None:
    """Score generated reports against references: each report, and overall with 95 % intervals; or compare two."""
    from kvlp.datasets.report_labels import read_reports

    reference = read_reports(table, _names(refs))
    patients = read_reports(table, [groups]).texts if groups else None
    first = read_reports(table, _names(hyps)).texts
    evaluator = _evaluator(metrics, graph, seed)
    if against:
        second = read_reports(table, _names(against)).texts
        found = evaluator.compare_systems(reference.texts, first, second, patients)
        typer.echo(json.dumps([c.row() for c in found], indent=1) if as_json else _compared(found))
        return
    scores = evaluator(refs=reference.texts, hyps=first, groups=patients)
    if out is not None:
        _write(out, scores)
    typer.echo(json.dumps(scores.rows(), indent=1) if as_json else _scored(scores))


@app.command("planted")
def planted(
    sources: list[str] = typer.Argument(..., metavar="SOURCE...", help='Tables of reports, or "phantom".'),
    text: str = typer.Option("findings,impression", "--text", metavar="COLS", help="Text columns of the tables."),
    where: list[str] = typer.Option([], "--where", metavar="COL=VALUE", help="Only rows of tables with this value."),
    pairs: int = typer.Option(500, "--pairs", help="Pairs of each source and setting, a multiple of 5."),
    metrics: str = _METRICS,
    out: Path | None = typer.Option(None, "--out", help="JSON file for the figures."),
    graph: str = _GRAPH,
    seed: int = _SEED,
    as_json: bool = _JSON,
) -> None:
    """Plant one error in each of many reports and say how often each metric ranks it below a clean paraphrase."""
    from kvlp.knowledge.graph import KnowledgeGraph

    knowledge = KnowledgeGraph.load(graph)
    texts = {_name(s): _texts(s, _names(text), where, knowledge, pairs) for s in sources}
    document: dict[str, Any] = {
        "pairs": pairs, "seed": seed, "where": where, "interval": "95 %, Wilson", "graph_hash": knowledge.content_hash,
        "right": "the clean paraphrase scores strictly higher than the hypothesis with one error",
        "sources": {name: _tried(t, knowledge, _names(metrics), pairs, seed) for name, t in texts.items()},
    }  # fmt: skip
    if out is not None:
        from kvlp.datasets.files import atomic_write

        atomic_write(out, (json.dumps(document, indent=1) + "\n").encode())
    typer.echo(json.dumps(document, indent=1) if as_json else "\n\n".join(_shares(document["sources"])))


def _evaluator(metrics: str, graph: str, seed: int) -> Evaluator:
    from kvlp.eval.reports.evaluator import Evaluator
    from kvlp.knowledge.graph import KnowledgeGraph

    return Evaluator(_names(metrics), graph=KnowledgeGraph.load(graph), seed=seed)


def _tried(texts: list[str], graph: KnowledgeGraph, metrics: list[str], pairs: int, seed: int) -> dict[str, Any]:
    """Both settings of one source: rows of shares, and how many reports a second each metric reads."""
    from kvlp.eval.reports.planted import SETTINGS, planted_pairs, ranking
    from kvlp.eval.reports.registry import Tools, get_metric

    found: dict[str, Any] = {"reports": len(set(texts)), "rate": {}}
    for setting in SETTINGS:
        made = planted_pairs(texts, graph, n=pairs, setting=setting, seed=seed)
        rows: list[Share] = []
        for name in metrics:
            metric = get_metric(name, Tools(graph))
            start = time.perf_counter()
            rows += ranking(made, [metric])
            found["rate"].setdefault(name, round(4 * len(made) / (time.perf_counter() - start)))
        found[setting] = [{k: _plain(v) for k, v in asdict(row).items()} for row in rows]
    return found


def _texts(source: str, columns: list[str], where: list[str], graph: KnowledgeGraph, pairs: int) -> list[str]:
    from kvlp.datasets.report_labels import read_reports
    from kvlp.eval.reports.planted import phantom_texts

    if source == "phantom":
        return phantom_texts(2 * pairs, graph)
    reports = read_reports(source, columns)
    rows = list(zip(reports.table.rows, reports.texts, strict=True))
    for condition in where:
        column, equals, value = condition.partition("=")
        if not equals or column not in reports.table.columns:
            raise typer.BadParameter(f"{condition!r}: expected COLUMN=VALUE", param_hint="--where")
        rows = [(row, text) for row, text in rows if row.get(column, "") == value]
    return [text for _, text in rows]


def _name(source: str) -> str:
    return source if source == "phantom" else Path(source).stem


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _write(out: Path, scores: ReportScores) -> None:
    from kvlp.datasets.tables import write_table

    columns = list(scores.per_report)
    cells = zip(*scores.per_report.values(), strict=True)
    rows = [
        {"row": str(n), **{c: "" if math.isnan(v) else f"{v:.6g}" for c, v in zip(columns, values, strict=True)}}
        for n, values in enumerate(cells, 1)
    ]
    write_table(out, ["row", *columns], rows)


def _scored(scores: ReportScores) -> str:
    rows = [f"{name:26} {interval}   n {interval.n}" for name, interval in scores.overall.items()]
    return "\n".join(rows)


def _compared(found: list[Comparison]) -> str:
    head = f"{'metric':26} {'a':>7} {'b':>7}  {'a - b':24} {'p':>6} {'p (Holm)':>8}"
    rows = [
        f"{c.metric:26} {c.a:7.3f} {c.b:7.3f}  {c.difference!s:24} {c.p_permutation:6.3f} {c.p_holm:8.3f}"
        for c in found
    ]
    return "\n".join([head, *rows])


def _shares(sources: dict[str, Any]) -> list[str]:
    from kvlp.eval.reports.planted import SETTINGS

    blocks = []
    for source, found in sources.items():
        for setting in SETTINGS:
            head = f"{source}, {setting}: right in share of pairs (95 % interval), mean score clean -> planted"
            blocks.append("\n".join([head, *(_share(row) for row in found[setting])]))
    return blocks


def _share(row: dict[str, Any]) -> str:
    means = " -> ".join("undefined" if v is None else f"{v:.3f}" for v in (row["clean"], row["planted"]))
    interval = f"{row['share']:.3f} ({row['low']:.3f} to {row['high']:.3f})"
    return f"{row['metric']:26} {row['kind']:10} {interval}  {means}"


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 6)
    return value
