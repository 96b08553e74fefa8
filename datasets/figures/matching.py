"""Panels and sub-captions of one figure brought together, each pair with a confidence and the way it was found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvlp.datasets.figures.captions import SplitCaption, SubCaption
from kvlp.datasets.figures.glyphs import Glyph, find_glyphs
from kvlp.datasets.figures.layout import Canvas
from kvlp.datasets.figures.letters import LEAST_LIKENESS, Letters, assign, read_letters
from kvlp.datasets.figures.ocr import Engine, read_with
from kvlp.datasets.figures.panels import Box, Layout

__all__ = ["CONFIDENCE", "FigureMatch", "PanelMatch", "match_panels"]

#: how a pair was found -> how often such pairs are right on planted figures (docs/figures_captions.md); places and the
#: order of files are not planted there, their numbers are guesses
CONFIDENCE = {"letter": 0.97, "order": 0.95, "place": 0.9, "letter only": 0.5, "order of files": 0.8, "whole": 1.0}
_LONGEST = 1400
#: what agreement with the reading order counts beside a letter that was read (0 to 1)
_ORDER_WEIGHT = 0.25
#: summed likeness by which another order must beat that along the rows: one misread letter is not enough
_COLUMNS_NEED, _OTHERS_NEED = 0.8, 1.3
_PLACES = {"top": (0.0, None), "bottom": (1.0, None), "left": (None, 0.0), "right": (None, 1.0), "middle": (0.5, 0.5)}


@dataclass(frozen=True, slots=True)
class PanelMatch:
    """One panel with what its caption says of it.

    Attributes:
        box: in pixels of the figure.
        part: label and texts.
        how: a key of CONFIDENCE.
        confidence: 0 to 1.
    """

    box: Box
    part: SubCaption
    how: str
    confidence: float


@dataclass(frozen=True, slots=True)
class FigureMatch:
    """What became of one figure; `problem` says why it was not taken apart though its caption names panels."""

    matches: tuple[PanelMatch, ...]
    panels: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class _Candidate:
    """One way to cut a figure, with the letters read in it."""

    boxes: list[Box]
    letters: Letters
    eager: bool
    merged: bool

    def worth(self, count: int) -> tuple[bool, float, bool, bool]:
        """The right number of panels first, then letters read, then plain cuts before eager ones and mergers."""
        read = sum(float(self.letters.scores[r, c]) for r, c in assign(self.letters.scores))
        return len(self.boxes) == count, round(read, 1), not self.eager, not self.merged


def match_panels(pixels: NDArray[np.uint8], caption: SplitCaption, engine: Engine | None = None) -> FigureMatch:
    """Bring the panels of a figure and the parts of its caption together.

    Args:
        pixels: the figure, (H, W, 3) uint8.
        caption: taken apart; without parts the whole figure is one match with the whole caption.
        engine: an OCR engine that reads letters beside the comparison with rendered ones.
    """
    whole = Box(0, 0, *pixels.shape[:2])
    if not caption.parts:
        return FigureMatch((_match(whole, SubCaption("", caption.text, caption.text), "whole"),), 1)
    if " " in caption.labels[0] or caption.labels[0] in _PLACES:
        return _by_place(pixels, caption.parts)
    candidates = list(_candidates(pixels, caption.labels, engine))
    best = max(candidates, key=lambda candidate: candidate.worth(len(caption.parts)))
    return _by_letters(best, caption.parts)


def _candidates(pixels: NDArray[np.uint8], labels: Sequence[str], engine: Engine | None) -> Iterator[_Candidate]:
    """Ways to cut the figure: widest gutter, rows or columns first, each merged to the number of labels."""
    canvas = Canvas(pixels)
    glyphs: list[Glyph] | None = None
    seen: dict[tuple[Box, ...], None] = {}
    for eager in (False, True):
        for prefer in (None, 0, 1):
            layout = canvas.layout(prefer=prefer, eager=eager)
            for boxes, merged in _sizes(layout, len(labels)):
                if tuple(boxes) in seen:
                    continue
                seen[tuple(boxes)] = None
                glyphs = _glyphs(pixels, engine) if glyphs is None else glyphs
                yield _Candidate(boxes, read_letters(glyphs, boxes, labels), eager, merged)
            if len(layout.leaves()) == len(labels):
                return
        if any(len(boxes) == len(labels) for boxes in seen):
            return


def _sizes(layout: Layout, count: int) -> Iterator[tuple[list[Box], bool]]:
    leaves = layout.leaves()
    yield leaves, False
    if len(leaves) > count:
        yield layout.panels(count), True


def _glyphs(pixels: NDArray[np.uint8], engine: Engine | None) -> list[Glyph]:
    """Marks that may be letters, in pixels of the figure, of both readers."""
    from PIL import Image

    image = Image.fromarray(pixels).convert("L")
    factor = max(1, -(-max(image.size) // _LONGEST))
    grey = np.asarray(image.reduce(factor) if factor > 1 else image)
    found = find_glyphs(grey) + (read_with(engine, grey) if engine else [])
    return [Glyph(Box(*(side * factor for side in glyph.box)), glyph.scores) for glyph in found]


def _by_letters(found: _Candidate, parts: Sequence[SubCaption]) -> FigureMatch:
    """Letters decide where they were read, the reading order elsewhere; of another number of panels, letters alone."""
    boxes, count = found.boxes, len(parts)
    if len(boxes) != count:
        pairs = assign(found.letters.scores, 0.6) if len(boxes) > 1 else []
        matches = tuple(_match(boxes[r], parts[c], "letter only") for r, c in pairs)
        return FigureMatch(matches, len(boxes), f"the caption names {count} panels, {len(boxes)} were found")
    scores = found.letters.scores
    columns = _most_likely(scores, boxes)
    ways = ["letter" if scores[row, column] >= LEAST_LIKENESS else "order" for row, column in enumerate(columns)]
    return FigureMatch(tuple(_match(b, parts[c], way) for b, c, way in zip(boxes, columns, ways)), count)


def _most_likely(scores: NDArray[np.float64], boxes: Sequence[Box]) -> list[int]:
    """The label of each panel: along the rows, unless letters speak clearly for down the columns or another order."""
    rows = list(range(len(boxes)))
    down = sorted(rows, key=lambda row: (boxes[row].left, boxes[row].top))
    free = dict(assign(scores + _ORDER_WEIGHT * np.eye(len(rows)) + 1e-3, 0.0))
    orders = [
        (rows, 0.0),
        ([down.index(row) for row in rows], _COLUMNS_NEED),
        ([free[row] for row in rows], _OTHERS_NEED),
    ]
    return max(orders, key=lambda order: float(scores[rows, order[0]].sum()) - order[1])[0]


def _by_place(pixels: NDArray[np.uint8], parts: Sequence[SubCaption]) -> FigureMatch:
    """Panels by where they lie, for captions that say left, right, top and bottom."""
    labels = [part.label.split() for part in parts]
    rows = any(word in ("top", "bottom") for label in labels for word in label)
    columns = any(word in ("left", "right") for label in labels for word in label)
    prefer = None if rows and columns else 0 if rows else 1
    canvas = Canvas(pixels)
    for eager in (False, True):
        boxes = canvas.layout(prefer=prefer, eager=eager).panels(len(parts))
        if len(boxes) == len(parts):
            scores = np.array([[_nearness(box, label, pixels.shape) for label in labels] for box in boxes])
            return FigureMatch(tuple(_match(boxes[r], parts[c], "place") for r, c in assign(scores, 0.0)), len(boxes))
    return FigureMatch((), len(boxes), f"the caption names {len(parts)} panels by place, {len(boxes)} were found")


def _nearness(box: Box, label: Sequence[str], shape: tuple[int, ...]) -> float:
    """2 at the place that a label names, less away from it."""
    down, across = (box.top + box.bottom) / 2 / shape[0], (box.left + box.right) / 2 / shape[1]
    away = 0.0
    for word in label:
        row, column = _PLACES[word]
        if word == "middle":
            away += abs(down - 0.5) + abs(across - 0.5)
        else:
            away += abs(down - row) if row is not None else abs(across - (column or 0.0))
    return 2.0 - away


def _match(box: Box, part: SubCaption, how: str) -> PanelMatch:
    return PanelMatch(box, part, how, CONFIDENCE[how])
