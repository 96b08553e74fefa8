"""Run a benchmark: read its folder, ask its classes (and reports, and questions), say what was and was not scored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kvlp.datasets.manifest import Manifest
from kvlp.datasets.readers import get_reader
from kvlp.errors import DataError
from kvlp.eval.benchmarks.cards import Card
from kvlp.eval.benchmarks.classes import BenchmarkClasses, relabelled
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
    """

    listed: int
    found: int
    expected: int

    @property
    def whole(self) -> bool:
        """Whether every image of the whole benchmark was there."""
        return self.found == self.listed and self.expected in (0, self.listed)

    def __str__(self) -> str:
        of_all = f"; the whole benchmark has {self.expected:,}" if self.expected not in (0, self.listed) else ""
        return f"{self.found:,} of {self.listed:,} listed images found{of_all}"


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
    """

    card: Card
    manifest: Manifest
    evaluation: Evaluation
    coverage: Coverage
    classes: BenchmarkClasses
    stray: tuple[str, ...] = ()
    more: list[Result] = field(default_factory=list)

    @property
    def rows(self) -> list[Result]:
        """Every figure."""
        return [*self.evaluation.results, *self.more]

    @property
    def remarks(self) -> list[str]:
        """What a reader of the figures must know, one line each."""
        said = [] if self.coverage.whole else [f"not the whole benchmark: {self.coverage}"]
        if self.classes.outside:
            said.append(f"not in the graph, asked without synonyms: {', '.join(self.classes.outside)}")
        for words, labels in self.classes.words.items():
            if len(labels) > 1:
                said.append(f"one concept, asked once as {words!r}: {', '.join(labels)}")
        if self.stray:
            said.append(f"labels that the card does not know, not asked: {', '.join(self.stray)}")
        return said

    @property
    def facts(self) -> dict[str, object]:
        """What was scored, for `benchmark.json`."""
        return {
            "benchmark": self.card.name,
            "title": self.card.title,
            "listed": self.coverage.listed,
            "found": self.coverage.found,
            "expected": self.coverage.expected,
            "whole": self.coverage.whole,
            "zero": self.card.zero,
            "classes": {words: list(labels) for words, labels in self.classes.words.items()},
            "not_in_graph": list(self.classes.outside),
            "not_asked": list(self.stray),
            "remarks": self.remarks,
        }


def read_benchmark(card: Card, data: PathLike, out: PathLike) -> tuple[Manifest, Coverage]:
    """Read a folder into `out/manifest.csv`: the rows of its split whose image is there, and how many there should be.

    Raises:
        DataError: the folder has another layout, or no image of the split.
    """
    whole = get_reader(card.name)(data, out, overwrite=True)
    listed = whole.subset(split=card.split or None)
    found = listed.subset(where=lambda record: listed.path_of(record).is_file())
    if not len(found):
        raise DataError(f"{card.title}: none of {len(listed):,} images of split {card.split!r} lies in {data}")
    return found, Coverage(len(listed), len(found), card.size)


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
        options: how to evaluate.
        progress: called with (step, done, total).

    Raises:
        DataError: the folder has another layout; one line says what was looked for and where.
    """
    manifest, coverage = read_benchmark(card, data, Path(out))
    classes = BenchmarkClasses.of(card, graph)
    scored, stray = relabelled(manifest, classes, card)
    wanted = replace(options or EvalOptions(), split=card.split or "all")
    evaluation = evaluate(model, scored, classes.asked(card), graph, seed=seed, options=wanted, progress=progress)
    more: Sequence[Result] = ()
    return BenchmarkRun(card, scored, evaluation, coverage, classes, tuple(stray), list(more))
