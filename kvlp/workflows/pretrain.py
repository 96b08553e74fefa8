"""`kvlp.pretrain`: train by a recipe, evaluate on unseen rows, compare with controls, write the page."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvlp.datasets.files import atomic_write
from kvlp.datasets.manifest import Manifest
from kvlp.eval.evaluate import EvalOptions, Evaluation, control_results, difference_results, evaluate
from kvlp.eval.page.blocks import Block, Cell, Section, Table
from kvlp.eval.page.report import evaluation_blocks, loss_charts
from kvlp.eval.page.write import write_page
from kvlp.eval.results import Result, write_results
from kvlp.eval.tasks import Query, group_by_naming, labels_with_both
from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.knowledge.names import Names
from kvlp.knowledge.prompts import Prompts
from kvlp.training.ranks import is_first_process
from kvlp.training.recipe import EvaluationPart, Recipe
from kvlp.training.run import VALIDATION, Progress, run_recipe
from kvlp.typing import Assertion, PathLike
from kvlp.workflows.compare import Comparison, Plan, encoder_tables, plan, query_tables

if TYPE_CHECKING:
    from kvlp.checkpoints import Model

__all__ = ["Outcome", "pretrain"]


@dataclass
class Outcome:
    """What a run left behind.

    Attributes:
        checkpoint: the model folder.
        page: report.html, or None if there was nothing to evaluate on.
        results: every figure.
        evaluations: name -> what `evaluate` found.
        tables: name of an evaluation -> the comparison's table, its head first.
    """

    checkpoint: Path
    page: Path | None = None
    results: list[Result] = field(default_factory=list)
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    tables: dict[str, list[list[str]]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-able summary: where things are, and the macro figures."""
        return {
            "checkpoint": str(self.checkpoint),
            "page": str(self.page) if self.page else None,
            "results": [r.to_dict() for r in self.results if _is_headline(r)],
            "comparison": self.tables,
        }

    def lines(self) -> Iterator[str]:
        """The summary in lines for a terminal."""
        for row in filter(_is_headline, self.results):
            yield f"{row.task}: {row.group or row.target} {row.metric} {row.setting}: {row.text}"
        yield f"checkpoint: {self.checkpoint}"
        if self.page:
            yield f"page: {self.page}"
        for name, table in self.tables.items():
            yield f"comparison on {name}:"
            yield from (" | ".join(line) for line in table)


def pretrain(  # noqa: PLR0913 - one argument for each thing a user may say
    recipe: str | Path | Recipe,
    *,
    data: PathLike | Manifest,
    out: PathLike,
    shards: PathLike | None = None,
    resume: bool = False,
    overrides: Sequence[str] = (),
    compare: Sequence[str] = (),
    seeds: Sequence[int] = (),
    with_images: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Outcome:
    """Pretrain encoders on image-report pairs and evaluate them.

    Args:
        recipe: a recipe's name ("phantom-cpu"), a YAML file, or a Recipe.
        data: a manifest (CSV, JSONL, Parquet), or one that is loaded.
        out: run folder; gets checkpoint/, metrics.jsonl, results.jsonl and report.html.
        shards: read the training images from these shards of the manifest instead of from files.
        resume: go on with the run that is there.
        overrides: `key=value` settings ("stages.1.epochs=2") of every recipe; "NAME:key=value" of that one.
        compare: recipes to run on the same data, order and seeds, as controls; each in OUT/compare/NAME. One that sets
            keys of a base sets them in `recipe`. The table goes to OUT/comparison.md and comparison.jsonl.
        seeds: run every recipe with each of them; the first is that of OUT, others lie in OUT/compare/seed-N.
        with_images: put pictures of real patients into the page.
        progress: called with a Progress now and then.

    Raises:
        ConfigError, DataError, CheckpointError: see `run_recipe`.
    """
    manifest = data if isinstance(data, Manifest) else Manifest.load(data)
    folder = Path(out)
    tar = Path(shards) if shards is not None else None
    runs = plan([recipe, *compare], folder, seeds=seeds, overrides=overrides)
    for run in runs:
        again = resume if run is runs[0] else run.folder.exists()
        run_recipe(run.recipe, manifest, run.folder, resume=again, shards=tar, progress=progress)
    outcome = Outcome(folder / "checkpoint")
    if not is_first_process():  # the first one evaluates, alone
        return outcome
    blocks = _evaluate_all(runs, manifest, outcome, with_images=with_images, progress=progress)
    write_results(folder / "results.jsonl", outcome.results)
    curves: list[Block] = [Section("Training"), loss_charts(loss_rows(folder / "metrics.jsonl"))]
    if (folder / VALIDATION).is_file():
        curves += [
            Section("On held-out images while training"),
            loss_charts(validation_rows(folder / VALIDATION), x="row"),
        ]
    title = f"Pretraining by {runs[0].recipe.name}"
    outcome.page = write_page(folder / "report.html", title, [*blocks, *curves])
    return outcome


def validation_rows(path: Path) -> list[dict[str, float]]:
    """The rows of a validation.jsonl, numbered through the stages, for `loss_charts`."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [
        {"row": i, **{name: v for name, v in row.items() if name not in ("stage", "step", "name")}}
        for i, row in enumerate(rows, 1)
    ]


def loss_rows(path: Path, every: int = 1) -> list[dict[str, float]]:
    """The loss parts, learning rate and scale of each step in a metrics.jsonl, flat, for `loss_charts`."""
    rows = []
    for i, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        if i % every:
            continue
        row = json.loads(line)
        parts = {f"loss {name}": value for name, value in row["parts"].items() if "." not in name}
        rows.append({"step": i + 1, **parts, "logit scale": row["logit_scale"]})
    return rows


def evaluation_rows(manifest: Manifest, part: EvaluationPart) -> Manifest:
    """The rows of an evaluation: its split (test, else dev) and source; empty if there are none."""
    split = part.split or next((s for s in ("test", "dev") if any(r.split == s for r in manifest)), "test")
    return manifest.subset(where=lambda r: r.split == split and (not part.source or r.source == part.source))


def evaluate_part(
    model: Model, manifest: Manifest, part: EvaluationPart, graph: KnowledgeGraph, seed: int
) -> Evaluation | None:
    """One evaluation of a recipe, or None where there are no rows or no classes for it."""
    rows = evaluation_rows(manifest, part)
    if not len(rows):
        return None
    groups = group_by_naming(part.classes or labels_with_both(rows), graph, model.card.get("named_concepts"))
    if not groups:
        return None
    writer = Prompts(graph)
    queries = [Query(writer.sentence(name, Assertion.PRESENT), (name,)) for name in part.queries] or None
    options = EvalOptions(split=f"{rows[0].split} of {part.source}" if part.source else rows[0].split)
    return evaluate(model, rows, groups, graph, seed=seed, queries=queries, options=options)


def _evaluate_all(
    runs: Sequence[Plan],
    manifest: Manifest,
    outcome: Outcome,
    *,
    with_images: bool,
    progress: Callable[[Progress], None] | None,
) -> list[Block]:
    recipe, graph = runs[0].recipe, KnowledgeGraph.load(runs[0].recipe.knowledge.graph)
    blocks: list[Block] = []
    for number, part in enumerate(recipe.evaluation):
        if progress:
            progress(Progress("evaluate", number, len(recipe.evaluation), 0.0, 0.0, part.name))
        ours, extra, comparison = _compared(runs, manifest, part, graph)
        if ours is None:
            continue
        extra += _controls(ours, manifest, part, graph)
        outcome.evaluations[part.name] = ours
        outcome.results += [*ours.results, *extra]
        if len(recipe.evaluation) > 1:
            blocks.append(Section(part.name))
        rows = evaluation_rows(manifest, part)
        synthetic = _is_synthetic(rows)
        blocks += evaluation_blocks(
            ours, manifest=rows, with_images=with_images or synthetic, synthetic=synthetic, controls=extra
        )
        if len(comparison.tables) > 1:
            blocks += _written(comparison, part.name, runs, outcome)
    return blocks


def _compared(
    runs: Sequence[Plan], manifest: Manifest, part: EvaluationPart, graph: KnowledgeGraph
) -> tuple[Evaluation | None, list[Result], Comparison]:
    """Evaluate every run: the first run's evaluation, the others' differences of the same seed, and all in a table."""
    from kvlp.checkpoints import load

    ours: Evaluation | None = None
    extra: list[Result] = []
    comparison = Comparison({}, seeds=tuple(dict.fromkeys(run.seed for run in runs)))
    for run in runs:
        model = load(run.folder / "checkpoint")
        found = evaluate_part(model, manifest, part, graph, runs[0].seed)
        if found is None:
            break
        ours = ours or found
        comparison.groups = {**ours.groups, "all classes": ours.classes}
        comparison.add(run.recipe.name, encoder_tables(found))
        if asked := query_tables(model, found, evaluation_rows(manifest, part), graph):
            comparison.add(f"{run.recipe.name}, query network", asked)
        if run.seed == runs[0].seed and run is not runs[0]:
            for setting in ("POS", ours.main_setting):
                extra += difference_results(ours, found, run.recipe.name, setting=setting)
    return ours, extra, comparison


def _written(comparison: Comparison, name: str, runs: Sequence[Plan], outcome: Outcome) -> list[Block]:
    """Write the table beside the page, and return it for the page."""
    main = [scorer for scorer in comparison.tables if scorer.split(", query")[0] == runs[0].recipe.name]
    folder, ending = runs[0].folder, "" if name == "test" else f"-{name}"
    write_results(folder / f"comparison{ending}.jsonl", list(comparison.results(main)))
    atomic_write(folder / f"comparison{ending}.md", comparison.markdown(main).encode())
    head, *body = comparison.rows(main)
    outcome.tables[name] = [head, *body]
    seeds = ", ".join(map(str, comparison.seeds))
    cells: list[list[Cell]] = [list(line) for line in body]
    return [Section("Comparison", f"The same data, order and resamples; seeds {seeds}."), Table(head, cells)]


def _controls(ours: Evaluation, manifest: Manifest, part: EvaluationPart, graph: KnowledgeGraph) -> list[Result]:
    if not part.controls:
        return []
    from kvlp.eval.baselines import control_scores

    train = manifest.subset(split="train")
    train = train.subset(source=part.source) if part.source else train
    test = Manifest(ours.records, manifest.root)
    scores = control_scores(train, test, ours.tasks, Names(graph))
    rows: list[Result] = []
    for name, values in scores.items():
        rows += control_results(ours, name, values)
    return rows


def _is_synthetic(rows: Manifest) -> bool:
    return all(record.source == "phantom" for record in rows)


def _is_headline(row: Result) -> bool:
    named = row.target == "macro" or row.metric.startswith("mean_precision") or row.group == "all"
    return named and not row.is_detail
