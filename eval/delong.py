"""DeLong's analytic variance of AUCs, and tests of two of them: on the same rows, or on different ones. NumPy alone.

With several images a patient, give `groups`: the variance is then that of whole patients (Obuchowski's).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvlp.eval.metrics import Bools, Floats, auc, known_rows
from kvlp.eval.percentiles import few_notes
from kvlp.eval.resampling import Clusters

__all__ = ["Z95", "DeLong", "compare_aucs", "delong_covariance", "delong_test", "delong_unpaired_test"]

#: 97.5 % point of the standard normal distribution.
Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class DeLong:
    """Two AUCs compared.

    Attributes:
        auc_a: the first AUC.
        auc_b: the second.
        z: their difference over its standard error; for different rows Student's t with `df` degrees of freedom.
        p: two-sided.
        var_a: variance of the first AUC.
        var_b: variance of the second.
        cov: their covariance; 0 for different rows.
        difference: a - b.
        low: lower end of the difference's 95 % interval.
        high: upper end.
        df: degrees of freedom; infinite for the normal distribution.
        notes: warnings in words (fewer than ten rows of a class).
    """

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
    df: float = math.inf
    notes: tuple[str, ...] = ()


def delong_test(y_true: ArrayLike, score_a: ArrayLike, score_b: ArrayLike, groups: ArrayLike | None = None) -> DeLong:
    """Compare two AUCs on the same rows.

    The same curve twice gives z = 0 and p = 1; fewer than two rows (or groups) of a class give NaN.

    Args:
        y_true: shape (N,); 1, 0, -1 or NaN; rows of the last two are left out.
        score_a: shape (N,).
        score_b: shape (N,).
        groups: shape (N,), the patient of each row; None takes rows as independent (one image a patient).

    Reference: DeLong, DeLong and Clarke-Pearson 1988, by mid-ranks as in Sun and Xu 2014; Obuchowski 1997 for groups.
    """
    positive, a, rows = known_rows(y_true, score_a)
    _, b, _ = known_rows(y_true, score_b)
    number = Clusters.of(groups, np.size(y_true)).number[rows]
    (auc_a, auc_b), cov = delong_covariance(positive, np.stack([a, b]), number)
    return compare_aucs(auc_a, auc_b, cov[0, 0], cov[1, 1], cov[0, 1], notes=few_notes(positive, warn=False))


def delong_unpaired_test(y_a: ArrayLike, score_a: ArrayLike, y_b: ArrayLike, score_b: ArrayLike) -> DeLong:
    """Compare the AUCs of two sets of different rows (two hospitals, men and women), rows taken as independent.

    The difference over its standard error is held against Student's t with Welch's degrees of freedom, as pROC does.

    Args:
        y_a: shape (N,); 1, 0, -1 or NaN; rows of the last two are left out.
        score_a: shape (N,).
        y_b: shape (M,), likewise.
        score_b: shape (M,).
    """
    sets = [known_rows(y_a, score_a), known_rows(y_b, score_b)]
    aucs, variances = zip(*(_alone(positive, scores) for positive, scores, _ in sets), strict=True)
    rows = [positive.size for positive, _, _ in sets]
    notes = [
        f"{which} set: {note}"
        for which, (positive, _, _) in zip(("first", "second"), sets, strict=True)
        for note in few_notes(positive, warn=False)
    ]
    return compare_aucs(*aucs, *variances, df=_welch(variances, rows), notes=tuple(notes))


def compare_aucs(
    auc_a: float,
    auc_b: float,
    var_a: float,
    var_b: float,
    cov: float = 0.0,
    *,
    df: float = math.inf,
    notes: tuple[str, ...] = (),
) -> DeLong:
    """The test of two AUCs from their variances and covariance; `df` as in `DeLong`."""
    difference = float(auc_a - auc_b)
    variance = float(var_a + var_b - 2 * cov)
    # Rounding leaves about 1e-17 where the two curves are one.
    spread = 0.0 if variance < 1e-15 else math.sqrt(variance)
    z = difference / spread if spread else _without_spread(difference)
    half = _t_quantile(df) * spread
    return DeLong(
        auc_a=float(auc_a),
        auc_b=float(auc_b),
        z=z,
        p=_two_sided(z, df),
        var_a=float(var_a),
        var_b=float(var_b),
        cov=float(cov),
        difference=difference,
        low=difference - half,
        high=difference + half,
        df=df,
        notes=notes,
    )


def delong_covariance(positive: Bools, scores: Floats, number: NDArray[np.intp] | None = None) -> tuple[Floats, Floats]:
    """AUCs of several scores on the same rows, and their covariance.

    Args:
        positive: shape (N,).
        scores: shape (K, N).
        number: shape (N,), the group of each row; None takes rows as independent.

    Returns:
        Shapes (K,) and (K, K); the covariance is NaN with fewer than two groups of a class.
    """
    number = np.arange(positive.size) if number is None else np.unique(number, return_inverse=True)[1].reshape(-1)
    aucs = np.array([auc(positive, row) for row in scores])
    up, down = number[positive], number[~positive]
    if min(len(np.unique(up)), len(np.unique(down))) < 2:
        return aucs, np.full((len(scores), len(scores)), np.nan)
    # Share of negatives that each positive beats, and of positives that beat each negative; ties count one half.
    beats = np.stack([(_midranks(s)[positive] - _midranks(s[positive])) / down.size for s in scores])
    beaten = np.stack([1 - (_midranks(s)[~positive] - _midranks(s[~positive])) / up.size for s in scores])
    of_up = _by_group(beats - aucs[:, None], up, number) / up.size
    of_down = _by_group(beaten - aucs[:, None], down, number) / down.size
    # what a group's positives and its negatives share; 0 where every group is one row
    both = _few(number) * (of_up @ of_down.T)
    return aucs, _few(up) * (of_up @ of_up.T) + _few(down) * (of_down @ of_down.T) + both + both.T


def _by_group(values: Floats, own: NDArray[np.intp], number: NDArray[np.intp]) -> Floats:
    """Sums of values (K, R) over the rows of each group: (K, groups)."""
    return np.stack([np.bincount(own, weights=row, minlength=number.max() + 1) for row in values])


def _few(number: NDArray[np.intp]) -> float:
    """Groups over groups - 1: what a variance around an estimated mean lacks."""
    groups = len(np.unique(number))
    return groups / (groups - 1)


def _alone(positive: Bools, scores: Floats) -> tuple[float, float]:
    aucs, cov = delong_covariance(positive, scores[None])
    return float(aucs[0]), float(cov[0, 0])


def _midranks(values: Floats) -> Floats:
    """Ranks from 1; ties share the mean of theirs."""
    ordered = np.sort(values)
    return 0.5 * (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right") + 1.0)


def _without_spread(difference: float) -> float:
    if math.isnan(difference):
        return math.nan
    return 0.0 if abs(difference) < 1e-12 else math.copysign(math.inf, difference)


def _welch(variances: tuple[float, ...], rows: list[int]) -> float:
    """Welch's degrees of freedom of a difference of two means."""
    below = sum(v * v / max(n - 1, 1) for v, n in zip(variances, rows, strict=True))
    return sum(variances) ** 2 / below if below > 0 else math.inf if below == 0 else math.nan


def _two_sided(z: float, df: float) -> float:
    """The chance of |z| or more: normal, or Student's t."""
    if math.isnan(z) or math.isnan(df):
        return math.nan
    if df > 1e6 or math.isinf(z):
        return math.erfc(abs(z) / math.sqrt(2))
    return _incomplete_beta(df / 2, 0.5, df / (df + z * z))


def _t_quantile(df: float) -> float:
    """97.5 % point of Student's t, by halving."""
    if not df <= 1e6:
        return Z95 if df > 1e6 else math.nan
    low, high = Z95, 13.0  # 12.7 at one degree of freedom
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _two_sided(middle, df) > 0.05 else (low, middle)
    return (low + high) / 2


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function, by its continued fraction from the end."""
    if not 0 < x < 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(b, a, 1 - x)
    tail = 1.0
    for m in range(1000, 0, -1):
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        tail = 1 + even / (1 + odd / tail)
    first = -(a + b) * x / (a + 1)
    log_front = a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return math.exp(log_front) / a / (1 + first / tail)
