"""Single letters in a picture, read by comparison with rendered ones: no engine, no model, A to Z in either case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from string import ascii_lowercase

import numpy as np
from numpy.typing import NDArray

from kvlp.datasets.figures.components import Components, find_components
from kvlp.datasets.figures.fonts import font
from kvlp.datasets.figures.panels import Box

__all__ = ["Glyph", "find_glyphs"]

#: fonts of both kinds, thin and bold, that the usual ones of figures (Arial, Helvetica, Times) come close to
_TEMPLATE_FONTS = ("", "DejaVuSans.ttf", "DejaVuSans-Bold.ttf", "STIXGeneral.ttf", "STIXGeneralBol.ttf")
_SIDE = 20
#: dark letters lie below the first two, light ones above the others
_DARK, _LIGHT = (70, 130), (185, 235)
_LEAST_HEIGHT, _MOST_HEIGHT = 8, 0.13
_FEWEST, _MOST = 0.12, 0.97
#: likeness that is none, and that is perfect
_NOTHING, _PERFECT = 0.62, 0.93


@dataclass(frozen=True, slots=True)
class Glyph:
    """A mark that may be a letter: where it is, and letter in lower case -> likeness, 0 to 1."""

    box: Box
    scores: Mapping[str, float]


def find_glyphs(grey: NDArray[np.uint8], *, most: float = _MOST_HEIGHT) -> list[Glyph]:
    """Return the separate marks of a grey picture (H, W) that look like a letter.

    Args:
        grey: the picture.
        most: greatest height of a letter as a share of the picture's shorter side.
    """
    highest = max(2 * _LEAST_HEIGHT, most * min(grey.shape))
    found: dict[tuple[int, ...], Glyph] = {}
    for mask in (*(grey < level for level in _DARK), *(grey > level for level in _LIGHT)):
        parts = find_components(mask)
        for index in _candidates(parts, highest):
            scores = _likeness(_patch(parts, index))
            if scores:
                box = Box(*(int(side) for side in parts.boxes[index]))
                key = tuple(side // 3 for side in box)
                if key not in found or max(found[key].scores.values()) < max(scores.values()):
                    found[key] = Glyph(box, scores)
    return list(found.values())


def _candidates(parts: Components, highest: float) -> list[int]:
    """Components of a letter's size and shape that stand alone: not in a word, not full or nearly empty boxes."""
    tall = parts.boxes[:, 2] - parts.boxes[:, 0]
    wide = parts.boxes[:, 3] - parts.boxes[:, 1]
    fill = parts.areas / np.maximum(1, tall * wide)
    sized = (tall >= _LEAST_HEIGHT) & (tall <= highest) & (wide >= 0.12 * tall) & (wide <= 1.5 * tall)
    sized &= (fill > _FEWEST) & ((fill < _MOST) | (wide < 0.4 * tall))
    beside = np.flatnonzero(sized & (wide > 0.4 * tall))
    return [int(index) for index in np.flatnonzero(sized) if not _in_word(parts.boxes, int(index), beside)]


def _in_word(boxes: NDArray[np.int64], index: int, others: NDArray[np.int64]) -> bool:
    """Whether another letter-sized mark stands right beside one on its line. Brackets and stops are narrower."""
    top, left, bottom, right = boxes[index]
    height = bottom - top
    near = boxes[others[others != index]]
    level = (np.minimum(near[:, 2], bottom) - np.maximum(near[:, 0], top)) > 0.5 * height
    alike = (near[:, 2] - near[:, 0]) < 1.6 * height
    gap = np.maximum(near[:, 1] - right, left - near[:, 3])
    return bool((level & alike & (gap < 0.45 * height) & (gap > -0.2 * height)).any())


def _patch(parts: Components, index: int) -> NDArray[np.float32]:
    """A component on its own, as floats of 0 and 1."""
    top, left, bottom, right = parts.boxes[index]
    runs = parts.runs[parts.runs[:, 3] == index]
    patch = np.zeros((bottom - top, right - left), np.float32)
    for row, start, end, _ in runs:
        patch[row - top, start - left : end - left] = 1
    return patch


def _likeness(patch: NDArray[np.float32]) -> dict[str, float]:
    """Letter -> likeness of those that come near, and near the best."""
    letters, templates, shapes = _templates()
    raw = templates @ _normal(patch)
    raw = raw - 0.35 * np.abs(shapes - np.log(patch.shape[1] / patch.shape[0]))
    best: dict[str, float] = {}
    for letter, value in zip(letters, raw.tolist()):
        best[letter] = max(best.get(letter, -1.0), value)
    top = max(best.values())
    near = {letter: value for letter, value in best.items() if value > max(_NOTHING, top - 0.08)}
    return {
        letter: min(1.0, (value - _NOTHING) / (_PERFECT - _NOTHING)) * (1.0 - (top - value) / 0.1)
        for letter, value in near.items()
    }


@cache
def _templates() -> tuple[tuple[str, ...], NDArray[np.float32], NDArray[np.float64]]:
    """Letters, their unit vectors and the logarithms of width over height, for each font and case."""
    letters, rows, shapes = [], [], []
    for name in _TEMPLATE_FONTS:
        for letter in ascii_lowercase:
            for shown in (letter, letter.upper()):
                patch = _rendered(name, shown)
                letters.append(letter)
                rows.append(_normal(patch))
                shapes.append(np.log(patch.shape[1] / patch.shape[0]))
    return tuple(letters), np.stack(rows), np.array(shapes)


def _rendered(name: str, text: str) -> NDArray[np.float32]:
    """A glyph's largest connected part: the dot of an i is a mark of its own."""
    from PIL import Image, ImageDraw

    image = Image.new("L", (120, 120), 0)
    ImageDraw.Draw(image).text((20, 10), text, font=font(name, 64), fill=255)
    parts = find_components(np.asarray(image) > 127)
    return _patch(parts, int(parts.areas.argmax()))


def _normal(patch: NDArray[np.float32]) -> NDArray[np.float32]:
    """A patch on a square grid, slightly blurred, without its mean and of length 1."""
    from PIL import Image

    image = Image.fromarray((patch * 255).astype(np.uint8)).resize((_SIDE, _SIDE), Image.Resampling.BOX)
    padded = np.pad(np.asarray(image, dtype=np.float32), 1)
    blurred = sum(np.roll(padded, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1))
    vector = np.asarray(blurred).ravel()
    vector = vector - vector.mean()
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-6), dtype=np.float32)
