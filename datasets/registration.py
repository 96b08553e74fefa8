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

#: widths of Gaussian blurs, in pixels: details lie between the first and the second; what leads to them is coarser
_FINE, _DETAIL, _LEADING = 0.7, 2.0, 4.0
#: steps at half size and at full size
_FAR_STEPS, _NEAR_STEPS = 5, 3
#: pairs whose details agree less than this after the first steps are not worth more
_WORTH = 0.3
#: pixels at the edge that do not count: a neighbour is missing there
_MARGIN = 2
#: scale across, shift across, scale down, shift down may lie between these
_LEAST, _MOST = (0.75, -0.25, 0.75, -0.25), (1.35, 0.25, 1.35, 0.25)


def detail_correlation(
    first: NDArray[np.uint8], second: NDArray[np.uint8], place: NDArray[np.floating] | None = None
) -> Floats:
    """Correlation of the details of P pairs of pictures, the second moved and scaled onto the first.

    Details are what lies between a narrow and a wide blur (edges, letters, vessels), their contrast made even, so that
    the anatomy which all have in common does not count. The second picture is moved and scaled, each way on its own, by
    Gauss-Newton steps on the squared difference with free brightness and contrast: first of the whole pictures at half
    size, which agree from further away.

    Args:
        first: uint8 (P, S, S), S even.
        second: uint8 (P, S, S).
        place: (P, 4), where to begin: a point (x, y) of the first, each from -1 to 1, is the point
            (place[0] * x + place[1], place[2] * y + place[3]) of the second.

    Returns:
        (P,) in [-1, 1]; 0 for a picture without details.
    """
    if first.ndim != 3 or first.shape != second.shape or first.shape[1] != first.shape[2] or first.shape[1] % 2:
        raise ShapeError(f"expected two arrays (P, S, S) with even S, got {first.shape} and {second.shape}")
    begin = np.tile([1.0, 0.0, 1.0, 0.0], (len(first), 1)) if place is None else np.asarray(place)
    found = _aligned(_halved(first), _halved(second), begin.astype(np.float32), _FAR_STEPS)
    scores = _score(first, second, found)
    worth = np.flatnonzero(scores >= _WORTH)
    if worth.size:
        first, second, found = first[worth], second[worth], found[worth]
        found = _aligned(_leading(first), _leading(second), found, _NEAR_STEPS)
        found = _aligned(_details(first), _details(second), found, _NEAR_STEPS)
        scores[worth] = np.maximum(scores[worth], _score(first, second, found))
    return scores


def _halved(pictures: NDArray[np.uint8]) -> Floats:
    count, side, _ = pictures.shape
    return pictures.reshape(count, side // 2, 2, side // 2, 2).mean(axis=(2, 4), dtype=np.float32)


def _leading(pictures: NDArray[np.uint8]) -> Floats:
    return _blurred(pictures, _FINE) - _blurred(pictures, _LEADING)


def _details(pictures: NDArray[np.uint8]) -> Floats:
    band = _blurred(pictures, _FINE) - _blurred(pictures, _DETAIL)
    return band / (np.sqrt(_blurred(band * band, _LEADING)) + 2)  # 2 grey levels: noise stays small


def _blurred(pictures: NDArray[np.number], width: float) -> Floats:
    at = np.arange(pictures.shape[-1])
    kernel = np.exp(-0.5 * ((at[:, None] - at) / width) ** 2)
    kernel = (kernel / kernel.sum(axis=1, keepdims=True)).astype(np.float32)
    return kernel @ pictures.astype(np.float32) @ kernel.T


def _standard(pictures: Floats) -> Floats:
    centred = pictures - pictures.mean(axis=(1, 2), keepdims=True)
    return centred / np.maximum(centred.std(axis=(1, 2), keepdims=True), 1e-3)


def _aligned(still: Floats, moving: Floats, place: Floats, steps: int) -> Floats:
    """Where the second pictures agree best with the first, from `place` on: (P, 4)."""
    still, moving = _standard(still), _standard(moving)
    surface = np.stack([moving, *np.gradient(moving, 2 / moving.shape[-1], axis=(1, 2))], axis=1)
    for _ in range(steps):
        place = _improved(still, surface, place)
    return place


def _improved(still: Floats, surface: Floats, place: Floats) -> Floats:
    """One Gauss-Newton step; `surface` holds the second pictures and their slopes, down and across: (P, 3, S, S)."""
    count, _, side, _ = surface.shape
    x, y = _grid(side)[None, None, :], _grid(side)[None, :, None]
    shown, down, across = _sampled(surface, place).transpose(1, 0, 2, 3)
    columns = np.empty((count, 6, side, side), dtype=np.float32)
    for number, column in enumerate((across * x, across, down * y, down, shown, np.float32(1))):
        columns[:, number] = column
    columns *= _inside(place, side)[:, None]
    flat = columns.reshape(count, 6, -1)
    normal = flat @ flat.transpose(0, 2, 1) + 1e-2 * np.eye(6, dtype=np.float32)
    step = np.linalg.solve(normal, flat @ (still - shown).reshape(count, -1, 1))[:, :4, 0]
    return np.clip(place + np.clip(step, -0.05, 0.05), _LEAST, _MOST).astype(np.float32)


def _grid(side: int) -> Floats:
    return ((2 * np.arange(side) + 1) / side - 1).astype(np.float32)


def _sampled(pictures: Floats, place: Floats) -> Floats:
    """Pictures (P, K, S, S) at the points where `place` puts the grid, linearly between pixels."""
    across, down = _lines(place, pictures.shape[-1])
    return _between(down)[:, None] @ pictures @ _between(across).transpose(0, 2, 1)[:, None]


def _lines(place: Floats, side: int) -> tuple[Floats, Floats]:
    """Pixel coordinates of the grid's columns and rows: twice (P, S)."""
    points = place[:, 0::2, None] * _grid(side) + place[:, 1::2, None]
    pixels = (points + 1) * side / 2 - 0.5
    return pixels[:, 0], pixels[:, 1]


def _between(pixel: Floats) -> Floats:
    """Matrices (P, S, S) that take a line of S pixels to its values at S places each."""
    places = np.arange(pixel.shape[-1], dtype=np.float32)
    return np.maximum(1 - np.abs(pixel[:, :, None] - places), 0).astype(np.float32)


def _inside(place: Floats, side: int) -> Floats:
    """1 where the grid lies well within the second picture, else 0: (P, S, S)."""
    across, down = (
        ((line >= _MARGIN) & (line <= side - 1 - _MARGIN)).astype(np.float32) for line in _lines(place, side)
    )
    return down[:, :, None] * across[:, None, :]


def _score(first: NDArray[np.uint8], second: NDArray[np.uint8], place: Floats) -> Floats:
    inside = _inside(place, first.shape[-1])
    count = np.maximum(inside.sum(axis=(1, 2)), 1)

    def centred(values: Floats) -> Floats:
        return (values - ((values * inside).sum(axis=(1, 2)) / count)[:, None, None]) * inside

    a, b = centred(_details(first)), centred(_sampled(_details(second)[:, None], place)[:, 0])
    size = np.sqrt((a * a).sum(axis=(1, 2)) * (b * b).sum(axis=(1, 2)))
    return np.where(size > count * 1e-3, (a * b).sum(axis=(1, 2)) / np.maximum(size, 1e-9), 0).astype(np.float32)
