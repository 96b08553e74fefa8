"""`kvlp eval`: evaluate a checkpoint on a manifest or a benchmark, with intervals; writes rows and one page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from kvlp.datasets.leak_report import LeakReport
    from kvlp.datasets.manifest import Manifest
    from kvlp.eval.evaluate import EvalOptions, Evaluation
    from kvlp.eval.page.blocks import Block
    from kvlp.eval.results import Result

__all__ = ["Ask", "command", "progress", "show", "write"]

#: metrics that stand in the rows and on the page, and are not printed; and those of which only the mean is
_QUIET, _BY_MEAN = ("average_precision", "auc_sd_over_prompts", "prevalence"), ("negation_auc", "auc_over_prompts")


def command(
    what: str = typer.Argument(
        "", metavar="CKPT|BENCHMARK", help="A model that kvlp.load takes, or a benchmark's name."
    ),
    data: Path = typer.Option(None, "--data", help="Manifest with labels (CSV, JSONL, Parquet); a benchmark's folder."),
    out: Path = typer.Option(None, "--out", help="Folder for results.jsonl and report.html."),
    model: str = typer.Option("", "--model", metavar="CKPT", help="The model, with a benchmark."),
    predictions: Path = typer.Option(
        None, "--predictions", help='Instead of a model: its answers, JSON Lines of {"id", "answer"} (VQA benchmarks).'
    ),
    split: str = typer.Option(
        "", "--split", help='Split to score (default test, or a benchmark\'s own); "all" takes every row.'
    ),
    source: str = typer.Option("", "--source", help="Only rows of this source: score within one, too."),
    classes: list[str] = typer.Option(
        [], "--classes", metavar='"A,B"', help='Classes, also "A vs B"; default: every label with both values.'
    ),
    query: list[str] = typer.Option([], "--query", metavar='"WORDS=CLASS"', help="A text query. May be repeated."),
    controls: str = typer.Option("", "--controls", metavar="SPLIT", help="Fit baselines and controls on this split."),
    validation: str = typer.Option(
        "", "--validation", metavar="SPLIT", help="Learn thresholds and probabilities on this split, of other patients."
    ),
    scorer: str = typer.Option(
        "encoders", "--scorer", help='What scores classes: "encoders", or the checkpoint\'s "query" network.'
    ),
    studies: str = typer.Option(
        "", "--studies", metavar="HOW", help="Pool the images of a study: mean or max of their scores, or embeddings."
    ),
    graph: str = typer.Option("chest", "--graph", help='Gives synonyms: "chest", a graph folder, or "none".'),
    style: str = typer.Option("ensemble", "--style", help='Prompts: "ensemble" of wordings, or "plain".'),
    synonyms: bool = typer.Option(True, "--synonyms/--no-synonyms", help="Prompts with the graph's synonyms too."),
    resamples: int = typer.Option(1000, "--resamples", min=1, help="Bootstrap resamples of patients."),
    seed: int = typer.Option(0, "--seed", help="Seed of the resamples."),
    with_images: bool = typer.Option(False, "--with-images", help="Put pictures of patients into the page."),
    device: str = typer.Option("cpu", "--device", help="Torch device."),
    listing: bool = typer.Option(False, "--list", help="List the benchmarks."),
    card: str = typer.Option("", "--card", metavar="BENCHMARK", help="Print a benchmark's data card."),
    expect: bool = typer.Option(False, "--expect", help="Print published figures of a benchmark beside ours."),
    as_json: bool = typer.Option(False, "--json", help="Print the rows as one JSON document."),
) -> None:
    """Evaluate a model on a manifest or a benchmark: AUC by class, negation, retrieval, with 95 % intervals."""
    from kvlp.cli import eval_benchmark

    if listing or card:
        eval_benchmark.show_cards(card, as_json=as_json)
        return
    named = eval_benchmark.is_benchmark(what)
    _require_sense(what, data, out, model or str(predictions or ""), named=named)
    _require_known(style, scorer, studies)
    from kvlp.eval.evaluate import EvalOptions

    options = EvalOptions(
        resamples=resamples,
        split=split or ("" if named else "test"),
        style=style,  # type: ignore[arg-type]
        synonyms=synonyms,
        scorer=scorer,  # type: ignore[arg-type]
        studies=studies,  # type: ignore[arg-type]
    )
    ask = Ask(
        model if named else what, data, out, graph, device, seed, options, with_images=with_images, as_json=as_json
    )
    if named:
        if validation:
            raise typer.BadParameter("it goes with a manifest, and not with a benchmark", param_hint="--validation")
        eval_benchmark.run(what, ask, predictions, expect=expect)
    else:
        names = [n.strip() for part in classes for n in part.split(",") if n.strip()]
        _run(ask, source, names, query, controls, validation)


@dataclass(frozen=True)
class Ask:
    """What both ways of `kvlp eval` are told."""

    checkpoint: str
    data: Path
    out: Path
    graph: str
    device: str
    seed: int
    options: EvalOptions
    with_images: bool
    as_json: bool


def _require_known(style: str, scorer: str, studies: str) -> None:
    if style not in ("ensemble", "plain"):
        raise typer.BadParameter("expected 'ensemble' or 'plain'", param_hint="--style")
    if scorer not in ("encoders", "query"):
        raise typer.BadParameter("expected 'encoders' or 'query'", param_hint="--scorer")
    if studies not in ("", "mean", "max", "embeddings"):
        raise typer.BadParameter("expected 'mean', 'max' or 'embeddings'", param_hint="--studies")
    if studies == "embeddings" and scorer == "query":
        raise typer.BadParameter("the query network looks at images; take mean or max", param_hint="--studies")


def _require_sense(what: str, data: Path | None, out: Path | None, model: str, *, named: bool) -> None:
    if not what:
        raise typer.BadParameter("give a checkpoint or a benchmark's name (--list)", param_hint="CKPT|BENCHMARK")
    for name, value in (("--data", data), ("--out", out)):
        if value is None:
            raise typer.BadParameter("is needed", param_hint=name)
    if named and not model:
        raise typer.BadParameter(f"the benchmark {what!r} needs a model (or --predictions)", param_hint="--model")
    if model and not named:
        raise typer.BadParameter(
            f"it goes with a benchmark's name, and {what!r} is none (--list)", param_hint="--model"
        )


def _run(ask: Ask, source: str, names: list[str], query: list[str], controls: str, validation: str) -> None:
    from kvlp.checkpoints import load
    from kvlp.cli.zeroshot import load_graph
    from kvlp.datasets.manifest import Manifest
    from kvlp.eval.evaluate import evaluate
    from kvlp.eval.tasks import default_classes, group_by_naming

    whole = Manifest.load(ask.data)
    chosen = _subset(whole, ask.options.split, source)
    options = replace(
        ask.options,
        validation=_subset(whole, validation, source) if validation else None,
        controls=True,
        controls_train=_subset(whole, controls, source) if controls else None,
        leaks=_leaks(whole),
    )
    model = load(ask.checkpoint, ask.device)
    knowledge = load_graph(ask.graph)
    result = evaluate(
        model,
        chosen,
        names or group_by_naming(default_classes(chosen), knowledge, model.card.get("named_concepts")),
        knowledge,
        seed=ask.seed,
        queries=[_query(text) for text in query] or None,
        options=options,
        progress=progress(),
    )
    title = f"Evaluation of {Path(ask.checkpoint).name}"
    paths = write(result, [], chosen, ask.out, with_images=ask.with_images, title=title)
    show(result, [], paths, as_json=ask.as_json)


def _subset(manifest: Manifest, split: str, source: str) -> Manifest:
    has_splits = any(record.split for record in manifest)
    return manifest.subset(split=None if split == "all" or not has_splits else split, source=source or None)


def _query(text: str) -> Any:
    from kvlp.eval.tasks import Query

    words, equals, target = text.rpartition("=")
    if not equals or not words.strip() or not target.strip():
        raise typer.BadParameter(f'{text!r}: expected "WORDS=CLASS"', param_hint="--query")
    return Query(words.strip(), tuple(part.strip() for part in target.split(" and ") if part.strip()))


def progress() -> Any:
    """A progress line on a terminal, else None."""
    from kvlp.cli.zeroshot import counter

    line = counter("read and encode")
    return None if line is None else lambda _, done, total: line(done, total)


def _leaks(whole: Manifest) -> LeakReport | None:
    """Patients, studies and reports that splits share; images are compared by `kvlp data leaks`."""
    from kvlp.datasets.leaks import find_leaks

    several = len({record.split for record in whole}) > 1
    return find_leaks(whole, skip=("pixels", "near_duplicate")) if several else None


def write(
    result: Evaluation,
    controls: Sequence[Result],
    manifest: Manifest,
    out: Path,
    *,
    with_images: bool,
    title: str,
    before: Sequence[Block] = (),
) -> dict[str, Path]:
    """Write results.jsonl and report.html; `before` are blocks for the top of the page."""
    from kvlp.eval.page import write_page
    from kvlp.eval.page.report import evaluation_blocks
    from kvlp.eval.results import write_results

    synthetic = all(record.source == "phantom" for record in result.records)
    blocks = evaluation_blocks(
        result, manifest=manifest, with_images=with_images or synthetic, controls=controls, synthetic=synthetic
    )
    studies = "" if result.studies is None else f"{len(result.records):,} studies of "
    where = f"{studies}{result.n_images:,} images, split {result.provenance.split or 'all'}"
    return {
        "results": write_results(out / "results.jsonl", [*result.results, *controls]),
        "page": write_page(out / "report.html", title, [*before, *blocks], subtitle=where),
    }


def show(
    result: Evaluation,
    controls: Sequence[Result],
    paths: dict[str, Path],
    *,
    as_json: bool,
    more: Mapping[str, object] | None = None,
) -> None:
    """Print the figures, as lines or as one JSON document with the keys of `more`."""
    rows = [*result.results, *controls]
    if as_json:
        document = {
            **{name: str(path) for name, path in paths.items()},
            "scorer": result.options.scorer,
            "images": result.n_images,
            "studies": None if result.studies is None else {"how": result.studies.how, "count": len(result.records)},
            "skipped": [{"row": row, "reason": reason} for row, reason in result.skipped],
            "rows": [row.to_dict() for row in rows],
            **(more or {}),
        }
        typer.echo(json.dumps(document, indent=2, allow_nan=False))
        return
    for line in _remarks(more):
        typer.echo(f"kvlp: {line}", err=True)
    for number, reason in result.skipped:
        typer.echo(f"kvlp: row {number} of the rows chosen left out: {reason}", err=True)
    rows = [row for row in rows if not row.is_detail and row.metric not in _QUIET]
    wide = max(len(row.target) for row in rows)
    means = {
        (row.metric, row.setting)
        for row in rows
        if row.target == "macro" and (row.metric in _BY_MEAN or row.task == "control")
    }
    for row in rows:
        if row.target == "macro" or (row.metric, row.setting) not in means:
            group = f" ({row.group})" if row.target == "macro" else ""
            figure = ("undefined" if row.value != row.value else f"{row.value:.3f}") + (
                "" if row.low != row.low else f"  {row.low:.3f} to {row.high:.3f}"
            )
            typer.echo(f"{row.metric:16}  {row.target + group:{wide + 9}}  {row.setting:10}  {figure}")
    typer.echo("\n" + "\n".join(str(path) for path in paths.values()))


def _remarks(more: Mapping[str, object] | None) -> list[str]:
    """What a benchmark says beside its figures."""
    facts = (more or {}).get("benchmark")
    return [str(line) for line in facts.get("remarks", [])] if isinstance(facts, dict) else []
