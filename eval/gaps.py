"""The gap between the best and the worst of several groups, with an interval that allows for picking. NumPy alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from kvlp.errors import ShapeError
from kvlp.eval.metrics import Floats
from kvlp.eval.percentiles import Interval

__all__ = ["Gap", "gap"]

_METHOD = "paired bootstrap, simultaneous over all pairs of groups"


@dataclass(frozen=True, slots=True)
class Gap:
    """The largest minus the smallest figure.

    Attributes:
        interval: with its p-value; NaN if fewer than two groups are defined.
        largest: index of the group with the largest figure; -1 if there is no gap.
        smallest: index of the one with the smallest.
    """

    interval: Interval
    largest: int = -1
    smallest: int = -1


def gap(values: ArrayLike, samples: ArrayLike) -> Gap:
    """The largest minus the smallest of G figures, allowing for having picked the two after seeing all.

    The interval is the difference plus and minus its bootstrap error times the 95 % point of the largest standardised
    difference between any two groups; of two groups it is an ordinary one. The p-value is the share of resamples in
    which that largest difference is as large by chance, never below 1 / (n + 1).

    Args:
        values: shape (G,); NaN where undefined.
        samples: shape (G, n), the same figures on the same resamples.

    Reference: single-step max-T, Westfall and Young 1993.
    """
    figures, drawn = np.asarray(values, dtype=np.float64), np.asarray(samples, dtype=np.float64)
    if figures.ndim != 1 or drawn.ndim != 2 or len(drawn) != len(figures):
        raise ShapeError(f"values must be (G,) and samples (G, n); got {figures.shape} and {drawn.shape}")
    known = np.flatnonzero(~np.isnan(figures))
    if known.size < 2:
        note = ("undefined: fewer than two groups define it",)
        return Gap(Interval(math.nan, math.nan, math.nan, 0, _METHOD, notes=note))
    largest, smallest = int(known[np.argmax(figures[known])]), int(known[np.argmin(figures[known])])
    centred = drawn - figures[:, None]
    chance = np.zeros(drawn.shape[1])
    for a, b in combinations(known, 2):
        moved = centred[a] - centred[b]
        if (error := _error(moved)) > 0:
            chance = np.fmax(chance, np.abs(moved) / error)
    value, error = float(figures[largest] - figures[smallest]), _error(centred[largest] - centred[smallest])
    if not error > 0:
        note = ("no interval: no resample moves it",)
        return Gap(Interval(value, math.nan, math.nan, 0, _METHOD, notes=note), largest, smallest)
    half = float(np.quantile(chance, 0.95)) * error
    p = float((1 + (chance >= value / error).sum()) / (1 + chance.size))
    return Gap(Interval(value, value - half, value + half, chance.size, _METHOD, p=p), largest, smallest)


def _error(moved: Floats) -> float:
    defined = moved[~np.isnan(moved)]
    return float(defined.std()) if defined.size > 1 else math.nan
