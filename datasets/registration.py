"""Two small pictures laid upon each other: moved and scaled until they agree best, then compared in their details.

NumPy alone, many pairs at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kvlp.errors import ShapeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

__all__ = ["detail_correlation"]

#: widths of Gaussian blurs, in pixels: what lies between them are details
_FINE, _COARSE = 0.7, 4.0
_STEPS = 6
#: pixels at the edge that do not count: a neighbour is missing there
_MARGIN = 2


def detail_correlation(
    first: NDArray[np.uint8], second: NDArray[np.uint8], scale: NDArray[np.floating] | None = None
) -> Floats:
    """Correlation of the details of P pairs of pictures, the second moved and scaled onto the first.

    Details are what lies between a narrow and a wide blur (edges, letters, vessels), so that anatomy which all have in
    common does not count. The second picture is moved and scaled, each way on its own, by Gauss-Newton steps on the
    squared difference with free brightness and contrast: at first of whole pictures, which agree from further away.

    Args:
        first: uint8 (P, S, S).
        second: uint8 (P, S, S).
        scale: (P,), to begin with: below 1 if the second picture shows more than the first, as before a crop.

    Returns:
        (P,) in [-1, 1]; 0 for a picture without details.
    """
    if first.ndim != 3 or first.shape != second.shape or first.shape[1] != first.shape[2]:
        raise ShapeError(f"expected two arrays (P, S, S), got {first.shape} and {second.shape}")
    begin = np.ones(len(first)) if scale is None else np.asarray(scale, dtype=np.float64)
    # scale and shift across, scale and shift down; coordinates run from -1 to 1
    place = np.stack([begin, np.zeros_like(begin), begin, np.zeros_like(begin)], axis=1).astype(np.float32)
    whole = _blurred(first, _FINE), _blurred(second, _FINE)
    details = tuple(picture - _blurred(picture, _COARSE) for picture in whole)
    for still, moving in (whole, details):
        for _ in range(_STEPS):
            place = _improved(_standard(still), _standard(moving), place)
    shown, inside = _sampled(details[1], place)
    return _correlation(details[0], shown, inside)


def _blurred(pictures: NDArray[np.number], width: float) -> Floats:
    at = np.arange(pictures.shape[-1])
    kernel = np.exp(-0.5 * ((at[:, None] - at) / width) ** 2)
    kernel = (kernel / kernel.sum(axis=1, keepdims=True)).astype(np.float32)
    return kernel @ pictures.astype(np.float32) @ kernel.T


def _standard(pictures: Floats) -> Floats:
    centred = pictures - pictures.mean(axis=(1, 2), keepdims=True)
    return centred / np.maximum(centred.std(axis=(1, 2), keepdims=True), 1e-3)


def _grid(side: int) -> Floats:
    return ((2 * np.arange(side) + 1) / side - 1).astype(np.float32)


def _sampled(pictures: Floats, place: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Pictures where `place` puts the grid, linearly between pixels; and which of it lies well within them."""
    side = pictures.shape[-1]
    across, in_x = _weights(place[:, 0:1] * _grid(side) + place[:, 1:2], side)
    down, in_y = _weights(place[:, 2:3] * _grid(side) + place[:, 3:4], side)
    return down @ pictures @ across.transpose(0, 2, 1), in_y[:, :, None] & in_x[:, None, :]


def _weights(at: Floats, side: int) -> tuple[Floats, NDArray[np.bool_]]:
    """Rows (P, S, S) that take a line of S pixels to its values at S coordinates each, and which are inside."""
    pixel = (at + 1) * side / 2 - 0.5
    rows = np.maximum(1 - np.abs(pixel[:, :, None] - np.arange(side, dtype=np.float32)), 0).astype(np.float32)
    return rows, (pixel >= _MARGIN) & (pixel <= side - 1 - _MARGIN)


def _improved(still: Floats, moving: Floats, place: Floats) -> Floats:
    """One Gauss-Newton step on (P, 4) scales and shifts."""
    shown, inside = _sampled(moving, place)
    slope_y, slope_x = np.gradient(moving, 2 / moving.shape[-1], axis=(1, 2))
    x, y = _grid(moving.shape[-1])[None, None, :], _grid(moving.shape[-1])[None, :, None]
    gx, gy = _sampled(slope_x, place)[0], _sampled(slope_y, place)[0]
    columns = np.stack([gx * x, gx, gy * y, gy, shown, np.ones_like(shown)], axis=1) * inside[:, None]
    flat = columns.reshape(len(place), 6, -1)
    wanted = ((still - shown) * inside).reshape(len(place), -1, 1)
    normal = flat @ flat.transpose(0, 2, 1) + 1e-2 * np.eye(6, dtype=np.float32)
    step = np.linalg.solve(normal, flat @ wanted)[:, :4, 0]
    near = np.clip(place + np.clip(step, -0.05, 0.05), [0.75, -0.25, 0.75, -0.25], [1.35, 0.25, 1.35, 0.25])
    return near.astype(np.float32)


def _correlation(first: Floats, second: Floats, inside: NDArray[np.bool_]) -> Floats:
    count = np.maximum(inside.sum(axis=(1, 2)), 1)

    def centred(values: Floats) -> Floats:
        return (values - ((values * inside).sum(axis=(1, 2)) / count)[:, None, None]) * inside

    a, b = centred(first), centred(second)
    size = np.sqrt((a * a).sum(axis=(1, 2)) * (b * b).sum(axis=(1, 2)))
    return np.where(size > count * 1e-3, (a * b).sum(axis=(1, 2)) / np.maximum(size, 1e-9), 0).astype(np.float32)
