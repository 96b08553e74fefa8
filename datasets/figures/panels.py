"""Boxes of panels, the tree of cuts that they come from, and the order in which they are read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

__all__ = ["Box", "Layout", "reading_order"]


class Box(NamedTuple):
    """A rectangle in pixels; bottom and right are one past the last pixel."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def height(self) -> int:
        """Rows."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns."""
        return self.right - self.left

    @property
    def area(self) -> int:
        """Pixels."""
        return max(0, self.height) * max(0, self.width)

    def overlap(self, other: Box) -> float:
        """Intersection over union, 0 to 1."""
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        width = min(self.right, other.right) - max(self.left, other.left)
        common = max(0, height) * max(0, width)
        return common / max(1, self.area + other.area - common)

    def around(self, other: Box) -> Box:
        """The least box that holds both."""
        return Box(*(min(a, b) for a, b in zip(self[:2], other[:2])), *(max(a, b) for a, b in zip(self[2:], other[2:])))


@dataclass(frozen=True, slots=True)
class Layout:
    """A region, and how it is cut into two.

    Attributes:
        box: the region without margins, in pixels of the figure.
        gutter: width of the cut's gutter in pixels; 0 for a leaf.
        strong: whether straight edges face the cut.
        children: none or two.
    """

    box: Box
    gutter: float = 0.0
    strong: bool = False
    children: tuple[Layout, ...] = ()

    def leaves(self) -> list[Box]:
        """The panels in reading order."""
        return reading_order(self._leaves())

    def strong_leaves(self) -> list[Box]:
        """The panels if weak cuts are not made."""
        return reading_order(self._leaves(weak=False))

    def panels(self, count: int) -> list[Box]:
        """The panels after the weakest cuts were undone until at most `count` are left, in reading order."""
        layout = self
        while len(layout._leaves()) > count:
            layout = layout._undone(min(layout._last_cuts()))
        return layout.leaves()

    def _leaves(self, *, weak: bool = True) -> list[Box]:
        if not self.children or not (weak or self.strong):
            return [self.box]
        return [box for child in self.children for box in child._leaves(weak=weak)]

    def _last_cuts(self) -> Iterator[tuple[bool, float, Box]]:
        """Strength of the cuts that have only leaves below them."""
        if self.children and not any(child.children for child in self.children):
            yield self.strong, self.gutter, self.box
        for child in self.children:
            yield from child._last_cuts()

    def _undone(self, cut: tuple[bool, float, Box]) -> Layout:
        if (self.strong, self.gutter, self.box) == cut and self.children:
            return Layout(self.box)
        return replace(self, children=tuple(child._undone(cut) for child in self.children))


def reading_order(boxes: list[Box]) -> list[Box]:
    """Rows from above, each from the left. Boxes that share more than half of the lower one's height are one row."""
    left = sorted(boxes)
    ordered: list[Box] = []
    while left:
        first = left[0]
        row = [
            b for b in left if min(b.bottom, first.bottom) - max(b.top, first.top) > 0.5 * min(b.height, first.height)
        ]
        # what stands below another box of this row belongs to a later one, as beside one tall panel
        row = [b for b in row if not any(o.bottom <= b.top + 0.1 * b.height and _share_columns(o, b) for o in row)]
        ordered += sorted(row, key=lambda box: box.left)
        left = [box for box in left if box not in row]
    return ordered


def _share_columns(one: Box, other: Box) -> bool:
    return min(one.right, other.right) - max(one.left, other.left) > 0.3 * min(one.width, other.width)
