"""Resampling by counts: how often each patient stands in each bootstrap sample, and AUC and AP under such counts.

A bootstrap sample is a row of counts. Sorting once and summing counts gives a metric of many samples together, which
is what makes a thousand resamples cheap. NumPy alone, which lets other threads run during its long steps.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvlp.errors import ConfigError, ShapeError
from kvlp.eval.metrics import Bools, Floats

__all__ = [
    "RESAMPLERS",
    "Clusters",
    "Counts",
    "Resampler",
    "Weights",
    "auc_resampler",
    "average_precision_resampler",
    "function_resampler",
    "resample",
]

Weights: TypeAlias = NDArray[np.float32]
Counts: TypeAlias = NDArray[np.uint8]
Rows: TypeAlias = NDArray[np.intp]
#: counts (B, clusters) -> the metric in each of the B samples
Resampler: TypeAlias = Callable[[Counts], Floats]
#: labels, scores and cluster of each row -> a resampler
MakeResampler: TypeAlias = Callable[[Bools, Floats, Rows], Resampler]

#: Samples drawn at a time, and rows x samples handled at a time (what a core's cache holds); neither changes a result.
_CHUNK, _CELLS = 256, 200_000
#: Rows x samples x metrics from which starting threads pays.
_WORTH_THREADS = 10_000_000


@dataclass(frozen=True)
class Clusters:
    """Which rows are drawn together.

    Attributes:
        number: shape (N,), the cluster of each row.
        count: how many clusters there are.
        grouped: whether groups were given; else each row is its own cluster.
    """

    number: NDArray[np.intp]
    count: int
    grouped: bool

    @classmethod
    def of(cls, groups: ArrayLike | None, rows: int, *, unit: str = "group", force: bool = False) -> Clusters:
        """Clusters of equal `groups`; see `kvlp.eval.intervals.bootstrap` for `unit` and `force`."""
        if unit not in ("group", "image"):
            raise ConfigError(f"unit is {unit!r}; expected 'group' (draw patients) or 'image' (draw rows)")
        alone = cls(np.arange(rows), rows, grouped=False)
        if groups is None:
            return alone
        ids = np.asarray(groups)
        if ids.shape != (rows,):
            raise ShapeError(f"groups must have shape ({rows},), one patient for each row; got {ids.shape}")
        names, number = np.unique(ids.astype(str), return_inverse=True)
        if unit == "group":
            return cls(number.reshape(-1), len(names), grouped=True)
        if len(names) < rows and not force:
            raise ConfigError(
                f"unit='image' with {rows} images of {len(names)} patients gives an interval that is too narrow; "
                "use unit='group', or force=True if you mean it"
            )
        return alone

    @property
    def method(self) -> str:
        """The interval's method in words, without the number of resamples."""
        return f"percentile bootstrap of {'patients' if self.grouped else 'rows'}"

    def count_at(self, rows: Rows) -> int:
        """How many clusters some of the rows belong to."""
        return len(np.unique(self.number[rows]))

    def counts(self, n: int, seed: int) -> Iterator[Counts]:
        """Draw `n` samples of whole clusters with replacement.

        Yields:
            Arrays of shape (B, count): how often each cluster stands in each sample; all B together make `n`.
        """
        rng = np.random.default_rng(seed)
        for start in range(0, n, _CHUNK):
            # A count beyond 255 has no chance (below 1e-500) to be drawn, and none to exist among 255 clusters.
            drawn = np.empty((min(_CHUNK, n - start), self.count), dtype=np.uint8)
            for row in drawn:
                row[:] = np.bincount(rng.integers(0, self.count, size=self.count), minlength=self.count)
            yield drawn

    def weights(self, n: int, seed: int) -> Iterator[Weights]:
        """The same samples row by row: arrays of shape (N, B) with the count of each row in each sample."""
        for drawn in self.counts(n, seed):
            yield drawn.T.astype(np.float32)[self.number]

    def sums(self, values: Floats, rows: Rows) -> Floats:
        """Sum of `values` (K,) or (K, D), given at `rows`, in each cluster: (count,) or (count, D).

        `counts @ sums` is then the sum in each sample.
        """
        total = np.zeros((self.count, *values.shape[1:]))
        np.add.at(total, self.number[rows], values)
        return total


def resample(makers: Sequence[Resampler], clusters: Clusters, n: int, seed: int, *, threads: bool = True) -> Floats:
    """Run several metrics over the same `n` samples: shape (len(makers), n).

    Args:
        makers: each takes counts (B, count) and gives the metric in each of the B samples.
        clusters: what is drawn.
        n: samples.
        seed: their seed.
        threads: share the work among cores; off for functions that are not known to allow it.
    """
    out = np.full((len(makers), n), np.nan)
    if clusters.count == 0:
        return out
    busy = threads and len(makers) * len(clusters.number) * n > _WORTH_THREADS
    with ThreadPoolExecutor(_workers() if busy else 1) as pool:
        done = 0
        for counts in clusters.counts(n, seed):
            _fill(out[:, done : done + len(counts)], makers, counts, pool.map if busy else map)
            done += len(counts)
    return out


def _fill(out: Floats, makers: Sequence[Resampler], counts: Counts, run: Callable[..., Iterable[None]]) -> None:
    step = max(4, _CELLS // counts.shape[1])

    def one(job: tuple[int, int]) -> None:
        which, start = job
        part = slice(start, start + step)
        out[which, part] = makers[which](counts[part])

    for _ in run(one, [(which, start) for which in range(len(makers)) for start in range(0, len(counts), step)]):
        pass


def auc_resampler(positive: Bools, scores: Floats, number: Rows) -> Resampler:
    """AUC in each sample; NaN where one of the two labels was not drawn.

    The rows are sorted once. In a sample, the AUC is the weight of the negatives below each positive, summed: a running
    total over one label, looked up at the rows of the rarer other.

    Args:
        positive: shape (K,).
        scores: shape (K,).
        number: shape (K,), the cluster of each row.
    """
    turned = bool(2 * positive.sum() > positive.size)
    rare = ~positive if turned else positive
    at, passed, below, upto = _sweep(rare, scores, number)

    def values(counts: Counts) -> Floats:
        total = _running(counts, passed)
        weight = np.take(counts, at, axis=1).astype(np.float64)
        beaten = np.take(total, below, axis=1) + np.take(total, upto, axis=1)
        twice = np.einsum("bp,bp->b", weight, beaten.astype(np.float64))
        pairs = 2 * weight.sum(axis=1) * total[:, -1]
        return _share(pairs - twice if turned else twice, pairs)

    return values


def average_precision_resampler(positive: Bools, scores: Floats, number: Rows) -> Resampler:
    """Average precision in each sample; NaN where one of the two labels was not drawn. Arguments as `auc_resampler`."""
    at, passed, below, _ = _sweep(positive, scores, number)
    ranked = np.sort(scores[positive])
    first = np.searchsorted(ranked, ranked, side="left")

    def values(counts: Counts) -> Floats:
        absent, present = _running(counts, passed), _running(counts, at)
        weight = np.take(counts, at, axis=1).astype(np.float64)
        true = (present[:, -1:] - np.take(present, first, axis=1)).astype(np.float64)
        flagged = true + (absent[:, -1:] - np.take(absent, below, axis=1))
        total = np.einsum("bp,bp->b", weight, _share(true, flagged, 0.0))
        return np.where(absent[:, -1] > 0, _share(total, present[:, -1].astype(np.float64)), np.nan)

    return values


def function_resampler(metric: Callable[[Floats, Floats], float]) -> MakeResampler:
    """Any metric (y_true, y_score) -> float, sample by sample, rows repeated as often as they were drawn."""

    def make(positive: Bools, scores: Floats, number: Rows) -> Resampler:
        labels = positive.astype(np.float64)

        def one(counts: Counts) -> float:
            rows = np.repeat(np.arange(number.size), counts[number])
            drawn = labels[rows]
            return float(metric(drawn, scores[rows])) if 0 < drawn.sum() < rows.size else np.nan

        return lambda counts: np.array([one(row) for row in counts])

    return make


def _sweep(seen: Bools, scores: Floats, number: Rows) -> tuple[Rows, Rows, Rows, Rows]:
    """Clusters of the rows seen and of the others, scores rising; how many others lie below, and not above, each."""
    # ties by cluster, so that the order of the rows changes nothing
    order = np.lexsort((number, scores))
    mine, others = order[seen[order]], order[~seen[order]]
    below = np.searchsorted(scores[others], scores[mine], side="left")
    return number[mine], number[others], below, np.searchsorted(scores[others], scores[mine], side="right")


def _running(counts: Counts, passed: Rows) -> NDArray[np.int32] | NDArray[np.int64]:
    """Running totals of the counts of some rows in their order: (B, len(passed) + 1), from 0."""
    kind = np.int32 if passed.size < 2**22 else np.int64
    total = np.zeros((len(counts), passed.size + 1), dtype=kind)
    np.cumsum(np.take(counts, passed, axis=1).astype(kind), axis=1, out=total[:, 1:])
    return total


def _share(part: Floats, whole: Floats, otherwise: float = np.nan) -> Floats:
    return np.divide(part, whole, out=np.full(part.shape, otherwise), where=whole > 0)


def _workers() -> int:
    """Threads to use: OMP_NUM_THREADS if it is set, else the cores."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdecimal() and int(told) > 0 else os.cpu_count() or 1


#: metric name -> its resampler
RESAMPLERS: dict[str, MakeResampler] = {"auc": auc_resampler, "average_precision": average_precision_resampler}
