"""Intervals of the Brier score and of the calibration error, over resampled patients. NumPy alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from kvlp.eval.calibration import brier, ece
from kvlp.eval.metrics import known_rows
from kvlp.eval.percentiles import Interval, few_notes, percentile_interval
from kvlp.eval.resampling import Clusters

__all__ = ["calibration_intervals"]

_UPWARDS = "resampled calibration errors lean upwards"


def calibration_intervals(
    y_true: ArrayLike,
    y_prob: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    bins: int = 15,
    n: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """ "brier" and "ece" (bins of equal width) with 95 % intervals, both from the same resamples.

    Args:
        y_true: shape (N,); 1, 0, -1 or NaN; rows of the last two are left out.
        y_prob: shape (N,), probabilities in [0, 1].
        groups: shape (N,), the patient of each row; None takes rows as independent.
        bins: of the calibration error.
        n: resamples.
        seed: of the resamples.

    Raises:
        DataError: a forecast outside [0, 1] where the label is known.
    """
    values = {"brier": brier(y_true, y_prob), "ece": ece(y_true, y_prob, bins)}
    known = known_rows(y_true, y_prob)
    positive, prob, rows = known
    clusters = Clusters.of(groups, np.size(y_true))
    place = np.minimum((prob * bins).astype(np.intp), bins - 1)[:, None] == np.arange(bins)
    off = place * (prob - positive)[:, None]
    squared, count = ((prob - positive) ** 2)[:, None], np.ones((prob.size, 1))
    sums = clusters.sums(np.concatenate([off, squared, count], axis=1).astype(np.float64), rows)
    drawn = clusters.sample_sums(sums, n, seed)
    whole = np.where(drawn[-1] > 0, drawn[-1], np.nan)
    samples = {"brier": drawn[-2] / whole, "ece": np.abs(drawn[:-2]).sum(axis=0) / whole}
    few = few_notes(positive, warn=False) if positive.size else ()
    out = {}
    for name, value in values.items():
        made = percentile_interval(value, samples[name], known, clusters, positives=False)
        out[name] = replace(made, notes=(*made.notes, *few, *((_UPWARDS,) if name == "ece" else ())))
    return out
