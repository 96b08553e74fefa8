"""DeLong's analytic variance of AUCs, and the test of two correlated ones. NumPy alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from kvlp.eval.metrics import Bools, Floats, auc, known_rows

__all__ = ["Z95", "DeLong", "delong_covariance", "delong_test"]

#: 97.5 % point of the standard normal distribution.
Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class DeLong:
    """Two correlated AUCs compared: z and two-sided p, variances, and the difference a - b with its 95 % interval."""

    auc_a: float
    auc_b: float
    z: float
    p: float
    var_a: float
    var_b: float
    cov: float
    difference: float
    low: float
    high: float


def delong_test(y_true: ArrayLike, score_a: ArrayLike, score_b: ArrayLike) -> DeLong:
    """Compare two AUCs on the same rows, taken as independent (one image a patient).

    The same curve twice gives z = 0 and p = 1; fewer than two rows of a class give NaN.

    Args:
        y_true: shape (N,); 1, 0, -1 or NaN; rows of the last two are left out.
        score_a: shape (N,).
        score_b: shape (N,).

    Reference: DeLong, DeLong and Clarke-Pearson 1988, by mid-ranks as in Sun and Xu 2014.
    """
    positive, a, _ = known_rows(y_true, score_a)
    _, b, _ = known_rows(y_true, score_b)
    aucs, cov = delong_covariance(positive, np.stack([a, b]))
    difference = float(aucs[0] - aucs[1])
    variance = float(cov[0, 0] + cov[1, 1] - 2 * cov[0, 1])
    # Rounding leaves about 1e-17 where the two curves are one.
    spread = 0.0 if variance < 1e-15 else math.sqrt(variance)
    z = difference / spread if spread else _without_spread(difference)
    return DeLong(
        auc_a=float(aucs[0]),
        auc_b=float(aucs[1]),
        z=z,
        p=math.erfc(abs(z) / math.sqrt(2)),
        var_a=float(cov[0, 0]),
        var_b=float(cov[1, 1]),
        cov=float(cov[0, 1]),
        difference=difference,
        low=difference - Z95 * spread,
        high=difference + Z95 * spread,
    )


def delong_covariance(positive: Bools, scores: Floats) -> tuple[Floats, Floats]:
    """AUCs of several scores on the same rows, and their covariance.

    Args:
        positive: shape (N,).
        scores: shape (K, N).

    Returns:
        Shapes (K,) and (K, K); the covariance is NaN with fewer than two rows of a class.
    """
    m, k = int(positive.sum()), int((~positive).sum())
    if m < 2 or k < 2:
        return np.array([auc(positive, row) for row in scores]), np.full((len(scores), len(scores)), np.nan)
    # Share of negatives that each positive beats, and of positives that beat each negative; ties count one half.
    beats = np.stack([(_midranks(s)[positive] - _midranks(s[positive])) / k for s in scores])
    beaten = np.stack([1 - (_midranks(s)[~positive] - _midranks(s[~positive])) / m for s in scores])
    return beats.mean(axis=1), np.atleast_2d(np.cov(beats)) / m + np.atleast_2d(np.cov(beaten)) / k


def _midranks(values: Floats) -> Floats:
    """Ranks from 1; ties share the mean of theirs."""
    ordered = np.sort(values)
    return 0.5 * (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right") + 1.0)


def _without_spread(difference: float) -> float:
    if math.isnan(difference):
        return math.nan
    return 0.0 if abs(difference) < 1e-12 else math.copysign(math.inf, difference)
