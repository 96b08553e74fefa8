"""Charts as small inline SVG: crisp at any width, readable on a phone, coloured by the page's style sheet.

A chart is drawn 380 units wide and never shown wider than 480 pixels, so that its words keep the size of the page's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvlp.eval.intervals import Interval

__all__ = ["Chart", "Forest", "Lines", "Series", "shared_limits"]

_WIDTH = 380
_COLOURS = 8


@dataclass(frozen=True)
class Series:
    """One line: its name in the legend, its points, and an optional note (its AUC)."""

    name: str
    x: ArrayLike
    y: ArrayLike
    note: str = ""


@dataclass(frozen=True)
class Lines:
    """Lines on two axes.

    Attributes:
        title: above the chart.
        series: at most eight.
        x_label, y_label: names of the axes.
        diagonal: draw the line of chance from corner to corner, and keep both axes at [0, 1].
        y_from_zero: start the y axis at 0.
        unit: keep both axes at [0, 1], without the diagonal.
        dots: mark the points themselves too.
    """

    title: str
    series: Sequence[Series]
    x_label: str = ""
    y_label: str = ""
    diagonal: bool = False
    y_from_zero: bool = False
    unit: bool = False
    dots: bool = False

    @property
    def legend(self) -> list[tuple[int, str, str]]:
        """Colour number, name and note of each series."""
        return [(i % _COLOURS, s.name, s.note) for i, s in enumerate(self.series) if s.name]

    def svg(self) -> str:
        """The chart as an SVG element."""
        points = [_clean(s.x, s.y) for s in self.series]
        unit = self.diagonal or self.unit
        x_range = (0.0, 1.0) if unit else _span([x for x, _ in points])
        y_range = (0.0, 1.0) if unit else _span([y for _, y in points], zero=self.y_from_zero)
        frame = _Frame(x_range, y_range, height=380 if unit else 270)
        parts = frame.axes(self.x_label, self.y_label)
        if self.diagonal:
            parts.append(
                f'<path class="chance" d="M{frame.x(0):.1f} {frame.y(0):.1f}L{frame.x(1):.1f} {frame.y(1):.1f}"/>'
            )
        for number, (x, y) in enumerate(points):
            if x.size:
                parts.append(f'<path class="line c{number % _COLOURS}" d="{frame.path(*_thin(x, y))}"/>')
            if self.dots:
                parts += [_point(frame, a, b, number) for a, b in zip(x, y, strict=True)]
        return _svg(_WIDTH, frame.height, self.title, parts)


@dataclass(frozen=True)
class Forest:
    """Intervals under each other: each row a name above and one mark for each kind of score.

    Attributes:
        title: above the chart.
        rows: (name, intervals), one interval for each entry of `kinds`; None leaves it out.
        kinds: names of the marks ("POS", "NEG").
        x_label: name of the axis.
        reference: value marked by a broken line (0.5 for an AUC, 0 for a difference).
        limits: axis limits; default from the data.
        dots: further values of each row and kind, drawn small and pale beneath the mark (other ways to ask).
    """

    title: str
    rows: Sequence[tuple[str, Sequence[Interval | None]]]
    kinds: Sequence[str] = ("",)
    x_label: str = ""
    reference: float | None = None
    limits: tuple[float, float] | None = None
    dots: Sequence[Sequence[Sequence[float]]] = ()

    @property
    def legend(self) -> list[tuple[int, str, str]]:
        """Colour number and name of each kind of mark; none if there is one kind."""
        return [(i, kind, "") for i, kind in enumerate(self.kinds)] if len(self.kinds) > 1 else []

    def svg(self) -> str:
        """The chart as an SVG element."""
        step, above = 11, 20
        row_height = above + step * len(self.kinds) + 5
        frame = _Frame(self._limits(), (0, 1), height=row_height * len(self.rows) + 44, left=10, top=2)
        parts = frame.axes(self.x_label, "", y_axis=False)
        if self.reference is not None:
            x = frame.x(self.reference)
            parts.append(f'<path class="chance" d="M{x:.1f} {frame.top}V{frame.bottom:.1f}"/>')
        for number, (name, intervals) in enumerate(self.rows):
            top = frame.top + number * row_height
            parts.append(f'<text class="name" x="{frame.left}" y="{top + 15}">{escape(_cut(name, 48))}</text>')
            for kind, values in enumerate(self.dots[number] if self.dots else ()):
                parts += [_dot(frame, value, top + above + step * kind + 3, kind) for value in values]
            for kind, interval in enumerate(intervals):
                if interval is not None and not math.isnan(interval.value):
                    parts += _mark(frame, interval, top + above + step * kind + 3, kind)
        return _svg(_WIDTH, frame.height, self.title, parts)

    def _limits(self) -> tuple[float, float]:
        if self.limits is not None:
            return self.limits
        return shared_limits([i for _, row in self.rows for i in row if i is not None], reference=self.reference)


Chart = Lines | Forest


def shared_limits(intervals: Sequence[Interval], *, reference: float | None = None) -> tuple[float, float]:
    """Axis limits that hold all the intervals, so that several forests can be read side by side."""
    ends = [e for i in intervals for e in (i.low, i.high, i.value) if not math.isnan(e)]
    ends += [] if reference is None else [reference]
    return _span([np.array(ends)])


class _Frame:
    """Plot area with linear axes."""

    def __init__(
        self,
        x_range: tuple[float, float],
        y_range: tuple[float, float],
        *,
        height: int,
        left: int = 46,
        top: int = 10,
    ) -> None:
        self.x_range, self.y_range, self.height = x_range, y_range, height
        self.left, self.top = left, top
        self.right, self.bottom = _WIDTH - 12, height - 42

    def x(self, value: float) -> float:
        low, high = self.x_range
        return self.left + (self.right - self.left) * (value - low) / (high - low)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.bottom - (self.bottom - self.top) * (value - low) / (high - low)

    def path(self, xs: NDArray[np.float64], ys: NDArray[np.float64]) -> str:
        return "M" + "L".join(f"{self.x(a):.1f} {self.y(b):.1f}" for a, b in zip(xs, ys, strict=True))

    def axes(self, x_label: str, y_label: str, *, y_axis: bool = True) -> list[str]:
        parts = []
        for value, tick in _ticks(*self.x_range):
            x = self.x(value)
            parts.append(f'<path class="grid" d="M{x:.1f} {self.top}V{self.bottom}"/>')
            parts.append(f'<text x="{x:.1f}" y="{self.bottom + 17}" text-anchor="middle">{tick}</text>')
        for value, tick in _ticks(*self.y_range) if y_axis else []:
            y = self.y(value)
            parts.append(f'<path class="grid" d="M{self.left} {y:.1f}H{self.right}"/>')
            parts.append(f'<text x="{self.left - 7}" y="{y + 4.5:.1f}" text-anchor="end">{tick}</text>')
        if x_label:
            middle = (self.left + self.right) / 2
            parts.append(
                f'<text class="axis" x="{middle}" y="{self.height - 6}" text-anchor="middle">{escape(x_label)}</text>'
            )
        if y_label:
            middle = (self.top + self.bottom) / 2
            parts.append(
                f'<text class="axis" transform="translate(12 {middle}) rotate(-90)" text-anchor="middle">'
                f"{escape(y_label)}</text>"
            )
        return parts


def _mark(frame: _Frame, interval: Interval, y: float, kind: int) -> list[str]:
    colour, parts = f"c{kind % _COLOURS}", []
    if not math.isnan(interval.low):
        low, high = frame.x(max(interval.low, frame.x_range[0])), frame.x(min(interval.high, frame.x_range[1]))
        parts.append(f'<path class="bar {colour}" d="M{low:.1f} {y}H{high:.1f}"/>')
    x = frame.x(min(max(interval.value, frame.x_range[0]), frame.x_range[1]))
    parts.append(
        f'<circle class="dot {colour}" cx="{x:.1f}" cy="{y}" r="4"><title>{escape(str(interval))}</title></circle>'
    )
    return parts


def _point(frame: _Frame, x: float, y: float, number: int) -> str:
    return f'<circle class="dot c{number % _COLOURS}" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="3.5"/>'


def _dot(frame: _Frame, value: float, y: float, kind: int) -> str:
    x = frame.x(min(max(value, frame.x_range[0]), frame.x_range[1]))
    return f'<circle class="dot c{kind % _COLOURS}" cx="{x:.1f}" cy="{y}" r="2.5" opacity="0.35"/>'


def _svg(width: int, height: int, title: str, parts: Sequence[str]) -> str:
    head = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">'
    return head + "".join(parts) + "</svg>"


def _clean(x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    good = np.isfinite(xs) & np.isfinite(ys)
    return xs[good], ys[good]


def _thin(x: NDArray[np.float64], y: NDArray[np.float64], most: int = 240) -> tuple[NDArray, NDArray]:
    """At most `most` points, evenly along the line, ends kept."""
    if x.size <= most:
        return x, y
    length = np.r_[0, np.cumsum(np.hypot(np.diff(x) / (np.ptp(x) or 1), np.diff(y) / (np.ptp(y) or 1)))]
    keep = np.unique(np.searchsorted(length, np.linspace(0, length[-1], most)).clip(0, x.size - 1))
    keep = np.unique(np.r_[0, keep, x.size - 1])
    return x[keep], y[keep]


def _span(values: Sequence[NDArray[np.float64]], *, zero: bool = False) -> tuple[float, float]:
    flat = np.concatenate([np.ravel(v) for v in values]) if values else np.zeros(0)
    low, high = (float(flat.min()), float(flat.max())) if flat.size else (0.0, 1.0)
    low = min(low, 0.0) if zero else low
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    room = 0.04 * (high - low)
    return (low if zero and low == 0 else low - room), high + room


def _ticks(low: float, high: float, about: int = 6) -> list[tuple[float, str]]:
    """Round numbers between the limits, about six of them, each with its words."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [(i * step, _number(i * step, step)) for i in range(first, last + 1)]


def _number(value: float, step: float) -> str:
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    if 0 < step < 1e-3:
        return "0" if abs(value) < step / 2 else f"{value:.1e}".replace("e-0", "e-").replace("-", "−")
    digits = next(d for d in range(5) if abs(step * 10**d - round(step * 10**d)) < 1e-6)
    return f"{value + 0.0:.{digits}f}".replace("-", "−")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
