"""Resampling by counts: how often each patient stands in each bootstrap sample, and AUC and AP under such counts.

A bootstrap sample is a column of counts. Sorting once and summing counts gives a metric of many samples together, and
counts are small enough that most of the sums fit a byte, which is what makes a thousand resamples cheap. NumPy alone,
which lets other threads run during its long steps.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
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
    "workers",
]

Weights: TypeAlias = NDArray[np.float32]
Counts: TypeAlias = NDArray[np.uint8]
Rows: TypeAlias = NDArray[np.intp]
Totals: TypeAlias = NDArray[np.signedinteger]
#: counts (clusters, B) -> the metric in each of the B samples
Resampler: TypeAlias = Callable[[Counts], Floats]
#: labels, scores and cluster of each row -> a resampler
MakeResampler: TypeAlias = Callable[[Bools, Floats, Rows], Resampler]

#: Samples drawn at a time: at most this many, and fewer if rows x samples would pass this many cells (bytes). Neither
#: changes a result.
_CHUNK, _CELLS = 128, 8_000_000
#: Clusters x samples drawn in one call.
_DRAWS = 50_000
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
            Arrays of shape (count, B): how often each cluster stands in each sample; all B together make `n`.
        """
        rng = np.random.default_rng(seed)
        chunk = max(16, min(_CHUNK, _CELLS // max(len(self.number), 1)))
        for start in range(0, n, chunk):
            size = min(chunk, n - start)
            # A count beyond 255 has no chance (below 1e-500) to be drawn, and none to exist among 255 clusters.
            drawn = np.empty((size, self.count), dtype=np.uint8)
            few = max(1, _DRAWS // self.count)  # several samples in one call
            for first in range(0, size, few):
                drawn[first : first + few] = self._count(rng, min(few, size - first))
            yield np.ascontiguousarray(drawn.T)

    def _count(self, rng: np.random.Generator, samples: int) -> NDArray[np.intp]:
        """Draw clusters for some samples and count them: (samples, count)."""
        draws = rng.integers(0, self.count, size=(samples, self.count))
        draws += self.count * np.arange(samples)[:, None]
        return np.bincount(draws.reshape(-1), minlength=samples * self.count).reshape(samples, self.count)

    def weights(self, n: int, seed: int) -> Iterator[Weights]:
        """The same samples row by row: arrays of shape (N, B) with the count of each row in each sample."""
        for drawn in self.counts(n, seed):
            yield drawn.astype(np.float32)[self.number]

    def sums(self, values: Floats, rows: Rows) -> Floats:
        """Sum of `values` (K,) or (K, D), given at `rows`, in each cluster: (count,) or (count, D)."""
        total = np.zeros((self.count, *values.shape[1:]))
        np.add.at(total, self.number[rows], values)
        return total

    def sample_sums(self, sums: Floats, n: int, seed: int) -> Floats:
        """What clusters hold (count, D), added up in each of the `n` samples: (D, n); (D, 0) without any cluster."""
        parts = [sums.T @ counts for counts in self.counts(n, seed)] if self.count else []
        return np.concatenate([np.zeros((sums.shape[1], 0)), *parts], axis=1)


def resample(makers: Sequence[Resampler], clusters: Clusters, n: int, seed: int, *, threads: bool = True) -> Floats:
    """Run several metrics over the same `n` samples: shape (len(makers), n).

    Args:
        makers: each takes counts (count, B) and gives the metric in each of the B samples.
        clusters: what is drawn.
        n: samples.
        seed: their seed.
        threads: share the metrics among cores; off for functions that are not known to allow it.
    """
    if clusters.count == 0:
        return np.full((len(makers), n), np.nan)
    drawn = clusters.counts(n, seed)
    busy = threads and workers() > 1 and len(makers) * len(clusters.number) * n > _WORTH_THREADS
    parts = _in_threads(makers, drawn) if busy else [[maker(counts) for maker in makers] for counts in drawn]
    return np.array([np.concatenate(values) for values in zip(*parts, strict=True)]).reshape(len(makers), n)


def _in_threads(makers: Sequence[Resampler], drawn: Iterator[Counts]) -> list[list[Floats]]:
    """Every maker's values for each array of counts; the next counts are drawn meanwhile."""
    jobs: list[list[Future[Floats]]] = []
    with ThreadPoolExecutor(workers()) as pool:
        for counts in drawn:
            jobs.append([pool.submit(maker, counts) for maker in makers])
            if len(jobs) > 1:
                wait(jobs[-2])  # no more than two arrays of counts at a time
    return [[job.result() for job in part] for part in jobs]


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
    at, passed, below, upto = _sweep(~positive if turned else positive, scores, number)
    tied = not np.array_equal(below, upto)

    def values(counts: Counts) -> Floats:
        total = _Totals(counts, passed)
        lower = total.of_first(below)
        twice = lower + (total.of_first(upto) if tied else lower)
        weight = np.take(counts, at, axis=0)
        won = np.einsum("pb,pb->b", weight, twice, dtype=np.float64, casting="unsafe")
        pairs = 2.0 * weight.sum(axis=0, dtype=np.int64) * total.of_all
        return _share(pairs - won if turned else won, pairs)

    return values


def average_precision_resampler(positive: Bools, scores: Floats, number: Rows) -> Resampler:
    """Average precision in each sample; NaN where one of the two labels was not drawn. Arguments as `auc_resampler`."""
    at, passed, below, _ = _sweep(positive, scores, number)
    ranked = np.sort(scores[positive])
    first = np.searchsorted(ranked, ranked, side="left")

    def values(counts: Counts) -> Floats:
        absent, present = _Totals(counts, passed), _Totals(counts, at)
        true = (present.of_all - present.of_first(first)).astype(np.float64)
        flagged = true + (absent.of_all - absent.of_first(below))
        weight = np.take(counts, at, axis=0)
        total = np.einsum("pb,pb->b", weight, _share(true, flagged, 0.0), dtype=np.float64, casting="unsafe")
        return np.where(absent.of_all > 0, _share(total, present.of_all.astype(np.float64)), np.nan)

    return values


def function_resampler(metric: Callable[[Floats, Floats], float]) -> MakeResampler:
    """Any metric (y_true, y_score) -> float, sample by sample, rows repeated as often as they were drawn."""

    def make(positive: Bools, scores: Floats, number: Rows) -> Resampler:
        labels = positive.astype(np.float64)

        def one(sample: Counts) -> float:
            rows = np.repeat(np.arange(number.size), sample[number])
            drawn = labels[rows]
            return float(metric(drawn, scores[rows])) if 0 < drawn.sum() < rows.size else np.nan

        return lambda counts: np.array([one(sample) for sample in counts.T])

    return make


def _sweep(seen: Bools, scores: Floats, number: Rows) -> tuple[Rows, Rows, Rows, Rows]:
    """Clusters of the rows seen and of the others, scores rising; how many others lie below, and not above, each."""
    # ties by cluster, so that the order of the rows changes nothing
    order = np.lexsort((number, scores))
    mine, others = order[seen[order]], order[~seen[order]]
    below = np.searchsorted(scores[others], scores[mine], side="left")
    return number[mine], number[others], below, np.searchsorted(scores[others], scores[mine], side="right")


class _Totals:
    """Running totals of the counts of some rows, in their order.

    Rows stand in blocks so short that the running total within one fits a byte; the totals of whole blocks are numbers.
    The rows' places within their block come first in memory, so that one addition serves all blocks together.
    """

    def __init__(self, counts: Counts, rows: Rows) -> None:
        peak = max(1, int(counts.max(initial=0)))
        kind: type[np.int32 | np.int64] = np.int32 if 2 * peak * rows.size < 2**31 else np.int64  # twice a total fits
        self._span, samples = 255 // peak, counts.shape[1]
        self._blocks = rows.size // self._span + 1
        # place 0 stands for "no row yet"; what fills the last block is never looked up
        padded = np.zeros(self._blocks * self._span, dtype=np.intp)
        padded[1 : rows.size + 1] = rows
        self._within = np.take(counts, padded.reshape(self._blocks, self._span).T.reshape(-1), axis=0)
        self._within[0] = 0
        place = self._within.reshape(self._span, self._blocks, samples)
        for at in range(1, self._span):
            place[at] += place[at - 1]
        self._before: Totals = np.zeros((self._blocks, samples), dtype=kind)
        np.cumsum(place[-1, :-1], axis=0, dtype=kind, out=self._before[1:])
        self.of_all = self.of_first(np.array([rows.size]))[0]

    def of_first(self, k: Rows) -> Totals:
        """The total of the first k rows, for several k (P,): shape (P, B)."""
        block, place = np.divmod(k, self._span)
        total: Totals = np.take(self._before, block, axis=0)
        total += np.take(self._within, place * self._blocks + block, axis=0)
        return total


def _share(part: Floats, whole: Floats, otherwise: float = np.nan) -> Floats:
    return np.divide(part, whole, out=np.full(part.shape, otherwise), where=whole > 0)


def workers() -> int:
    """Threads that resampling uses: OMP_NUM_THREADS if it is set, else the cores."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdecimal() and int(told) > 0 else os.cpu_count() or 1


#: metric name -> its resampler
RESAMPLERS: dict[str, MakeResampler] = {"auc": auc_resampler, "average_precision": average_precision_resampler}
