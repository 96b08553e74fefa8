"""Answering only where one is sure: risk against coverage. NumPy alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from kvlp.errors import ShapeError
from kvlp.eval.metrics import Floats, known_rows

__all__ = ["RiskCoverage", "risk_coverage"]


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """Share of wrong answers among those given, for each confidence from which answers are given.

    Attributes:
        confidence: shape (K,), falling: answers of at least this confidence are given.
        coverage: shape (K,), share of the rows that are answered, rising to 1.
        risk: shape (K,), share of the answers that are wrong.
        area: mean of the risk over all coverages (AURC); lower is better; NaN without rows.
        area_random: what a confidence that knows nothing has: the risk when all are answered.
        area_ideal: what a confidence that puts every error last has.
        n: rows that counted.
    """

    confidence: Floats
    coverage: Floats
    risk: Floats
    area: float
    area_random: float
    area_ideal: float
    n: int

    def confidence_for(self, risk: float) -> float:
        """The lowest confidence of the largest coverage whose risk is at most `risk`; NaN if there is none."""
        good = np.flatnonzero(self.risk <= risk)
        return float(self.confidence[good[-1]]) if good.size else math.nan


def risk_coverage(y_true: ArrayLike, y_said: ArrayLike, confidence: ArrayLike) -> RiskCoverage:
    """Risk at every coverage, most confident answers first; rows of equal confidence are answered together.

    Args:
        y_true: shape (N,); 1, 0, -1 or NaN; rows of the last two are left out.
        y_said: shape (N,), the answers, 1 or 0.
        confidence: shape (N,), higher means surer.

    The area takes rows of equal confidence in every order alike, so that the order of the rows does not matter.

    Reference: Geifman, Uziel and El-Yaniv 2019.
    """
    positive, sure, rows = known_rows(y_true, confidence)
    said = np.asarray(y_said)
    if said.shape != (np.size(y_true),):
        raise ShapeError(f"y_said must have shape ({np.size(y_true)},), got {said.shape}")
    wrong = (said[rows] == 1) != positive
    n = int(wrong.size)
    if not n:
        nothing = np.zeros(0)
        return RiskCoverage(nothing, nothing, nothing, math.nan, math.nan, math.nan, 0)
    levels, block, size = np.unique(-sure, return_inverse=True, return_counts=True)
    answered = np.cumsum(size)
    errors = np.cumsum(np.bincount(block, weights=wrong, minlength=len(levels)))
    k = np.arange(1, n + 1)
    expected = np.interp(k, np.r_[0, answered], np.r_[0.0, errors])
    ideal = np.maximum(k - (n - errors[-1]), 0)
    return RiskCoverage(
        confidence=-levels,
        coverage=answered / n,
        risk=errors / answered,
        area=float((expected / k).mean()),
        area_random=float(errors[-1] / n),
        area_ideal=float((ideal / k).mean()),
        n=n,
    )
