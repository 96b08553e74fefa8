"""One threshold: the confusion matrix at it, what follows from that, and how to choose it on validation data.

A row counts as flagged if its score is at or above the threshold. Choosing takes validation arrays only; nothing here
takes the labels that the figures are then reported on. NumPy alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from kvlp.errors import ConfigError, DataError, ShapeError
from kvlp.eval.metrics import Floats, known_rows

__all__ = [
    "POINT_METRICS",
    "Confusion",
    "OperatingPoint",
    "ThresholdTable",
    "choose_threshold",
    "choose_thresholds",
    "confusion",
    "f1",
    "mcc",
    "npv",
    "ppv",
    "sensitivity",
    "specificity",
]

Counts: TypeAlias = float | Floats


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts at a threshold, and what follows from them; a figure that the counts do not define is NaN.

    Attributes:
        tp: present and flagged.
        fp: absent and flagged.
        fn: present and not flagged.
        tn: absent and not flagged.
        threshold: "flagged" is score >= threshold.
    """

    tp: int
    fp: int
    fn: int
    tn: int
    threshold: float

    @property
    def n(self) -> int:
        """Rows that counted."""
        return self.tp + self.fp + self.fn + self.tn

    @property
    def sensitivity(self) -> float:
        """Share of the present that are flagged (recall, true positive rate)."""
        return self._value("sensitivity")

    @property
    def specificity(self) -> float:
        """Share of the absent that are not flagged."""
        return self._value("specificity")

    @property
    def ppv(self) -> float:
        """Share of the flagged that are present (precision); it moves with the prevalence."""
        return self._value("ppv")

    @property
    def npv(self) -> float:
        """Share of the not flagged that are absent; it moves with the prevalence."""
        return self._value("npv")

    @property
    def f1(self) -> float:
        """Harmonic mean of sensitivity and PPV."""
        return self._value("f1")

    @property
    def mcc(self) -> float:
        """Matthews' correlation, -1 to 1; 0 if all or none are flagged."""
        return self._value("mcc")

    @property
    def youden(self) -> float:
        """Youden's J: sensitivity + specificity - 1."""
        return self._value("youden")

    def _value(self, name: str) -> float:
        return float(POINT_METRICS[name](float(self.tp), float(self.fp), float(self.fn), float(self.tn)))


def _share(part: Counts, whole: Counts) -> Floats:
    """part / whole; NaN where the whole is 0."""
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    return np.divide(part, whole, out=np.full(np.broadcast(part, whole).shape, np.nan), where=whole > 0)


def _f1(tp: Counts, fp: Counts, fn: Counts, tn: Counts) -> Floats:
    return np.where(np.add(tp, fn) > 0, _share(np.multiply(2, tp), 2 * tp + fp + fn), np.nan)


def _mcc(tp: Counts, fp: Counts, fn: Counts, tn: Counts) -> Floats:
    both = (np.add(tp, fn) > 0) & (np.add(fp, tn) > 0)
    # Roots first: the product of four counts leaves float64's whole numbers at 100,000 rows.
    spread = np.sqrt(np.add(tp, fp)) * np.sqrt(np.add(tp, fn)) * np.sqrt(np.add(tn, fp)) * np.sqrt(np.add(tn, fn))
    value = np.nan_to_num(_share(np.multiply(tp, tn) - np.multiply(fp, fn), spread))
    return np.where(both, value, np.nan)


def _youden(tp: Counts, fp: Counts, fn: Counts, tn: Counts) -> Floats:
    return _share(tp, np.add(tp, fn)) + _share(tn, np.add(tn, fp)) - 1


#: name -> a function of the counts (tp, fp, fn, tn), numbers or arrays of one shape; NaN where undefined.
POINT_METRICS: dict[str, Callable[[Counts, Counts, Counts, Counts], Floats]] = {
    "sensitivity": lambda tp, fp, fn, tn: _share(tp, np.add(tp, fn)),
    "specificity": lambda tp, fp, fn, tn: _share(tn, np.add(tn, fp)),
    "ppv": lambda tp, fp, fn, tn: _share(tp, np.add(tp, fp)),
    "npv": lambda tp, fp, fn, tn: _share(tn, np.add(tn, fn)),
    "f1": _f1,
    "mcc": _mcc,
    "youden": _youden,
}


def confusion(y_true: ArrayLike, y_score: ArrayLike, threshold: float) -> Confusion:
    """Count what a threshold does; rows with an uncertain or unmentioned label are left out.

    Args:
        y_true: shape (N,); 1, 0, -1 or NaN.
        y_score: shape (N,).
        threshold: flagged is score >= threshold; for predictions of 0 and 1 any number between them.

    Raises:
        ConfigError: the threshold is NaN.
        ShapeError, DataError: see `kvlp.eval.metrics.known_rows`.
    """
    if math.isnan(threshold):
        raise ConfigError("threshold is NaN; expected a number, chosen on validation data")
    positive, scores, _ = known_rows(y_true, y_score)
    flagged = scores >= threshold
    tp, fp = int((positive & flagged).sum()), int((~positive & flagged).sum())
    return Confusion(tp, fp, int(positive.sum()) - tp, int((~positive).sum()) - fp, float(threshold))


def sensitivity(y_true: ArrayLike, y_score: ArrayLike, threshold: float) -> float:
    """Share of the present at or above the threshold; NaN if none is present."""
    return confusion(y_true, y_score, threshold).sensitivity


def specificity(y_true: ArrayLike, y_score: ArrayLike, threshold: float) -> float:
    """Share of the absent below the threshold; NaN if none is absent."""
    return confusion(y_true, y_score, threshold).specificity


def ppv(y_true: ArrayLike, y_score: ArrayLike, threshold: float) -> float:
    """Share present among those at or above the threshold; NaN if there are none."""
    return confusion(y_true, y_score, threshold).ppv


def npv(y_true: ArrayLike, y_score: ArrayLike, threshold: float) -> float:
    """Share absent among those below the threshold; NaN if there are none."""
    return confusion(y_true, y_score, threshold).npv


def f1(y_true: ArrayLike, y_score: ArrayLike, threshold: float) -> float:
    """F1 at the threshold; NaN if none is present."""
    return confusion(y_true, y_score, threshold).f1


def mcc(y_true: ArrayLike, y_score: ArrayLike, threshold: float) -> float:
    """Matthews' correlation at the threshold; NaN if the labels have one class, 0 if the predictions have one."""
    return confusion(y_true, y_score, threshold).mcc


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A threshold with the rule that chose it.

    Attributes:
        threshold: flagged is score >= threshold.
        rule: "youden", "f1", "mcc", "sensitivity 0.95", "specificity 0.9", or "given".
        validation: the counts on the data it was chosen on; not a result.
    """

    threshold: float
    rule: str
    validation: Confusion


def choose_threshold(y_val: ArrayLike, score_val: ArrayLike, rule: str | float = "youden") -> OperatingPoint:
    """Choose a threshold on validation data.

    Args:
        y_val: shape (N,); 1, 0, -1 or NaN, of the validation split.
        score_val: shape (N,).
        rule: "youden", "f1" or "mcc" for the threshold with the highest value; "sensitivity 0.95" for the highest
            threshold that reaches it; "specificity 0.9" for the lowest that reaches it; or a number, taken as given.

    Among thresholds that do equally well the highest counts. Candidates are the scores themselves; where even the
    highest score has too low a specificity, the threshold lies just above it and flags nothing seen here.

    Raises:
        DataError: the labels have one class only.
        ConfigError: an unknown rule, or a target outside (0, 1].
    """
    positive, scores, _ = known_rows(y_val, score_val)
    if isinstance(rule, int | float):
        return OperatingPoint(float(rule), "given", confusion(positive, scores, float(rule)))
    name, target = _rule(rule)
    if not positive.any() or positive.all():
        raise DataError(
            f"a threshold by rule {rule!r} needs present and absent rows in the validation data; it has "
            f"{int(positive.sum())} present and {int((~positive).sum())} absent"
        )
    thresholds = np.r_[np.nextafter(scores.max(), np.inf), np.unique(scores)[::-1]]
    values = _values(name, np.sort(scores[positive]), np.sort(scores[~positive]), thresholds)
    threshold = float(thresholds[_best(name, values, target)])
    return OperatingPoint(threshold, rule, confusion(positive, scores, threshold))


@dataclass(frozen=True, slots=True)
class ThresholdTable:
    """Thresholds of several classes.

    Attributes:
        points: class name -> its operating point.
        undefined: classes whose validation labels do not define one; they have no point.
    """

    points: dict[str, OperatingPoint]
    undefined: tuple[str, ...]


def choose_thresholds(
    y_val: ArrayLike, score_val: ArrayLike, rule: str = "youden", *, names: Sequence[str] | None = None
) -> ThresholdTable:
    """`choose_threshold` for each of C classes: arrays of shape (N, C); classes with one kind of label are named."""
    labels, scores = np.asarray(y_val, dtype=np.float64), np.asarray(score_val, dtype=np.float64)
    if labels.ndim != 2 or labels.shape != scores.shape:
        raise ShapeError(f"y_val and score_val must both have shape (N, C); got {labels.shape} and {scores.shape}")
    classes = [str(c) for c in range(labels.shape[1])] if names is None else list(names)
    if len(classes) != labels.shape[1] or len(set(classes)) != len(classes):
        raise ShapeError(f"names must be {labels.shape[1]} different class names; got {len(classes)}")
    whole = [name for name, column in zip(classes, labels.T, strict=True) if {0.0, 1.0} <= set(column.tolist())]
    at = {name: c for c, name in enumerate(classes)}
    return ThresholdTable(
        {name: choose_threshold(labels[:, at[name]], scores[:, at[name]], rule) for name in whole},
        tuple(name for name in classes if name not in whole),
    )


def _rule(rule: str) -> tuple[str, float]:
    name, _, target = rule.strip().lower().partition(" ")
    if name in ("youden", "f1", "mcc") and not target:
        return name, math.nan
    if name in ("sensitivity", "specificity"):
        try:
            value = float(target)
        except ValueError:
            value = math.nan
        if 0 < value <= 1:
            return name, value
    raise ConfigError(
        f"rule {rule!r} is not known; expected 'youden', 'f1', 'mcc', 'sensitivity 0.95', 'specificity 0.9' "
        "(a target in (0, 1]) or a number"
    )


def _values(name: str, present: Floats, absent: Floats, thresholds: Floats) -> Floats:
    """A metric at each threshold; scores sorted."""
    tp = present.size - np.searchsorted(present, thresholds, side="left").astype(np.float64)
    fp = absent.size - np.searchsorted(absent, thresholds, side="left").astype(np.float64)
    return POINT_METRICS[name](tp, fp, present.size - tp, absent.size - fp)


def _best(name: str, values: Floats, target: float) -> int:
    """Index into thresholds that fall: sensitivity rises along them, specificity falls."""
    if name == "sensitivity":
        return int(np.argmax(values >= target))
    if name == "specificity":
        return int(np.flatnonzero(values >= target)[-1])
    return int(np.argmax(values[1:])) + 1
