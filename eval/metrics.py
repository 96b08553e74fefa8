"""Classification metrics on arrays, in the order (y_true, y_score). NumPy alone.

Labels are 1 (present), 0 (absent), -1 (uncertain) and NaN (not mentioned). Uncertain and unmentioned rows are left out;
they are never counted as absent. A metric that the labels do not define (one class only) is NaN, and `macro` names such
a class instead of averaging it in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvlp.errors import DataError, ShapeError

__all__ = ["METRICS", "Macro", "auc", "average_precision", "known_rows", "macro", "precision_recall_curve", "roc_curve"]

Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]


def known_rows(y_true: ArrayLike, y_score: ArrayLike) -> tuple[Bools, Floats, NDArray[np.intp]]:
    """Check labels and scores, and keep the rows whose label is known.

    Args:
        y_true: shape (N,); 1, 0, -1 (uncertain) or NaN (not mentioned).
        y_score: shape (N,); any finite or infinite number, higher means more likely present.

    Returns:
        Labels as bool (K,), scores as float64 (K,), and the indices (K,) of the rows kept, in their order.

    Raises:
        ShapeError: shapes differ or are not one-dimensional.
        DataError: another label value, or a NaN score where the label is known.
    """
    labels = _floats(y_true, "y_true")
    scores = _floats(y_score, "y_score")
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise ShapeError(
            f"y_true and y_score must both have shape (N,), got {labels.shape} and {scores.shape}; "
            "for several classes use kvlp.eval.auc_table"
        )
    known = (labels == 0) | (labels == 1)
    strange = ~known & (labels != -1) & ~np.isnan(labels)
    if strange.any():
        row = int(np.flatnonzero(strange)[0])
        raise DataError(f"y_true[{row}] is {labels[row]:g}; expected 1, 0, -1 (uncertain) or NaN (not mentioned)")
    rows = np.flatnonzero(known)
    if np.isnan(scores[rows]).any():
        row = int(rows[np.flatnonzero(np.isnan(scores[rows]))[0]])
        raise DataError(f"y_score[{row}] is NaN where the label is known; leave unscored rows out and say how many")
    return labels[rows] == 1, scores[rows], rows


def auc(y_true: ArrayLike, y_score: ArrayLike) -> float:
    """Area under the ROC curve: the chance that a positive scores above a negative, a tie counting one half.

    Args:
        y_true: shape (N,), see `known_rows`.
        y_score: shape (N,).

    Returns:
        A number in [0, 1], or NaN if one of the two classes is missing.

    Reference: Hanley and McNeil 1982 (equals the Mann-Whitney U over the number of pairs).
    """
    positive, scores, _ = known_rows(y_true, y_score)
    above, below = scores[positive], np.sort(scores[~positive])
    if not above.size or not below.size:
        return math.nan
    wins = np.searchsorted(below, above, side="left")
    wins_or_ties = np.searchsorted(below, above, side="right")
    return float((wins.sum(dtype=np.int64) + wins_or_ties.sum(dtype=np.int64)) / (2 * above.size * below.size))


def roc_curve(y_true: ArrayLike, y_score: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Points of the ROC curve, one per distinct score, from (0, 0) to (1, 1).

    Returns:
        False positive rate, true positive rate and threshold ("positive if score >= threshold"), each of shape (K + 1,)
        for K distinct scores, thresholds falling from +inf. Rates of a missing class are NaN.
    """
    true_positives, false_positives, thresholds = _counts(*known_rows(y_true, y_score)[:2])
    return (
        _rate(np.r_[0.0, false_positives]),
        _rate(np.r_[0.0, true_positives]),
        np.r_[np.inf, thresholds],
    )


def precision_recall_curve(y_true: ArrayLike, y_score: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Precision and recall at each distinct score, thresholds falling; recall rises to 1.

    Returns:
        Precision, recall and threshold, each of shape (K,) for K distinct scores.
    """
    true_positives, false_positives, thresholds = _counts(*known_rows(y_true, y_score)[:2])
    return true_positives / (true_positives + false_positives), _rate(true_positives), thresholds


def average_precision(y_true: ArrayLike, y_score: ArrayLike) -> float:
    """Average precision: the sum of precision times the step in recall, tied scores taken as one step.

    Returns:
        A number in (0, 1]; the prevalence for constant scores; NaN if one of the two classes is missing.
    """
    positive, scores, _ = known_rows(y_true, y_score)
    if not positive.any() or positive.all():
        return math.nan
    true_positives, false_positives, _ = _counts(positive, scores)
    precision = true_positives / (true_positives + false_positives)
    return float(np.sum(np.diff(true_positives, prepend=0.0) * precision) / true_positives[-1])


#: The metrics that may be asked for by name.
METRICS: dict[str, Callable[[ArrayLike, ArrayLike], float]] = {"auc": auc, "average_precision": average_precision}


@dataclass(frozen=True, slots=True)
class Macro:
    """A mean over classes that names what it could not include.

    Attributes:
        value: mean over the defined classes; NaN if there is none.
        per_class: every class's own value; NaN where undefined.
        undefined: names of the classes left out, because their labels do not define the metric.
    """

    value: float
    per_class: Mapping[str, float]
    undefined: tuple[str, ...]


def macro(values: Mapping[str, float] | Sequence[float]) -> Macro:
    """Average a metric over classes; undefined (NaN) classes are named and never averaged as 0.

    Args:
        values: class name -> value, or a sequence (then classes are named "0", "1", ...).
    """
    named = dict(values) if isinstance(values, Mapping) else {str(i): v for i, v in enumerate(values)}
    defined = [v for v in named.values() if not math.isnan(v)]
    mean = math.fsum(defined) / len(defined) if defined else math.nan
    return Macro(mean, named, tuple(name for name, v in named.items() if math.isnan(v)))


def _floats(values: ArrayLike, name: str) -> Floats:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} must hold numbers (1, 0, -1 or NaN for labels): {error}") from None


def _counts(positive: Bools, scores: Floats) -> tuple[Floats, Floats, Floats]:
    """True and false positives at or above each distinct score, scores falling."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.flatnonzero(np.r_[ranked[1:] != ranked[:-1], True][: ranked.size])
    true_positives = np.cumsum(positive[order], dtype=np.float64)[last]
    return true_positives, last + 1.0 - true_positives, ranked[last]


def _rate(counts: Floats) -> Floats:
    if not counts.size or counts[-1] == 0:
        return np.full(counts.shape, np.nan)
    return counts / counts[-1]
