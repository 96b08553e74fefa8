"""Which panel carries which letter: glyphs at one place of every panel, of one size, with the letters expected.

A figure's letters stand at the same place in or beside each panel. So glyphs are grouped by place and size, and the
group is taken that explains most panels with letters all different.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvlp.datasets.figures.glyphs import Glyph
from kvlp.datasets.figures.panels import Box

__all__ = ["LEAST_LIKENESS", "Letters", "assign", "read_letters"]

#: how far from a panel's edge, in its own height or width, a letter inside may stand
_INSIDE = 0.28
#: how far outside, in the glyph's height
_OUTSIDE = 2.2
#: heights of one figure's letters differ as "a" and "b" do
_SAME_SIZE = 1.45
#: less is no letter
LEAST_LIKENESS = 0.3


@dataclass(frozen=True, slots=True)
class Letters:
    """Likeness (N panels, L labels), 0 to 1, of the place that explains the figure best; `place` is "" if none does."""

    scores: NDArray[np.float64]
    place: str

    @property
    def read(self) -> int:
        """How many panels carry a letter of their own."""
        return len(assign(self.scores))


def read_letters(glyphs: Sequence[Glyph], panels: Sequence[Box], labels: Sequence[str]) -> Letters:
    """Find the letters of panels.

    Args:
        glyphs: marks of the figure that may be letters.
        panels: their boxes.
        labels: the letters that the caption names, in lower case.
    """
    entries = [
        (place, glyph.box.height, panel, glyph)
        for glyph in glyphs
        if any(letter in labels for letter in glyph.scores)
        for panel, place in _places(glyph.box, panels)
    ]
    best, name = np.zeros((len(panels), len(labels))), ""
    for place in sorted({entry[0] for entry in entries}):
        here = [entry for entry in entries if entry[0] == place]
        for size in sorted({entry[1] for entry in here}):
            group = [(p, g) for _, height, p, g in here if size <= height <= _SAME_SIZE * size]
            scores = _scores(group, len(panels), labels)
            if _worth(scores) > _worth(best) + 1e-9:
                best, name = scores, place
    return Letters(best, name)


def _scores(group: Sequence[tuple[int, Glyph]], panels: int, labels: Sequence[str]) -> NDArray[np.float64]:
    scores = np.zeros((panels, len(labels)))
    for panel, glyph in group:
        for column, label in enumerate(labels):
            scores[panel, column] = max(scores[panel, column], glyph.scores.get(label, 0.0))
    return scores


def _worth(scores: NDArray[np.float64]) -> float:
    """Likeness of the best assignment, of different letters to different panels."""
    return float(sum(scores[row, column] for row, column in assign(scores)))


def assign(scores: NDArray[np.float64], least: float = LEAST_LIKENESS) -> list[tuple[int, int]]:
    """Return the (row, column) pairs of the one-to-one assignment with the greatest sum of scores from `least` on."""
    rows, columns = np.nonzero(scores >= least)
    if not len(rows):
        return []
    if len(set(rows.tolist())) == len(rows) == len(set(columns.tolist())):
        return list(zip(rows.tolist(), columns.tolist()))
    import networkx as nx

    graph = nx.Graph()
    graph.add_weighted_edges_from(
        (("row", r), ("column", c), float(scores[r, c])) for r, c in zip(rows.tolist(), columns.tolist())
    )
    pairs = (sorted(pair, reverse=True) for pair in nx.max_weight_matching(graph))
    return sorted((row[1], column[1]) for row, column in pairs)


def _places(glyph: Box, panels: Sequence[Box]) -> Iterator[tuple[int, str]]:
    """Panels that a glyph may belong to, each with its place there."""
    middle = ((glyph.top + glyph.bottom) / 2, (glyph.left + glyph.right) / 2)
    for number, panel in enumerate(panels):
        reach = _OUTSIDE * glyph.height
        if glyph.height > 0.3 * panel.height:
            continue
        across = _zone(middle[1], panel.left, panel.right, reach)
        down = _zone(middle[0], panel.top, panel.bottom, reach)
        if across and down and (across, down) != ("middle", "middle"):
            yield number, f"{down} {across}"


def _zone(at: float, low: int, high: int, reach: float) -> str:
    """Where a position lies along one side of a panel; "" if it is not at the panel."""
    if at < low - reach or at > high + reach:
        return ""
    if at < low:
        return "before"
    if at > high:
        return "behind"
    share = (at - low) / max(1, high - low)
    return "first" if share < _INSIDE else "last" if share > 1 - _INSIDE else "middle"
