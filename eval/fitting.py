"""What is learned on labelled validation scores: maps to probabilities (Platt, temperature, isotonic). NumPy alone.

Every map rises, so that it never changes which of two images scores higher.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvlp.errors import ConfigError, DataError
from kvlp.eval.metrics import Floats, known_rows

__all__ = ["METHODS", "Calibrator", "fit_calibrator", "sigmoid"]


def sigmoid(x: ArrayLike) -> Floats:
    """1 / (1 + exp(-x)), without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * np.asarray(x, dtype=np.float64)))


@dataclass(frozen=True, slots=True)
class Calibrator:
    """A rising map from a score to a probability.

    Attributes:
        method: "platt", "temperature", "isotonic" or "none".
        slope: probability = sigmoid(slope * score + offset), unless isotonic; positive. A temperature is 1 / slope.
        offset: see slope.
        scores: of an isotonic map, its knots, rising; between them it is linear, beyond them constant.
        probabilities: of an isotonic map, the value at each knot.
        note: what could not be learned, in words.
    """

    method: str = "none"
    slope: float = 1.0
    offset: float = 0.0
    scores: tuple[float, ...] = ()
    probabilities: tuple[float, ...] = ()
    note: str = ""

    def __call__(self, y_score: ArrayLike) -> Floats:
        """Probabilities in the shape of the scores; NaN stays NaN."""
        scores = np.asarray(y_score, dtype=np.float64)
        if self.scores:
            return np.where(np.isnan(scores), np.nan, np.interp(scores, self.scores, self.probabilities))
        return sigmoid(self.slope * scores + self.offset)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibrator:
        """The inverse of `to_dict`.

        Raises:
            DataError: unknown keys, values of another kind, or a map that does not rise.
        """
        try:
            knots = [tuple(float(v) for v in values[key]) for key in ("scores", "probabilities")]
            slope, offset = float(values["slope"]), float(values["offset"])
            found = cls(str(values["method"]), slope, offset, knots[0], knots[1], str(values["note"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"calibrator: expected method, slope, offset, knots and note ({error})") from None
        if set(values) != set(found.to_dict()) or not found._rises():
            raise DataError("calibrator: expected a rising map from finite scores to probabilities")
        return found

    def _rises(self) -> bool:
        x, y = np.asarray(self.scores), np.asarray(self.probabilities)
        plain = self.method in METHODS and math.isfinite(self.slope + self.offset) and self.slope > 0
        knots = x.shape == y.shape and bool(np.isfinite(x).all() and (np.diff(x) > 0).all() and (np.diff(y) >= 0).all())
        return plain and knots and bool(((y >= 0) & (y <= 1)).all())


def fit_calibrator(y_true: ArrayLike, y_score: ArrayLike, method: str = "platt", *, bias: float = 0.0) -> Calibrator:
    """Learn a map from scores to probabilities. Use rows that were neither trained on nor will be tested on.

    Args:
        y_true: shape (N,); 1, 0, -1 or NaN; rows of the last two are left out.
        y_score: shape (N,), logits: higher means rather present.
        method: "platt" (slope and offset), "temperature" (slope alone, over score + bias), "isotonic" (any rising map;
            needs some hundred rows of each kind, and makes ties), or "none".
        bias: added to the scores where nothing is learned, and before a temperature.

    Returns:
        The map. Its `note` says so where nothing could be learned: one of the two labels is missing ("none" is given
        back), or the scores rank no better than chance (then the slope is left at 1).

    All three fit Platt's smoothed targets, (n+ + 1) / (n+ + 2) and 1 / (n- + 2), so that few rows are no proof of
    certainty and separable ones stay finite.

    Reference: Platt 1999; Guo et al. 2017 (temperature); Zadrozny and Elkan 2002 (isotonic).
    """
    if method not in METHODS:
        raise ConfigError(f"calibration is {method!r}; expected {', '.join(map(repr, METHODS))}")
    positive, scores, _ = known_rows(y_true, y_score)
    if not positive.any() or positive.all():
        return Calibrator(offset=bias, note="no labels of both kinds")
    if not np.isfinite(scores).all():
        raise DataError("y_score holds infinite values; expected finite logits to calibrate")
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    target = np.where(positive, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    return METHODS[method](scores, target, bias)


def _none(scores: Floats, target: Floats, bias: float) -> Calibrator:
    return Calibrator(offset=bias)


def _platt(scores: Floats, target: Floats, bias: float) -> Calibrator:
    centre, spread = float(scores.mean()), float(scores.std())
    if spread > 0:
        a, b = _logistic((scores - centre) / spread, target)
        if a > 0:
            return Calibrator("platt", a / spread, b - a * centre / spread)
    return Calibrator("platt", 1.0, _offset(scores, float(target.sum())), note=_CHANCE)


def _temperature(scores: Floats, target: Floats, bias: float) -> Calibrator:
    logits = scores + bias

    def falls(slope: float) -> bool:
        return float(logits @ (sigmoid(slope * logits) - target)) < 0

    if not falls(0.0):
        return Calibrator("temperature", 1.0, bias, note=_CHANCE)
    low, high = 0.0, 1.0
    while falls(high):
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if falls(middle) else (low, middle)
    slope = (low + high) / 2
    return Calibrator("temperature", slope, slope * bias)


def _isotonic(scores: Floats, target: Floats, bias: float) -> Calibrator:
    x, where, count = np.unique(scores, return_inverse=True, return_counts=True)
    y = np.bincount(where, weights=target) / count
    first, last, value = _pool(y, count.astype(np.float64))
    if len(value) == 1:
        return Calibrator("isotonic", scores=(float(x[0]),), probabilities=(float(value[0]),), note=_CHANCE)
    ends = np.unique(np.stack([first, last], axis=1).ravel())
    block = np.searchsorted(first, ends, side="right") - 1
    return Calibrator("isotonic", scores=tuple(x[ends].tolist()), probabilities=tuple(value[block].tolist()))


def _pool(y: Floats, weight: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
    """Pool adjacent violators: first and last index and weighted mean of each block, means rising."""
    blocks: list[tuple[int, int, float, float]] = []
    for i, (value, w) in enumerate(zip(y.tolist(), weight.tolist(), strict=True)):
        first, last, mean, total = i, i, value, w
        while blocks and blocks[-1][2] >= mean:
            before = blocks.pop()
            first, mean = before[0], (before[2] * before[3] + mean * total) / (before[3] + total)
            total += before[3]
        blocks.append((first, last, mean, total))
    starts, stops, means, _ = zip(*blocks, strict=True)
    return np.array(starts), np.array(stops), np.array(means)


def _logistic(z: Floats, target: Floats) -> tuple[float, float]:
    """Newton's method for sigmoid(a z + b), steps limited so that it cannot run away."""
    design, at = np.stack([z, np.ones_like(z)], axis=1), np.zeros(2)
    for _ in range(100):
        p = sigmoid(design @ at)
        curvature = (design * (p * (1 - p))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, design.T @ (p - target))
        at = at - step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-9:
            break
    return float(at[0]), float(at[1])


def _offset(scores: Floats, wanted: float) -> float:
    """The offset with which the probabilities sum to `wanted`, by bisection."""
    low, high = -float(scores.max()) - 50.0, -float(scores.min()) + 50.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if sigmoid(scores + middle).sum() < wanted else (low, middle)
    return (low + high) / 2


_CHANCE = "scores no better than chance"
#: ways to calibrate
METHODS: dict[str, Callable[[Floats, Floats, float], Calibrator]] = {
    "platt": _platt,
    "temperature": _temperature,
    "isotonic": _isotonic,
    "none": _none,
}
