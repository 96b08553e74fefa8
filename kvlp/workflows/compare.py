"""Several recipes on the same data, order and seeds, in one table: mean AUCs, and differences on the same resamples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kvlp.datasets.manifest import Manifest
from kvlp.eval.asking import class_scores, class_sentences
from kvlp.eval.evaluate import Evaluation
from kvlp.eval.intervals import Interval, MetricTable, auc_table
from kvlp.eval.metrics import Floats
from kvlp.eval.percentiles import bounds, p_value
from kvlp.eval.results import Result
from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.knowledge.prompts import Prompts
from kvlp.training.recipe import Recipe, derived, load_recipe
from kvlp.zero_shot.scoring import Asked, Reading

if TYPE_CHECKING:
    from kvlp.checkpoints import Model

__all__ = ["Comparison", "Plan", "compared_scores", "encoder_tables", "plan", "query_tables"]

_DEFINITION = "mean over seeds of the difference of macro areas under the ROC curve, the first model minus the second"


@dataclass(frozen=True)
class Plan:
    """One run of a comparison: which recipe, with which seed, and where."""

    recipe: Recipe
    seed: int
    folder: Path


def plan(
    recipes: Sequence[str | Path | Recipe], out: Path, *, seeds: Sequence[int] = (), overrides: Sequence[str] = ()
) -> list[Plan]:
    """The runs of a comparison, the first recipe's first: each recipe with each seed.

    A control (a recipe that `set`s keys of a base) is taken as a control of the first recipe. `overrides` are set in
    every recipe, those that begin with NAME: in that one alone.

    Raises:
        ConfigError: a wrong recipe or setting.
    """
    names = [r.name if isinstance(r, Recipe) else str(r) for r in recipes]
    known = {r.name if isinstance(r, Recipe) else Path(r).stem for r in recipes}
    made: list[Recipe] = []
    for recipe in recipes:
        if isinstance(recipe, Recipe):
            made.append(recipe)
            continue
        own = list(_own(overrides, Path(recipe).stem, known))
        first = names[0] if made and not isinstance(recipes[0], Recipe) else None
        made.append(load_recipe(recipe, own) if first is None else derived(recipe, first, own))
    titles = _titles(made)
    runs = []
    for position, seed in enumerate(dict.fromkeys(seeds or [made[0].seed])):
        for number, (recipe, title) in enumerate(zip(made, titles, strict=True)):
            below = out / "compare" / title if position == 0 else out / "compare" / f"seed-{seed}" / title
            folder = out if position == 0 and number == 0 else below
            runs.append(Plan(recipe.model_copy(update={"seed": seed, "name": title}), seed, folder))
    return runs


def _own(overrides: Sequence[str], name: str, known: set[str]) -> Iterator[str]:
    """The overrides that are for everyone or for this recipe."""
    for override in overrides:
        prefix, colon, rest = override.partition(":")
        if colon and prefix in known:
            if prefix == name:
                yield rest
        else:
            yield override


def _titles(recipes: Sequence[Recipe]) -> list[str]:
    """Names, all different: a recipe that is compared with itself gets a number."""
    seen: dict[str, int] = {}
    titles = []
    for recipe in recipes:
        seen[recipe.name] = seen.get(recipe.name, 0) + 1
        titles.append(recipe.name if seen[recipe.name] == 1 else f"{recipe.name}-{seen[recipe.name]}")
    return titles


@dataclass
class Comparison:
    """What scored the same images: the encoders of each recipe, and the query networks of those that have one.

    Attributes:
        groups: group of classes -> their names.
        tables: scorer -> setting -> a table for each seed; all tables from the same resamples.
        seeds: of the runs.
    """

    groups: Mapping[str, Sequence[str]]
    tables: dict[str, dict[str, list[MetricTable]]] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()

    def add(self, scorer: str, tables: Mapping[str, MetricTable]) -> None:
        """Add a seed's tables of a scorer."""
        for setting, table in tables.items():
            self.tables.setdefault(scorer, {}).setdefault(setting, []).append(table)

    def figure(self, scorer: str, group: str, setting: str) -> tuple[float, float, float]:
        """Macro AUC of a group: its mean over seeds, its lowest and its highest."""
        values = [table.mean(self._names(group)).value for table in self.tables[scorer][setting]]
        return float(np.mean(values)), min(values), max(values)

    def difference(self, first: str, second: str, group: str, setting: str) -> Interval:
        """Mean over seeds of the first's macro AUC minus the second's, with an interval over patients."""
        names = self._names(group)
        a, b = (self.tables[scorer][setting] for scorer in (first, second))
        shown = a[0].mean(names)
        samples = np.mean([_macro_samples(t, names) for t in a], axis=0)
        samples = samples - np.mean([_macro_samples(t, names) for t in b], axis=0)
        value = self.figure(first, group, setting)[0] - self.figure(second, group, setting)[0]
        low, high = bounds(value, samples)
        seeds = f"mean over {len(a)} seed{'s' if len(a) > 1 else ''}"
        return Interval(
            value, low, high, shown.n_resamples, f"{seeds}; {shown.method}", shown.n, shown.n_groups, shown.n_positive,
            p=p_value(samples),
        )  # fmt: skip

    @property
    def settings(self) -> tuple[str, ...]:
        """The scores that are compared, see `compared_scores`."""
        return tuple(next(iter(self.tables.values()))) if self.tables else ()

    def results(self, main: Sequence[str]) -> Iterator[Result]:
        """A row for each main scorer against each other scorer, group and setting."""
        for group in self.groups:
            for first in main:
                for second in (name for name in self.tables if name not in main):
                    for setting in self.settings:
                        yield Result.of(
                            self.difference(first, second, group, setting), metric="auc_difference", target="macro",
                            definition=_DEFINITION, setting=f"{setting} of {first} minus {second}", group=group,
                            task="control",
                        )  # fmt: skip

    def rows(self, main: Sequence[str]) -> Iterator[list[str]]:
        """The table, its head first: a scorer's mean AUCs (lowest to highest seed), and the main ones' lead over it."""
        leads = [f"{name} minus it" for name in main]
        yield ["classes", "score", "model", "AUC", "over seeds", *leads]
        for group in self.groups:
            for setting in self.settings:
                for scorer in self.tables:
                    mean, low, high = self.figure(scorer, group, setting)
                    others = ["" if scorer in main else str(self.difference(m, scorer, group, setting)) for m in main]
                    yield [group, setting, scorer, f"{mean:.3f}", f"{low:.3f} to {high:.3f}", *others]

    def markdown(self, main: Sequence[str]) -> str:
        """The table as Markdown."""
        head, *body = self.rows(main)
        lines = [head, ["---"] * len(head), *body]
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def _names(self, group: str) -> list[str]:
        """The classes of a group that the labels define."""
        table = next(iter(next(iter(self.tables.values())).values()))[0]
        return [name for name in self.groups[group] if name not in table.undefined and name in table.per_class]


def _macro_samples(table: MetricTable, names: Sequence[str]) -> Floats:
    drawn = np.stack([table.samples[name] for name in names])
    held = ~np.isnan(drawn)
    return np.where(held, drawn, 0.0).sum(axis=0) / np.maximum(held.sum(axis=0), 1)


def compared_scores(evaluation: Evaluation) -> tuple[str, ...]:
    """The scores that a comparison shows: by either sentence and by both; for "A vs B" the one that tells A from B."""
    return ("POS", "NEG", "PAIR") if evaluation.main_setting == "PAIR" else (evaluation.main_setting,)


def encoder_tables(evaluation: Evaluation) -> dict[str, MetricTable]:
    """The AUC tables of an evaluation that a comparison needs."""
    return {setting: evaluation.tables["auc", setting] for setting in compared_scores(evaluation)}


def query_tables(
    model: Model, evaluation: Evaluation, manifest: Manifest, graph: KnowledgeGraph
) -> dict[str, MetricTable] | None:
    """The AUC tables of a model's query network on the images of an evaluation; None if it has none."""
    if not model.card.get("query_network"):
        return None
    said = class_sentences(evaluation.tasks, Prompts(graph), "wordings", synonyms=False)
    asked = Asked(model.query, Manifest(evaluation.records, manifest.root), Reading("raise"))
    scores = class_scores(asked, evaluation.tasks, said)
    return {
        setting: auc_table(
            evaluation.y_true, scores[setting], evaluation.patients, names=evaluation.classes,
            n=evaluation.options.resamples, seed=evaluation.provenance.seed,
        )
        for setting in compared_scores(evaluation)
    }  # fmt: skip
