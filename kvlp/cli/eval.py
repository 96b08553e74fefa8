"""`kvlp eval`: evaluate a checkpoint on a manifest, with intervals; writes rows and one page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from kvlp.datasets.manifest import Manifest
    from kvlp.eval.evaluate import Evaluation
    from kvlp.eval.results import Result

__all__ = ["command"]

#: metrics that stand in the rows and on the page, and are not printed; and those of which only the mean is
_QUIET, _BY_MEAN = ("average_precision", "auc_sd_over_prompts"), ("negation_auc", "auc_over_prompts")


def command(
    checkpoint: str = typer.Argument(..., metavar="CKPT", help="A model folder, or any name that kvlp.load takes."),
    data: Path = typer.Option(..., "--data", help="Manifest with labels: CSV, JSONL or Parquet."),
    out: Path = typer.Option(..., "--out", help="Folder for results.jsonl and report.html."),
    split: str = typer.Option("test", "--split", help='Split to score; "all" takes every row.'),
    source: str = typer.Option("", "--source", help="Only rows of this source: score within one, too."),
    classes: list[str] = typer.Option(
        [], "--classes", metavar='"A,B"', help='Classes, also "A vs B"; default: every label with both values.'
    ),
    query: list[str] = typer.Option([], "--query", metavar='"WORDS=CLASS"', help="A text query. May be repeated."),
    controls: str = typer.Option("", "--controls", metavar="SPLIT", help="Fit baselines and controls on this split."),
    graph: str = typer.Option("chest", "--graph", help='Gives synonyms: "chest", a graph folder, or "none".'),
    style: str = typer.Option("ensemble", "--style", help='Prompts: "ensemble" of wordings, or "plain".'),
    synonyms: bool = typer.Option(True, "--synonyms/--no-synonyms", help="Prompts with the graph's synonyms too."),
    resamples: int = typer.Option(1000, "--resamples", min=1, help="Bootstrap resamples of patients."),
    seed: int = typer.Option(0, "--seed", help="Seed of the resamples."),
    with_images: bool = typer.Option(False, "--with-images", help="Put pictures of patients into the page."),
    device: str = typer.Option("cpu", "--device", help="Torch device."),
    as_json: bool = typer.Option(False, "--json", help="Print the rows as one JSON document."),
) -> None:
    """Evaluate a checkpoint on a manifest: AUC by class, negation, retrieval, all with 95 % intervals over patients."""
    if style not in ("ensemble", "plain"):
        raise typer.BadParameter("expected 'ensemble' or 'plain'", param_hint="--style")
    from kvlp.checkpoints import load
    from kvlp.cli.zeroshot import load_graph
    from kvlp.datasets.manifest import Manifest
    from kvlp.eval.evaluate import EvalOptions, evaluate
    from kvlp.eval.tasks import default_classes, group_by_naming

    whole = Manifest.load(data)
    chosen = _subset(whole, split, source)
    model = load(checkpoint, device)
    knowledge = load_graph(graph)
    names = [name.strip() for part in classes for name in part.split(",") if name.strip()]
    result = evaluate(
        model,
        chosen,
        names or group_by_naming(default_classes(chosen), knowledge, model.card.get("named_concepts")),
        knowledge,
        seed=seed,
        queries=[_query(text) for text in query] or None,
        options=EvalOptions(resamples=resamples, split=split, style=style, synonyms=synonyms),  # type: ignore[arg-type]
        progress=_progress(),
    )
    rows = _controls(result, _subset(whole, controls, source), chosen, knowledge) if controls else []
    paths = _write(result, rows, chosen, out, with_images=with_images, title=f"Evaluation of {Path(checkpoint).name}")
    _show(result, rows, paths, as_json=as_json)


def _subset(manifest: Manifest, split: str, source: str) -> Manifest:
    has_splits = any(record.split for record in manifest)
    return manifest.subset(split=None if split == "all" or not has_splits else split, source=source or None)


def _query(text: str) -> Any:
    from kvlp.eval.tasks import Query

    words, equals, target = text.rpartition("=")
    if not equals or not words.strip() or not target.strip():
        raise typer.BadParameter(f'{text!r}: expected "WORDS=CLASS"', param_hint="--query")
    return Query(words.strip(), tuple(part.strip() for part in target.split(" and ") if part.strip()))


def _progress() -> Any:
    from kvlp.cli.zeroshot import counter

    show = counter("read and encode")
    return None if show is None else lambda _, done, total: show(done, total)


def _controls(result: Evaluation, train: Manifest, chosen: Manifest, knowledge: Any) -> list[Result]:
    from kvlp.datasets.manifest import Manifest
    from kvlp.eval.baselines import control_scores
    from kvlp.eval.evaluate import control_results
    from kvlp.eval.tasks import require_apart
    from kvlp.knowledge.names import Names

    require_apart(train, result.records)
    scored = Manifest(result.records, chosen.root)
    scores = control_scores(train, scored, result.tasks, Names(knowledge))
    return [row for name, table in scores.items() for row in control_results(result, name, table)]


def _write(
    result: Evaluation, controls: Sequence[Result], manifest: Manifest, out: Path, *, with_images: bool, title: str
) -> dict[str, Path]:
    from kvlp.eval.page import write_page
    from kvlp.eval.page.report import evaluation_blocks
    from kvlp.eval.results import write_results

    synthetic = all(record.source == "phantom" for record in result.records)
    blocks = evaluation_blocks(
        result, manifest=manifest, with_images=with_images or synthetic, controls=controls, synthetic=synthetic
    )
    where = f"{len(result.records):,} images, split {result.provenance.split or 'all'}"
    return {
        "results": write_results(out / "results.jsonl", [*result.results, *controls]),
        "page": write_page(out / "report.html", title, blocks, subtitle=where),
    }


def _show(result: Evaluation, controls: Sequence[Result], paths: dict[str, Path], *, as_json: bool) -> None:
    rows = [*result.results, *controls]
    if as_json:
        document = {
            **{name: str(path) for name, path in paths.items()},
            "images": len(result.records),
            "skipped": [{"row": row, "reason": reason} for row, reason in result.skipped],
            "rows": [row.to_dict() for row in rows],
        }
        typer.echo(json.dumps(document, indent=2, allow_nan=False))
        return
    for number, reason in result.skipped:
        typer.echo(f"kvlp: row {number} of the rows chosen left out: {reason}", err=True)
    wide = max(len(row.target) for row in rows)
    means = {row.metric for row in rows if row.target == "macro" and row.metric in _BY_MEAN}
    for row in rows:
        if row.metric not in _QUIET and (row.target == "macro" or row.metric not in means):
            group = f" ({row.group})" if row.target == "macro" else ""
            figure = f"{row.value:.3f}" + ("" if row.low != row.low else f"  {row.low:.3f} to {row.high:.3f}")
            typer.echo(f"{row.metric:16}  {row.target + group:{wide + 9}}  {row.setting:10}  {figure}")
    typer.echo(f"\n{paths['results']}\n{paths['page']}")
