"""A paired permutation test: what would differ if the two scores of a patient could as well be swapped. NumPy alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from kvlp.errors import ConfigError
from kvlp.eval.metrics import METRICS, Floats, known_rows
from kvlp.eval.percentiles import few_notes
from kvlp.eval.resampling import Clusters

__all__ = ["Permutation", "permutation_test"]

Metric: TypeAlias = str | Callable[[ArrayLike, ArrayLike], float]


@dataclass(frozen=True, slots=True)
class Permutation:
    """A difference of two scores' metrics held against swaps.

    Attributes:
        value_a: the metric of the first score.
        value_b: of the second.
        difference: a - b.
        p: two-sided: the share of swaps (this one among them) with a difference at least as large; NaN if undefined.
        n: swaps drawn.
        n_groups: groups (patients) that were swapped whole.
        notes: warnings in words.
    """

    value_a: float
    value_b: float
    difference: float
    p: float
    n: int
    n_groups: int
    notes: tuple[str, ...] = ()


def permutation_test(
    metric: Metric,
    y_true: ArrayLike,
    score_a: ArrayLike,
    score_b: ArrayLike,
    groups: ArrayLike | None = None,
    n: int = 1000,
    seed: int = 0,
) -> Permutation:
    """Test whether two scores of the same rows differ in a metric, by swapping them patient by patient.

    Under "auc" and "average_precision" each score is first turned into its ranks, so that two scores on different
    scales may be swapped. Any other metric gets the scores as they are: they must share a scale (two probabilities).

    Args:
        metric: "auc", "average_precision", or a function (y_true, y_score) -> float.
        y_true: shape (N,); 1, 0, -1 or NaN; rows of the last two are left out.
        score_a: shape (N,).
        score_b: shape (N,).
        groups: shape (N,), the patient of each row; all rows of one are swapped together. None takes rows alone.
        n: swaps drawn; p is never below 1 / (n + 1).
        seed: their seed; the order of the rows does not matter if `groups` is given.

    Raises:
        ConfigError: n below 1, or an unknown metric.
        ShapeError, DataError: see `kvlp.eval.metrics.known_rows`.
    """
    if n < 1:
        raise ConfigError(f"n is {n}; expected at least 1 swap (1000 is usual)")
    function, ranked = _metric(metric)
    positive, a, rows = known_rows(y_true, score_a)
    _, b, _ = known_rows(y_true, score_b)
    number = Clusters.of(groups, np.size(y_true)).number[rows]
    value_a, value_b = (function(positive, s) if positive.size else math.nan for s in (a, b))
    pair = np.stack([_ranks(a), _ranks(b)] if ranked else [a, b])
    observed = value_a - value_b
    p = math.nan if math.isnan(observed) else _p_value(function, positive, pair, number, n, seed)
    return Permutation(value_a, value_b, observed, p, n, len(np.unique(number)), few_notes(positive, warn=False))


def _p_value(
    function: Callable[[ArrayLike, ArrayLike], float],
    positive: ArrayLike,
    pair: Floats,
    number: ArrayLike,
    n: int,
    seed: int,
) -> float:
    rng = np.random.default_rng(seed)
    _, own = np.unique(number, return_inverse=True)
    observed = abs(function(positive, pair[0]) - function(positive, pair[1]))
    as_large = 0
    for _ in range(n):
        swapped = rng.integers(0, 2, own.max() + 1, dtype=np.int64)[own.reshape(-1)]
        one, other = np.where(swapped, pair[1], pair[0]), np.where(swapped, pair[0], pair[1])
        # a difference that is equal but for rounding counts as equal
        as_large += abs(function(positive, one) - function(positive, other)) >= observed - 1e-12
    return (as_large + 1) / (n + 1)


def _metric(metric: Metric) -> tuple[Callable[[ArrayLike, ArrayLike], float], bool]:
    for name, function in METRICS.items():
        if metric in (name, function):
            return function, True
    if callable(metric):
        return metric, False
    raise ConfigError(f"metric {metric!r} is not known here; expected {', '.join(METRICS)} or a function")


def _ranks(values: Floats) -> Floats:
    """Middle ranks: ties share one."""
    ordered = np.sort(values)
    return 0.5 * (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right"))
