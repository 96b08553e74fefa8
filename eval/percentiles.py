"""What an interval is, and the percentile interval of resampled values. NumPy alone."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvlp.eval.metrics import Bools, Floats
from kvlp.eval.resampling import Clusters

__all__ = ["FEW", "FewPositivesWarning", "Interval", "Known", "bounds", "few_notes", "p_value", "percentile_interval"]

#: What `kvlp.eval.metrics.known_rows` gives: labels, scores and indices of the rows that count.
Known: TypeAlias = tuple[Bools, Floats, NDArray[np.intp]]

#: Below this many rows of the rarer class an interval comes with a warning.
FEW = 10


class FewPositivesWarning(UserWarning):
    """A class has so few positives (or negatives) that its interval is not to be relied on."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its 95 % interval and how it was made.

    Attributes:
        value: the metric on the data as they are; NaN if undefined.
        low: lower bound; NaN if undefined.
        high: upper bound; NaN if undefined.
        n_resamples: resamples drawn; 0 for an analytic interval.
        method: in words.
        n: rows that counted.
        n_groups: groups (patients) that counted; equals `n` if rows were taken as independent.
        n_positive: positive rows among them.
        n_degenerate: resamples in which the metric (for a macro: that of a class) was undefined; they are left out.
        p: two-sided p-value of "the difference is 0"; NaN if this is no difference.
        notes: warnings in words.
    """

    value: float
    low: float
    high: float
    n_resamples: int
    method: str
    n: int = 0
    n_groups: int = 0
    n_positive: int = 0
    n_degenerate: int = 0
    p: float = math.nan
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "undefined"
        interval = "no interval" if math.isnan(self.low) else f"{self.low:.3f} to {self.high:.3f}"
        return f"{self.value:.3f} ({interval})"


def percentile_interval(
    value: float,
    samples: Floats,
    known: Known,
    clusters: Clusters,
    *,
    name: str = "",
    difference: bool = False,
    positives: bool = True,
) -> Interval:
    """The 95 % interval from a metric's values on resamples.

    Args:
        value: the metric on the data as they are.
        samples: shape (n,); NaN where a resample did not define it.
        known: the rows that counted.
        clusters: what was drawn.
        name: the class, for the warning.
        difference: give a p-value of "the difference is 0".
        positives: warn if there are few positives or negatives.
    """
    positive, _, rows = known
    groups = clusters.count_at(rows)
    # resamples of one group are all alike: their width of 0 would claim certainty
    low, high = bounds(value, samples) if groups > 1 else (math.nan, math.nan)
    alone = ("no interval: a single group to resample",) if groups == 1 else ()
    return Interval(
        value=value,
        low=low,
        high=high,
        n_resamples=samples.size,
        method=clusters.method,
        n=rows.size,
        n_groups=groups,
        n_positive=int(positive.sum()),
        n_degenerate=int(np.isnan(samples).sum()),
        p=p_value(samples) if difference and groups > 1 and not math.isnan(value) else math.nan,
        notes=(*alone, *(few_notes(positive, name) if positives else ())),
    )


def bounds(value: float, samples: Floats) -> tuple[float, float]:
    """The 2.5 and 97.5 % points of the defined samples; NaN if the value itself is undefined."""
    defined = samples[~np.isnan(samples)]
    if math.isnan(value) or not defined.size:
        return math.nan, math.nan
    low, high = np.quantile(defined, [0.025, 0.975])
    return float(low), float(high)


def p_value(differences: Floats) -> float:
    """Twice the smaller share of resampled differences on one side of 0; never below 1 / (n + 1)."""
    defined = differences[~np.isnan(differences)]
    below, above = (defined <= 0).sum(), (defined >= 0).sum()
    return float(min(1.0, 2 * (min(below, above) + 1) / (defined.size + 1)))


def few_notes(positive: Bools, name: str = "", *, warn: bool = True) -> tuple[str, ...]:
    """Say (and warn) that the rarer label has fewer than `FEW` rows, or none."""
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    where = f"class {name!r}: " if name else ""
    if min(n_positive, n_negative) == 0:
        return (f"undefined: {n_positive} positives and {n_negative} negatives",)
    if min(n_positive, n_negative) >= FEW:
        return ()
    note = f"only {n_positive} positives and {n_negative} negatives: the interval is not to be relied on"
    if warn:
        warnings.warn(where + note, FewPositivesWarning, stacklevel=5)
    return (note,)
