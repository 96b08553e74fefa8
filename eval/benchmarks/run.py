"""Run a benchmark: read its folder, ask its classes (and reports, and questions), say what was and was not scored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kvlp.datasets.manifest import Manifest
from kvlp.datasets.readers import get_reader
from kvlp.errors import DataError
from kvlp.eval.benchmarks.cards import Card
from kvlp.eval.benchmarks.classes import BenchmarkClasses, relabelled
from kvlp.eval.benchmarks.retrieval import accuracy_rows, class_retrieval_rows, text_to_image_rows
from kvlp.eval.evaluate import Encoder, EvalOptions, Evaluation, evaluate
from kvlp.eval.results import Result
from kvlp.typing import PathLike

if TYPE_CHECKING:
    from kvlp.knowledge.graph import KnowledgeGraph

__all__ = ["BenchmarkRun", "Coverage", "read_benchmark", "run_benchmark"]


@dataclass(frozen=True)
class Coverage:
    """How much of a benchmark was there.

    Attributes:
        listed: rows of the benchmark's list.
        found: of these, images that lie in the folder.
        expected: rows of the whole benchmark; 0 where it has no one list.
        split: which rows were scored.
        own_split: which rows the benchmark is about.
    """

    listed: int
    found: int
    expected: int
    split: str
    own_split: str

    @property
    def whole(self) -> bool:
        """Whether every image of the whole benchmark was there, and no others were scored."""
        return self.split == self.own_split and self.found == self.listed and self.expected in (0, self.listed)

    @property
    def remarks(self) -> list[str]:
        """One line if this was not the whole benchmark."""
        return [] if self.whole else [f"not the whole benchmark: {self}"]

    def __str__(self) -> str:
        said = f"split {self.split!r} instead of {self.own_split!r}, " if self.split != self.own_split else ""
        of_all = f"; the whole benchmark has {self.expected:,}" if self.expected not in (0, self.listed) else ""
        return f"{said}{self.found:,} of {self.listed:,} listed were there{of_all}"


@dataclass(frozen=True)
class BenchmarkRun:
    """What a benchmark gave.

    Attributes:
        card: of the benchmark.
        manifest: the rows that were scored.
        evaluation: classes, negation and text queries.
        more: rows beside those of the evaluation.
        coverage: how much of the benchmark was there.
        classes: how its labels were asked.
        stray: labels of the data that the card does not know; they were not asked.
        unlabelled: classes for which the data have no label; they could not be scored.
    """

    card: Card
    manifest: Manifest
    evaluation: Evaluation
    coverage: Coverage
    classes: BenchmarkClasses
    stray: tuple[str, ...] = ()
    unlabelled: tuple[str, ...] = ()
    more: list[Result] = field(default_factory=list)

    @property
    def rows(self) -> list[Result]:
        """Every figure."""
        return [*self.evaluation.results, *self.more]

    @property
    def remarks(self) -> list[str]:
        """What a reader of the figures must know, one line each."""
        said = self.coverage.remarks
        if self.classes.outside:
            said.append(f"not in the graph, asked without synonyms: {', '.join(self.classes.outside)}")
        for words, labels in self.classes.words.items():
            if len(labels) > 1:
                said.append(f"one concept, asked once as {words!r}: {', '.join(labels)}")
        if self.unlabelled:
            said.append(f"no label in the data, in no mean: {', '.join(self.unlabelled)}")
        if self.card.not_asked:
            said.append(f"not asked, see the card: {', '.join(self.card.not_asked)}")
        if self.stray:
            more = f" and {len(self.stray) - 8} more (benchmark.json)" if len(self.stray) > 8 else ""
            said.append(f"labels that are not on the card, not asked: {', '.join(self.stray[:8])}{more}")
        return said

    @property
    def facts(self) -> dict[str, object]:
        """What was scored, for `benchmark.json`."""
        return {
            "benchmark": self.card.name,
            "title": self.card.title,
            "split": self.coverage.split,
            "listed": self.coverage.listed,
            "found": self.coverage.found,
            "expected": self.coverage.expected,
            "whole": self.coverage.whole,
            "zero": self.card.zero,
            "classes": {words: list(labels) for words, labels in self.classes.words.items()},
            "not_in_graph": list(self.classes.outside),
            "not_asked": [*self.card.not_asked, *self.stray],
            "no_label": list(self.unlabelled),
            "remarks": self.remarks,
        }


def read_benchmark(card: Card, data: PathLike, out: PathLike, split: str = "") -> tuple[Manifest, Manifest, Coverage]:
    """Read a folder into `out/manifest.csv`.

    Args:
        card: of the benchmark.
        data: the folder as it was downloaded.
        out: a folder for the manifest.
        split: the rows to score, "all" for any; default the benchmark's own.

    Returns:
        All rows, those of the split whose image is there, and how many there should be.

    Raises:
        DataError: the folder has another layout, or no image of the split.
    """
    whole = get_reader(card.name)(data, out, overwrite=True)
    scored = split or card.split
    listed = whole.subset(split=None if scored == "all" else scored)
    found = listed.subset(where=lambda record: listed.path_of(record).is_file())
    if not len(found):
        raise DataError(f"{card.title}: none of {len(listed):,} images of split {scored!r} lies in {data}")
    return whole, found, Coverage(len(listed), len(found), card.size, scored, card.split)


def run_benchmark(
    card: Card,
    data: PathLike,
    out: PathLike,
    model: Encoder,
    graph: KnowledgeGraph | None = None,
    *,
    seed: int = 0,
    options: EvalOptions | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> BenchmarkRun:
    """Score a model on a benchmark.

    Args:
        card: from `load_card`.
        data: the folder as it was downloaded.
        out: a folder for the manifest.
        model: encodes images and texts.
        graph: names and synonyms of the classes.
        seed: of the resamples.
        options: how to evaluate; a split that is not the benchmark's own makes another figure, which is told.
        progress: called with (step, done, total).

    Raises:
        DataError: the folder has another layout; one line says what was looked for and where.
    """
    options = options or EvalOptions()
    _, manifest, coverage = read_benchmark(card, data, Path(out), options.split)
    classes = BenchmarkClasses.of(card, graph)
    scored, stray = relabelled(manifest, classes, card)
    held = {words for record in scored for words in record.labels}
    wanted = replace(options, split=coverage.split)
    asked = classes.asked(card, held)
    if not asked:
        raise DataError(f"{card.title}: no image has a label of its classes {', '.join(list(card.classes)[:8])}")
    evaluation = evaluate(model, scored, asked, graph, seed=seed, options=wanted, progress=progress)
    more = _retrieval(model, evaluation, card) if card.kind == "retrieval" else []
    unlabelled = tuple(words for words in classes.words if words not in held)
    return BenchmarkRun(card, scored, evaluation, coverage, classes, tuple(stray), unlabelled, more)


def _retrieval(model: Encoder, evaluation: Evaluation, card: Card) -> list[Result]:
    rows = text_to_image_rows(model, evaluation)
    if card.single:
        rows += [*class_retrieval_rows(model, evaluation), *accuracy_rows(evaluation)]
    return rows
