"""Resampling by weights: how often each row stands in each bootstrap sample, and AUC and AP under such weights.

A bootstrap sample is a column of counts. Sorting once and summing counts gives a metric of all samples together, which
is what makes a thousand resamples cheap. NumPy alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvlp.errors import ConfigError, ShapeError
from kvlp.eval.metrics import Bools, Floats

__all__ = ["WEIGHTED", "Clusters", "Weights", "weighted_auc", "weighted_average_precision"]

Weights: TypeAlias = NDArray[np.float32]

#: Columns made at a time: bounds memory to rows x 256 x 4 bytes, and does not change any result.
_CHUNK = 256


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

    def count_at(self, rows: NDArray[np.intp]) -> int:
        """How many clusters some of the rows belong to."""
        return len(np.unique(self.number[rows]))

    def weights(self, n: int, seed: int) -> Iterator[Weights]:
        """Draw `n` samples of whole clusters with replacement.

        Yields:
            Arrays of shape (N, B) with the count of each row in each sample; all B together make `n`.
        """
        rng = np.random.default_rng(seed)
        for start in range(0, n, _CHUNK):
            draws = rng.integers(0, self.count, size=(min(_CHUNK, n - start), self.count), dtype=np.int64)
            counts = np.empty((self.count, len(draws)), dtype=np.float32)
            for column, draw in enumerate(draws):
                counts[:, column] = np.bincount(draw, minlength=self.count)
            yield counts[self.number] if self.grouped else counts


def weighted_auc(positive: Bools, scores: Floats, weights: Weights) -> Floats:
    """AUC under each column of row weights; NaN where a column has no weight on one class.

    Args:
        positive: shape (N,).
        scores: shape (N,).
        weights: shape (N, B), counts.

    Returns:
        Shape (B,).
    """
    wins = np.zeros(weights.shape[1])
    for at, below, tied, _ in _sweep(positive, scores, weights):
        wins += at * (below + 0.5 * tied)
    pairs = _total(weights, positive) * _total(weights, ~positive)
    return np.divide(wins, pairs, out=np.full(wins.shape, np.nan), where=pairs > 0)


def weighted_average_precision(positive: Bools, scores: Floats, weights: Weights) -> Floats:
    """Average precision under each column of row weights; NaN where a column has no weight on one class.

    Shapes as in `weighted_auc`.
    """
    n_positive, n_negative = _total(weights, positive), _total(weights, ~positive)
    total = np.zeros(weights.shape[1])
    for at, below, _, passed in _sweep(positive, scores, weights):
        true_positives = n_positive - passed
        flagged = true_positives + n_negative - below
        total += np.divide(at * true_positives, flagged, out=np.zeros_like(total), where=at > 0)
    defined = (n_positive > 0) & (n_negative > 0)
    return np.divide(total, n_positive, out=np.full(total.shape, np.nan), where=defined)


def _sweep(positive: Bools, scores: Floats, weights: Weights) -> Iterator[tuple[Floats, Floats, Floats, Floats]]:
    """Walk up the positives' distinct scores: weight at it, negatives below, negatives tied, positives below."""
    up, down = _rising(positive, scores), _rising(~positive, scores)
    negatives = weights[down]
    values, starts = np.unique(scores[up], return_index=True)
    first: list[int] = [*starts.tolist(), up.size]
    left = np.atleast_1d(np.searchsorted(scores[down], values, side="left"))
    right = np.atleast_1d(np.searchsorted(scores[down], values, side="right"))
    below, passed, nothing = (np.zeros(weights.shape[1]) for _ in range(3))
    done = 0
    for j in range(values.size):
        below = below + _sum(negatives[done : left[j]])
        tied = _sum(negatives[left[j] : right[j]]) if right[j] > left[j] else nothing
        at = _sum(weights[up[first[j] : first[j + 1]]])
        yield at, below, tied, passed
        passed = passed + at
        below = below + tied
        done = right[j]


def _rising(keep: Bools, scores: Floats) -> NDArray[np.intp]:
    rows = np.flatnonzero(keep)
    return rows[np.argsort(scores[rows], kind="stable")]


def _sum(weights: Weights) -> Floats:
    # Counts are whole numbers: float32 adds them exactly up to 2 ** 24, far beyond the rows of any slice here.
    return weights.sum(axis=0).astype(np.float64)


def _total(weights: Weights, keep: Bools) -> Floats:
    return weights[keep].sum(axis=0, dtype=np.float64)


#: metric name -> its form over weights
WEIGHTED: dict[str, Callable[[Bools, Floats, Weights], Floats]] = {
    "auc": weighted_auc,
    "average_precision": weighted_average_precision,
}
