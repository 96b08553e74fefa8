"""Whether a picture can be a frontal chest radiograph at all: a coarse check on a thumbnail, not a classifier.

The limits were set on public radiographs so that fewer than 2 in 100 are flagged. Body CT and head CT, colour pictures,
blank and noisy images are mostly caught; a grey photograph or another radiograph may pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Plausibility", "radiograph_check"]

_SIDE = 64
_DARK = 0.08


@dataclass(frozen=True, slots=True)
class Plausibility:
    """`ok`, or the `reason` why an image is not plausibly a frontal radiograph."""

    ok: bool
    reason: str = ""


def radiograph_check(pixels: NDArray[Any]) -> Plausibility:
    """Check an image of shape (H, W) or (H, W, 3): uint8, uint16, or floating in [0, 1].

    The reasons: too small, one grey, colour, noise, black around a body as in CT, no darker lungs beside the middle
    (another view or body part, or greys inverted), one half unlike the other.
    """
    height, width = pixels.shape[:2]
    if min(height, width) < 32 or max(height, width) > 4 * min(height, width):
        return Plausibility(False, f"{width}x{height} pixels: too small or too narrow")
    if pixels.ndim == 3:
        step = max(1, min(height, width) // 128)
        sample = _unit(pixels[::step, ::step])
        if float((sample.max(axis=2) - sample.min(axis=2)).mean()) > 0.04:
            return Plausibility(False, "a picture in colour")
        pixels = pixels[..., 1]
    thumb = _thumbnail(pixels)
    if thumb.std() < 0.04:
        return Plausibility(False, "almost one single grey")
    detail = np.abs(np.diff(thumb, axis=0)).mean() + np.abs(np.diff(thumb, axis=1)).mean()
    if detail > 0.75 * thumb.std():
        return Plausibility(False, "noise or fine detail without shape")
    return _check_body(_without_black_margins(thumb))


def _check_body(body: NDArray[np.float64]) -> Plausibility:
    """Look for what a chest shows: a body up to the lower edges, lungs darker than the middle, two like halves."""
    below, above = ((body[corners] < _DARK).mean() for corners in _corners())
    if (below > 0.7 and above > 0.6) or below > 0.92:
        return Plausibility(False, "black around a body that does not reach the edges, as in CT")
    small = body.reshape(16, 4, 16, 4).mean(axis=(1, 3))
    rows = small[4:10]
    lungs = (rows[:, 3:6].min(axis=1).mean() + rows[:, 10:13].min(axis=1).mean()) / 2
    spread = np.percentile(body, 95) - np.percentile(body, 5) + 1e-6
    if rows[:, 7:9].mean() - lungs < -0.05 * spread or _likeness(small, _lungs()) < -0.33:
        return Plausibility(False, "no lungs darker than the middle: not a frontal chest, or the greys are inverted")
    if _likeness(small, small[:, ::-1]) < -0.2:
        return Plausibility(False, "the left and right half are unlike")
    return Plausibility(True)


@cache
def _corners() -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The lower and the upper corners, outside of the circle that fills the thumbnail."""
    y, x = np.mgrid[:_SIDE, :_SIDE] - (_SIDE - 1) / 2
    outside = x**2 + y**2 > (_SIDE / 2 + 0.5) ** 2
    return outside & (y > 0), outside & (y < 0)


@cache
def _lungs() -> NDArray[np.float64]:
    """A chest in the roughest way, (16, 16): two dark lungs on a brighter ground."""
    y, x = (np.mgrid[:16, :16] + 0.5) / 16
    return -sum(np.exp(-(((x - center) / 0.15) ** 2) - ((y - 0.45) / 0.28) ** 2) for center in (0.27, 0.73))


def _likeness(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Correlation of two arrays' values; 1 for a constant, which gives no sign of a fault."""
    if a.std() == 0 or b.std() == 0:
        return 1.0
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def _unit(pixels: NDArray[Any]) -> NDArray[np.float32]:
    scale = {"uint8": 255.0, "uint16": 65535.0}.get(pixels.dtype.name, 1.0)
    return pixels.astype(np.float32) / np.float32(scale)


def _thumbnail(grey: NDArray[Any]) -> NDArray[np.float64]:
    """The image's block means, (64, 64), in [0, 1]."""
    from PIL import Image

    step = max(1, min(grey.shape) // 512)  # of large images every nth pixel is enough
    values = np.ascontiguousarray(grey[::step, ::step])
    if values.dtype == np.uint8:  # quicker, and a hundredth of a grey does not matter here
        return np.asarray(Image.fromarray(values).resize((_SIDE, _SIDE), Image.Resampling.BOX)) / 255
    small = Image.fromarray(_unit(values)).resize((_SIDE, _SIDE), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float64)


def _without_black_margins(thumb: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cut rows and columns of black at the borders (collimation, padding) and stretch the rest to the same size."""
    lit = thumb > 0.06
    rows, columns = np.flatnonzero(lit.mean(axis=1) > 0.02), np.flatnonzero(lit.mean(axis=0) > 0.02)
    if rows.size < 16 or columns.size < 16:
        return thumb
    i, j = (
        (ends[0] + (np.arange(_SIDE) + 0.5) * (ends[-1] + 1 - ends[0]) / _SIDE).astype(int) for ends in (rows, columns)
    )
    return np.asarray(thumb[np.ix_(i, j)])
