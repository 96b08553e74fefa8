"""Small picture fields in unit coordinates: edges, blobs, strokes and noise, all with an exact zero outside."""

from functools import lru_cache
from typing import Any, TypeAlias
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

__all__ = ["dots", "ellipse", "grid", "lobes", "noise", "polyline", "step", "stream", "stroke"]

#: float32 (H, W); NumPy's stubs lose the width of mixed sums, so the type says only that it is an array.
Field: TypeAlias = NDArray[Any]
_GOLDEN = 0x9E3779B97F4A7C15


def stream(seed: int, name: str) -> np.random.Generator:
    """A random stream of its own for (seed, name): drawing from one never disturbs another."""
    return np.random.Generator(np.random.PCG64((seed * _GOLDEN + crc32(name.encode()) * 0x632BE5AB) & (2**127 - 1)))


@lru_cache(maxsize=8)
def grid(size: int) -> tuple[Field, Field]:
    """Pixel centres (x, y) of a square picture, in [0, 1], float32 (size, size)."""
    axis = ((np.arange(size) + 0.5) / size).astype(np.float32)
    x, y = np.meshgrid(axis, axis)
    return x, y


def step(distance: Field, width: float) -> Field:
    """0 where distance < -width/2, 1 where > width/2, smooth between; exactly 0 and 1 outside."""
    t = np.clip(distance * np.float32(1.0 / width) + np.float32(0.5), 0, 1)
    return t * t * (3 - 2 * t)


def stroke(distance: Field, width: float) -> Field:
    """A line of half-width `width` with a rounded profile, from its signed distance."""
    t = distance * np.float32(1.0 / width)
    return np.maximum(1 - t * t, 0)


def ellipse(x: Field, y: Field, centre: tuple[float, float], radii: tuple[float, float], tilt: float = 0.0) -> Field:
    """Normalised radius (0 at the centre, 1 on the edge) of a tilted ellipse; tilt in radians."""
    dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
    if tilt:
        c, s = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
        dx, dy = c * dx + s * dy, c * dy - s * dx
    return np.sqrt((dx / np.float32(radii[0])) ** 2 + (dy / np.float32(radii[1])) ** 2)


def polyline(x: Field, y: Field, points: NDArray[np.float64], width: float) -> Field:
    """A stroke along (N, 2) points."""
    out = np.zeros_like(x)
    spans = y.max(axis=1), y.min(axis=1), x.max(axis=0), x.min(axis=0)
    for (x0, y0), (x1, y1) in zip(points[:-1].tolist(), points[1:].tolist()):
        dx, dy = x1 - x0, y1 - y0
        # Only the band of rows and columns near the segment is touched: long thin lines stay cheap.
        near = _window(spans, (min(x0, x1) - width, max(x0, x1) + width), (min(y0, y1) - width, max(y0, y1) + width))
        if near is None:
            continue
        px, py = x[near] - np.float32(x0), y[near] - np.float32(y0)
        t = np.clip((px * np.float32(dx) + py * np.float32(dy)) / np.float32(dx * dx + dy * dy + 1e-9), 0, 1)
        away = (px - t * np.float32(dx)) ** 2 + (py - t * np.float32(dy)) ** 2
        np.maximum(out[near], np.maximum(1 - away * np.float32(1 / (width * width)), 0), out=out[near])
    return out


def _window(
    spans: tuple[Field, Field, Field, Field], xs: tuple[float, float], ys: tuple[float, float]
) -> tuple[slice, slice] | None:
    """Rows and columns that may hold the box, from the highest and lowest y of each row and x of each column."""
    rows = np.flatnonzero((spans[0] >= ys[0]) & (spans[1] <= ys[1]))
    cols = np.flatnonzero((spans[2] >= xs[0]) & (spans[3] <= xs[1]))
    if not len(rows) or not len(cols):
        return None
    return slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)


@lru_cache(maxsize=64)
def _weights(size: int, cells: int) -> Field:
    position = (np.arange(size) + 0.5) / size * (cells - 1)
    left = np.minimum(position.astype(int), cells - 2)
    t = position - left
    t = t * t * (3 - 2 * t)
    out = np.zeros((size, cells), np.float32)
    out[np.arange(size), left] = 1 - t
    out[np.arange(size), left + 1] += t
    return out


def noise(rng: np.random.Generator, size: int, cells: int, *, cells_x: int | None = None) -> Field:
    """Smooth Gaussian noise on a lattice of cells (unit variance at its nodes); the same look at any size."""
    lattice = rng.standard_normal((cells, cells_x or cells), dtype=np.float32)
    return _weights(size, cells) @ lattice @ _weights(size, cells_x or cells).T


def dots(x: Field, y: Field, rng: np.random.Generator, cell: float, radius: float) -> Field:
    """Many small round dots, one in each jittered lattice cell."""
    count = 64
    jitter = rng.uniform(-0.5, 0.5, (3, count, count)).astype(np.float32)
    gx, gy = x / np.float32(cell), y / np.float32(cell)
    ix, iy = np.floor(gx).astype(np.int32), np.floor(gy).astype(np.int32)
    jx, jy, js = jitter[:, iy % count, ix % count]
    room = np.float32(1 - 2 * radius / cell)
    dx, dy = gx - ix - np.float32(0.5) - jx * room, gy - iy - np.float32(0.5) - jy * room
    reach = np.float32(radius / cell) * (np.float32(0.8) + np.float32(0.4) * js)
    inside: Field = np.maximum(1 - (dx * dx + dy * dy) / (reach * reach), 0)
    return inside


def lobes(angle: Field, rng: np.random.Generator, amounts: dict[int, float]) -> Field:
    """An uneven outline: waves around a circle, {waves: amount}, each with its own turn and strength."""
    out = np.zeros_like(angle)
    for waves, amount in amounts.items():
        out += np.float32(amount * rng.uniform(0.5, 1.2)) * np.sin(angle * waves + np.float32(rng.uniform(0, 6.3)))
    return out
