"""Panels to plant: pictures with the look of each kind, as (H, W, 3) uint8. They test; nothing is a patient."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from kvlp.datasets.figures.fonts import font

__all__ = ["PICTURES", "draw_picture"]

Pixels = NDArray[np.uint8]
_Rng = np.random.Generator


def draw_picture(kind: str, height: int, width: int, rng: _Rng) -> Pixels:
    """Draw one panel of a kind in `PICTURES`."""
    return PICTURES[kind](height, width, rng)


def _grid(height: int, width: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows and columns from -1 to 1."""
    return tuple(np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij"))  # type: ignore[return-value]


def _smooth(height: int, width: int, cells: int, rng: _Rng) -> NDArray[np.float64]:
    """Slow random variation in [0, 1]."""
    from PIL import Image

    coarse = Image.fromarray(rng.integers(0, 256, (cells, cells), dtype=np.uint8))
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float64) / 255


def _grey(values: NDArray[np.float64], rng: _Rng, noise: float) -> Pixels:
    noisy = values + rng.normal(0, noise, values.shape)
    return np.repeat(np.clip(noisy * 255, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def _ellipse(
    y: NDArray[np.float64], x: NDArray[np.float64], middle: tuple[float, float], radii: tuple[float, float]
) -> NDArray[np.bool_]:
    return ((y - middle[0]) / radii[0]) ** 2 + ((x - middle[1]) / radii[1]) ** 2 < 1


def _radiograph(height: int, width: int, rng: _Rng) -> Pixels:
    from PIL import Image

    from kvlp.datasets.phantom import render, sample_case

    image = Image.fromarray(render(sample_case(rng), 96).image).resize((width, height), Image.Resampling.BICUBIC)
    return _grey(np.asarray(image, dtype=np.float64) / 255, rng, 0.015)


def _ct(height: int, width: int, rng: _Rng) -> Pixels:
    y, x = _grid(height, width)
    body = _ellipse(y, x, (0, 0), (rng.uniform(0.6, 0.8), rng.uniform(0.78, 0.93)))
    values = np.where(body, 0.45 + 0.1 * _smooth(height, width, 6, rng), 0.0)
    for side in (-1, 1):
        values[_ellipse(y, x, (-0.08, 0.42 * side), (0.42, 0.27))] = 0.06
    values[_ellipse(y, x, (0.45, 0), (0.13, 0.1))] = 0.95
    values[_ellipse(y, x, (rng.uniform(-0.3, 0.2), rng.uniform(0.2, 0.5)), (0.09, 0.07))] = 0.6
    return _grey(values, rng, 0.01)


def _mr(height: int, width: int, rng: _Rng) -> Pixels:
    y, x = _grid(height, width)
    values = np.where(_ellipse(y, x, (0, 0), (0.88, 0.74)), 0.75, 0.0)
    values[_ellipse(y, x, (0, 0), (0.8, 0.66))] = 0.12
    brain = _ellipse(y, x, (0, 0), (0.75, 0.61))
    values[brain] = (0.3 + 0.35 * _smooth(height, width, 14, rng))[brain]
    for side in (-1, 1):
        values[_ellipse(y, x, (-0.05, 0.14 * side), (0.26, 0.08))] = rng.choice([0.05, 0.9])
    return _grey(values, rng, 0.02)


def _ultrasound(height: int, width: int, rng: _Rng) -> Pixels:
    y, x = _grid(height, width)
    radius, angle = np.hypot(y + 1.25, x), np.arctan2(x, y + 1.25)
    fan = (radius < 2.15) & (radius > 0.35) & (np.abs(angle) < 0.62)
    speckle = rng.gamma(2.0, 0.5, (height, width)) * (0.25 + 0.5 * _smooth(height, width, 8, rng))
    values = np.where(fan, speckle * 0.6, 0.0)
    values[_ellipse(y, x, (0.1, rng.uniform(-0.2, 0.2)), (0.2, 0.16))] *= 0.1
    return _grey(values, rng, 0.004)


def _microscopy(height: int, width: int, rng: _Rng) -> Pixels:
    y, x = _grid(height, width)
    field = np.stack(
        [
            0.93 - 0.1 * _smooth(height, width, 9, rng),
            0.7 - 0.25 * _smooth(height, width, 9, rng),
            0.8 - 0.1 * _smooth(height, width, 9, rng),
        ],
        axis=2,
    )
    for _ in range(60):
        radius = rng.uniform(0.02, 0.045)
        nucleus = _ellipse(y, x, (rng.uniform(-1, 1), rng.uniform(-1, 1)), (radius, radius * rng.uniform(0.7, 1.3)))
        field[nucleus] = (0.35, 0.2, 0.5)
    return np.clip((field + rng.normal(0, 0.02, field.shape)) * 255, 0, 255).astype(np.uint8)


def _photograph(height: int, width: int, rng: _Rng) -> Pixels:
    y, x = _grid(height, width)
    skin = np.array(rng.choice([(0.85, 0.62, 0.5), (0.55, 0.36, 0.26), (0.9, 0.7, 0.6)]))
    light = 0.55 + 0.35 * _smooth(height, width, 4, rng)
    field = light[..., None] * skin
    cloth = y > rng.uniform(0.3, 0.6) + 0.2 * x
    field[cloth] = (light[..., None] * np.array([0.2, 0.45, 0.6]))[cloth]
    field[_ellipse(y, x, (-0.2, 0.1), (0.16, 0.22))] = (0.55, 0.1, 0.12)
    return np.clip((field + rng.normal(0, 0.015, field.shape)) * 255, 0, 255).astype(np.uint8)


def _plot(height: int, width: int, rng: _Rng) -> Pixels:
    """Two axes, ticks with numbers, and a curve or bars, on white."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    small = font("DejaVuSans.ttf", max(8, height // 24))
    left, bottom, right, top = width // 7, height - height // 7, width - 6, height // 14
    draw.line([(left, top), (left, bottom), (right, bottom)], fill="black", width=max(1, height // 160))
    for step in range(5):
        across, up = left + (right - left) * step // 5, bottom - (bottom - top) * step // 5
        draw.line([(left - 4, up), (left, up)], fill="black")
        draw.text((2, up - height // 40), f"{step * 20}", fill="black", font=small)
        draw.text((across, bottom + 4), f"{step}", fill="black", font=small)
    colour = tuple(int(c) for c in rng.integers(0, 200, 3))
    heights = rng.uniform(0.2, 0.95, 9)
    span = (right - left) / 9
    if rng.random() < 0.5:
        for n, share in enumerate(heights):
            start = left + span * n + span / 4
            draw.rectangle([start, bottom - (bottom - top) * share, start + span / 2, bottom], fill=colour)
    else:
        points = [(left + span * n, bottom - (bottom - top) * share) for n, share in enumerate(np.sort(heights))]
        draw.line(points, fill=colour, width=2)
    return np.asarray(image)


PICTURES: dict[str, Callable[[int, int, _Rng], Pixels]] = {
    "radiograph": _radiograph,
    "ct": _ct,
    "mr": _mr,
    "ultrasound": _ultrasound,
    "microscopy": _microscopy,
    "photograph": _photograph,
    "plot": _plot,
}
