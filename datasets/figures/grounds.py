"""What may lie between panels: white, black or one flat colour, each with the mask of all that is not it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kvlp.datasets.figures.components import find_components

__all__ = ["Ground", "find_grounds"]

#: how far a value may be from the ground's: JPEG rings beside edges
_TOLERANCE = {"white": 42, "black": 30, "flat": 22}
#: of the figure's shorter side: the height up to which a separate mark counts as lettering
_LETTERING = 0.055
_MIN_LETTERING = 14


@dataclass(frozen=True)
class Ground:
    """One ground. `everything` (H, W) is what is not of its colour, `content` the same without lettering."""

    name: str
    everything: NDArray[np.bool_]
    content: NDArray[np.bool_]

    @cached_property
    def along_rows(self) -> NDArray[np.int32]:
        """(H, W + 1): content in a row left of a column."""
        return np.pad(np.cumsum(self.content, axis=1, dtype=np.int32), ((0, 0), (1, 0)))

    @cached_property
    def along_columns(self) -> NDArray[np.int32]:
        """(H + 1, W): content in a column above a row."""
        return np.pad(np.cumsum(self.content, axis=0, dtype=np.int32), ((1, 0), (0, 0)))

    def profile(self, box: tuple[int, int, int, int], axis: int) -> NDArray[np.int32]:
        """Content in each row (axis 0) or column (axis 1) of a box (top, left, bottom, right)."""
        top, left, bottom, right = box
        if axis == 0:
            return self.along_rows[top:bottom, right] - self.along_rows[top:bottom, left]
        return self.along_columns[bottom, left:right] - self.along_columns[top, left:right]


def find_grounds(pixels: NDArray[np.uint8]) -> list[Ground]:
    """Return the grounds that occur in an image (H, W, 3): white, black, and a flat colour of full lines."""
    low, high = pixels.min(axis=2), pixels.max(axis=2)
    grounds = [
        _ground("white", low < 255 - _TOLERANCE["white"]),
        _ground("black", high > _TOLERANCE["black"]),
    ]
    colour = _flat_colour(pixels)
    if colour is not None:
        far = np.abs(pixels.astype(np.int16) - colour).max(axis=2) > _TOLERANCE["flat"]
        grounds.append(_ground("flat", far))
    return [ground for ground in grounds if not ground.everything.all()]


def _ground(name: str, everything: NDArray[np.bool_]) -> Ground:
    return Ground(name, everything, _without_lettering(everything))


def _without_lettering(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Leave out small marks: letters, words, tick labels, specks of noise."""
    found = find_components(mask)
    height = max(_MIN_LETTERING, round(_LETTERING * min(mask.shape)))
    tall = found.boxes[:, 2] - found.boxes[:, 0]
    wide = found.boxes[:, 3] - found.boxes[:, 1]
    small = (tall <= height) & (wide <= height * 1.6)
    words = (tall <= 0.7 * height) & (wide <= 0.18 * mask.shape[1])
    upright = (wide <= 0.7 * height) & (tall <= 0.12 * mask.shape[0]) & (found.areas > 0.25 * tall * wide)
    return found.mask(~(small | words | upright), (mask.shape[0], mask.shape[1]))


def _flat_colour(pixels: NDArray[np.uint8]) -> NDArray[np.int16] | None:
    """The colour of lines that run flat through the whole picture and are neither white nor black.

    Very flat lines first; lines that JPEG disturbed count if they are grey, for dim parts of photographs are as even.
    """
    for spread, neutral in ((3, False), (18, True)):
        lines = np.concatenate([_flat_lines(pixels, axis, spread) for axis in (0, 1)])
        lines = lines[(lines.max(axis=1) > 2 * _TOLERANCE["black"]) & (lines.min(axis=1) < 255 - _TOLERANCE["white"])]
        lines = lines[np.ptp(lines, axis=1) < 10] if neutral else lines
        if len(lines) >= 2:
            shades, counts = np.unique(np.rint(lines / 6), axis=0, return_counts=True)
            near = np.abs(lines / 6 - shades[counts.argmax()]).max(axis=1) < 1
            return np.asarray(np.median(lines[near], axis=0), dtype=np.int16)
    return None


def _flat_lines(pixels: NDArray[np.uint8], axis: int, spread: int) -> NDArray[np.float64]:
    """The middle colours (N, 3) of rows (axis 0) or columns (axis 1) that keep to one colour within `spread`."""
    middle = np.median(pixels, axis=1 - axis, keepdims=True)
    away = np.abs(pixels.astype(np.int16) - middle).max(axis=2) > spread
    return np.asarray(np.squeeze(middle, axis=1 - axis)[away.mean(axis=1 - axis) < 0.02])
