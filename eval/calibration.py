"""Whether probabilities mean what they say: Brier score and its parts, calibration error, slope and intercept.

Arrays in the order (y_true, y_prob). These only measure; fit on validation data, and measure on others. NumPy alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvlp.errors import ConfigError, DataError
from kvlp.eval.metrics import Bools, Floats, known_rows

__all__ = [
    "Binning",
    "BrierParts",
    "CalibrationLine",
    "Reliability",
    "brier",
    "brier_parts",
    "calibration_line",
    "ece",
    "reliability",
]

#: Bins of equal width over [0, 1], of equal numbers of rows, or one for each distinct forecast.
Binning: TypeAlias = Literal["width", "mass", "distinct"]

#: Forecasts of exactly 0 or 1 have no logit; they are moved in by this much.
_EDGE = 1e-9
_Z95 = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Reliability:
    """Forecasts in bins: what was said, and what came. Empty bins are left out.

    Attributes:
        binning: "width", "mass" or "distinct".
        bins: how many were asked for (0 for "distinct").
        count: shape (B,), rows in each bin.
        forecast: shape (B,), their mean probability.
        observed: shape (B,), the share of them that is present.
    """

    binning: Binning
    bins: int
    count: NDArray[np.intp]
    forecast: Floats
    observed: Floats

    @property
    def ece(self) -> float:
        """Expected calibration error: mean over rows of |forecast - observed| of their bin; NaN for no row."""
        if not self.count.size:
            return math.nan
        return float(np.average(np.abs(self.forecast - self.observed), weights=self.count))

    @property
    def worst(self) -> float:
        """The largest |forecast - observed| of a bin; NaN for no row."""
        return float(np.abs(self.forecast - self.observed).max()) if self.count.size else math.nan

    def __str__(self) -> str:
        how = {"width": f"{self.bins} bins of equal width", "mass": f"{self.bins} bins of equal mass"}
        return f"ECE {self.ece:.4f} ({how.get(self.binning, 'one bin for each distinct forecast')})"


def reliability(y_true: ArrayLike, y_prob: ArrayLike, bins: int = 15, binning: Binning = "width") -> Reliability:
    """Put forecasts into bins.

    Args:
        y_true: shape (N,); 1, 0, -1 or NaN; rows of the last two are left out.
        y_prob: shape (N,), probabilities in [0, 1].
        bins: how many.
        binning: "width": [0, 1/bins), ..., the last one closed; "mass": equally many rows, equal forecasts together;
            "distinct": one bin for each forecast, whatever `bins` says.

    Raises:
        DataError: a forecast outside [0, 1] where the label is known.
        ConfigError: bins below 1, or an unknown binning.
    """
    positive, prob = _forecasts(y_true, y_prob)
    where = _bins(prob, bins, binning)
    kept, where = np.unique(where, return_inverse=True)
    count = np.bincount(where, minlength=kept.size)
    return Reliability(
        binning=binning,
        bins=0 if binning == "distinct" else bins,
        count=count,
        forecast=np.bincount(where, weights=prob, minlength=kept.size) / count,
        observed=np.bincount(where, weights=positive, minlength=kept.size) / count,
    )


def ece(y_true: ArrayLike, y_prob: ArrayLike, bins: int = 15, binning: Binning = "width") -> float:
    """Expected calibration error in [0, 1]; state `bins` and `binning` with it. NaN for no row. See `reliability`."""
    return reliability(y_true, y_prob, bins, binning).ece


def brier(y_true: ArrayLike, y_prob: ArrayLike) -> float:
    """Brier score: the mean of (probability - outcome) squared, in [0, 1]; NaN for no row."""
    positive, prob = _forecasts(y_true, y_prob)
    return float(np.mean((prob - positive) ** 2)) if prob.size else math.nan


@dataclass(frozen=True, slots=True)
class BrierParts:
    """The Brier score in parts: brier = reliability - resolution + uncertainty + within.

    Attributes:
        brier: the score of the forecasts as they are.
        reliability: how far bins' forecasts lie from what was observed, squared; 0 is best.
        resolution: how far what was observed in the bins lies from the prevalence, squared; higher is better.
        uncertainty: prevalence x (1 - prevalence); nobody's merit.
        within: what the bins hide, 0 if each holds one forecast.
        bins: the bins.
    """

    brier: float
    reliability: float
    resolution: float
    uncertainty: float
    within: float
    bins: Reliability


def brier_parts(y_true: ArrayLike, y_prob: ArrayLike, bins: int = 10, binning: Binning = "width") -> BrierParts:
    """Murphy's decomposition of the Brier score. Arguments as `reliability`.

    For forecasts replaced by their bin's mean, and for any forecasts under binning="distinct", `within` is 0 and the
    three parts give the score.

    Reference: Murphy 1973.
    """
    table = reliability(y_true, y_prob, bins, binning)
    score = brier(y_true, y_prob)
    if not table.count.size:
        return BrierParts(math.nan, math.nan, math.nan, math.nan, math.nan, table)
    share = table.count / table.count.sum()
    prevalence = float(share @ table.observed)
    off = float(share @ (table.forecast - table.observed) ** 2)
    resolution = float(share @ (table.observed - prevalence) ** 2)
    uncertainty = prevalence * (1 - prevalence)
    return BrierParts(score, off, resolution, uncertainty, score - (off - resolution + uncertainty), table)


@dataclass(frozen=True, slots=True)
class CalibrationLine:
    """Logistic recalibration: logit of the true chance = intercept + slope x logit of the forecast.

    Attributes:
        slope: 1 is right; below 1, forecasts are too extreme.
        slope_low: lower end of its 95 % interval (Wald, rows taken as independent).
        slope_high: upper end.
        intercept: of the same line; 0 is right.
        intercept_low: lower end of its 95 % interval.
        intercept_high: upper end.
        in_the_large: the intercept with the slope held at 1; above 0, forecasts are too low on the whole.
        n: rows.
        n_positive: present rows.
        notes: why something is not defined, and how many forecasts of 0 or 1 were moved in.
    """

    slope: float
    slope_low: float
    slope_high: float
    intercept: float
    intercept_low: float
    intercept_high: float
    in_the_large: float
    n: int
    n_positive: int
    notes: tuple[str, ...] = ()


def calibration_line(y_true: ArrayLike, y_prob: ArrayLike) -> CalibrationLine:
    """Calibration slope and intercept, by Newton's method.

    Not defined (NaN, with a note): one label only; one forecast for all (the slope); labels that a threshold parts
    wholly, where no finite line fits best.

    Args:
        y_true: shape (N,); 1, 0, -1 or NaN; rows of the last two are left out.
        y_prob: shape (N,), probabilities in [0, 1]; 0 and 1 are taken as 1e-9 and 1 - 1e-9.

    Raises:
        DataError: a forecast outside [0, 1] where the label is known.
    """
    positive, prob = _forecasts(y_true, y_prob)
    inner = np.clip(prob, _EDGE, 1 - _EDGE)
    moved = int((inner != prob).sum())
    notes = [f"{moved} forecasts of 0 or 1 taken as {_EDGE:g} from it"] if moved else []
    x = np.log(inner) - np.log1p(-inner)
    in_the_large, line, spread = math.nan, (math.nan, math.nan), (math.nan, math.nan)
    if not positive.any() or positive.all():
        notes.append(f"undefined: {int(positive.sum())} positives and {int((~positive).sum())} negatives")
    else:
        in_the_large = float(_newton(np.ones((x.size, 1)), positive, offset=x)[0][0])
        if why := _no_line(x, positive):
            notes.append(why)
        else:
            (a, b), covariance = _newton(np.stack([np.ones_like(x), x], axis=1), positive)
            line, spread = (float(a), float(b)), (_spread(covariance[0, 0]), _spread(covariance[1, 1]))
    return CalibrationLine(
        slope=line[1],
        slope_low=line[1] - spread[1],
        slope_high=line[1] + spread[1],
        intercept=line[0],
        intercept_low=line[0] - spread[0],
        intercept_high=line[0] + spread[0],
        in_the_large=in_the_large,
        n=positive.size,
        n_positive=int(positive.sum()),
        notes=tuple(notes),
    )


def _forecasts(y_true: ArrayLike, y_prob: ArrayLike) -> tuple[Bools, Floats]:
    positive, prob, rows = known_rows(y_true, y_prob)
    wrong = (prob < 0) | (prob > 1)
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        raise DataError(
            f"y_prob[{rows[at]}] is {prob[at]:g}; expected a probability in [0, 1] (scores become one by fitting on "
            "validation data)"
        )
    return positive, prob


def _bins(prob: Floats, bins: int, binning: Binning) -> NDArray[np.intp]:
    if bins < 1:
        raise ConfigError(f"bins is {bins}; expected at least 1")
    if binning == "width":
        return np.minimum((prob * bins).astype(np.intp), bins - 1)
    if binning == "mass":
        ordered = np.sort(prob)
        middle = np.searchsorted(ordered, prob, "left") + np.searchsorted(ordered, prob, "right")
        return middle * bins // (2 * prob.size)
    if binning == "distinct":
        return np.unique(prob, return_inverse=True)[1].reshape(-1)
    raise ConfigError(f"binning is {binning!r}; expected 'width', 'mass' or 'distinct'")


def _spread(variance: float) -> float:
    return _Z95 * math.sqrt(max(variance, 0.0))


def _no_line(x: Floats, positive: Bools) -> str:
    if x.min() == x.max():
        return "no slope: one forecast for all rows"
    apart = x[positive].min() >= x[~positive].max() or x[positive].max() <= x[~positive].min()
    return "no line: a threshold parts the labels wholly" if apart else ""


def _newton(design: Floats, positive: Bools, offset: Floats | float = 0.0) -> tuple[Floats, Floats]:
    """Logistic regression: coefficients (D,) and their covariance (D, D); steps are halved until the fit improves."""
    y = positive.astype(np.float64)

    def loss(beta: Floats) -> float:
        z = design @ beta + offset
        return float(np.sum(np.logaddexp(0.0, z) - y * z))

    beta = np.zeros(design.shape[1])
    for _ in range(100):
        p = 1 / (1 + np.exp(-np.clip(design @ beta + offset, -700, 700)))
        gradient = design.T @ (y - p)
        hessian = (design * (p * (1 - p))[:, None]).T @ design
        step = np.linalg.lstsq(hessian, gradient, rcond=None)[0]
        if np.abs(step).max() < 1e-12:
            break
        now = loss(beta)
        while loss(beta + step) > now and np.abs(step).max() > 1e-14:
            step = step / 2
        beta = beta + step
    return beta, np.linalg.pinv(hessian)
