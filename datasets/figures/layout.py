"""The layout of a compound figure: recursive cuts along gutters, kept as a tree so that a caption can choose the depth.

A gutter is a run of rows or columns of one ground (white, black, one flat colour) from edge to edge of a region, with
something of a panel's size on both sides. A cut is strong if straight edges face the gutter on both sides, as pictures
have them; the space between two legs in one radiograph has none, so that such a cut is weak and only made where the
caption asks for more panels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvlp.datasets.figures.grounds import Ground, find_grounds
from kvlp.datasets.figures.panels import Box, Layout

__all__ = ["Canvas", "find_layout"]

_LONGEST = 1600
_MAX_LEAVES = 64
_MAX_DEPTH = 12
#: of a gutter's length: content that noise may leave in one of its lines
_NOISE = 0.01
_STRAIGHT = 0.6
#: a picture fills its box; a drawing on the ground does not
_FILLED = 0.55
_FLAT_SPREAD = 6.0
_NOT_WHITE = 240
#: pixels that a drawn line is thick at most
_LINE = 4
#: pixels that a frame around a whole figure may be thick
_FRAME = 9


@dataclass(frozen=True, slots=True)
class _Cut:
    axis: int
    start: int
    end: int
    straight: tuple[float, float]
    ground: Ground

    @property
    def strong(self) -> bool:
        return min(self.straight) >= _STRAIGHT

    @property
    def width(self) -> int:
        return self.end - self.start


class Canvas:
    """A figure (H, W, 3) uint8 made ready to be cut in more than one way."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.shape = pixels.shape
        self.factor = -(-max(pixels.shape[:2]) // _LONGEST)
        self.pixels = _reduced(pixels, self.factor)
        self.grounds = find_grounds(self.pixels)

    def layout(self, *, prefer: int | None = None, eager: bool = False) -> Layout:
        """Cut into panels.

        Args:
            prefer: cut between rows (0) or columns (1) first where both are possible; None takes the widest gutter.
            eager: also accept thinner gutters and smaller panels; for a caption that names more panels than were found.
        """
        cutter = _Cutter(self.pixels, self.grounds, prefer, eager=eager)
        layout = cutter.layout(Box(0, 0, *self.pixels.shape[:2]), 0)
        if not _is_plausible(self.pixels, layout._leaves()):
            layout = Layout(layout.box)
        return _scaled(layout, self.factor, self.shape)


def find_layout(pixels: NDArray[np.uint8]) -> Layout:
    """Cut a figure (H, W, 3) uint8 into panels, the widest gutter first."""
    return Canvas(pixels).layout()


class _Cutter:
    """Recursive cuts of one picture."""

    def __init__(self, pixels: NDArray[np.uint8], grounds: list[Ground], prefer: int | None, *, eager: bool) -> None:
        self.pixels, self.grounds, self.prefer = pixels, grounds, prefer
        self.tiled: set[Box] = set()
        height, width = pixels.shape[:2]
        self.least = max(16 if eager else 24, round((0.05 if eager else 0.08) * min(height, width)))
        self.least_area = (0.004 if eager else 0.012) * height * width
        self.thinnest = 1 if eager else 2

    def layout(self, region: Box, depth: int) -> Layout:
        """The tree below a region."""
        box, grounds = self.trimmed(region)
        cut = self.best_cut(box, frame=depth == 0) if depth < _MAX_DEPTH and box.area else None
        if cut is None:
            return Layout(self.with_lettering(box, region, grounds))
        before, behind = self.sides(region, cut)
        children = (self.layout(before, depth + 1), self.layout(behind, depth + 1))
        around = children[0].box.around(children[1].box)
        flat = [not child.children and self.is_flat(child.box) for child in children]
        if any(flat):  # bars and tiles are no panels; what is all tiles is one itself
            if all(flat) and self.fill(around) > _FILLED:
                self.tiled.add(around)
            return Layout(self.with_lettering(box, region, grounds) if not all(flat) else around)
        return Layout(around, float(cut.width), cut.strong, children)

    def best_cut(self, box: Box, *, frame: bool) -> _Cut | None:
        """The cut to make first: strong ones, then the preferred axis, then the widest gutter."""
        cuts = list(self.cuts(box))
        if frame and not cuts and self.is_framed(box):
            cuts = list(self.cuts(_shrunk(box, _FRAME)))
        key = lambda cut: (cut.strong, cut.axis == self.prefer, cut.width)  # noqa: E731
        return max(cuts, key=key, default=None)

    def is_framed(self, box: Box) -> bool:
        """Whether a line runs all around a figure: it would cross every gutter."""
        return all(
            _edge_share(g, box, axis, end) > 0.95 for g in self.grounds if g.name == "white" for axis, end in _SIDES
        )

    def cuts(self, box: Box) -> Iterator[_Cut]:
        for ground in self.grounds:
            for axis in (0, 1):
                for start, end in self.gutters(ground, box, axis):
                    straight = self.straightness(ground, box, axis, start, end)
                    if straight is not None:
                        yield _Cut(axis, start, end, straight, ground)

    def gutters(self, ground: Ground, box: Box, axis: int) -> Iterator[tuple[int, int]]:
        """Runs of lines that hold next to nothing and that no mark crosses."""
        profile = ground.profile(box, axis)
        length = box.width if axis == 0 else box.height
        empty = profile <= _NOISE * length
        offset = box.top if axis == 0 else box.left
        for start, end in _true_runs(empty):
            if start == 0 or end == len(empty) or end - start < self.thinnest:
                continue
            if profile[start:end].any() and self.is_crossed(ground, box, axis, start, end):
                continue
            yield offset + start, offset + end

    def is_crossed(self, ground: Ground, box: Box, axis: int, start: int, end: int) -> bool:
        """Whether a mark, such as the axis of a plot, runs through a gutter from side to side."""
        if axis == 0:
            part = ground.content[box.top + start : box.top + end, box.left : box.right]
        else:
            part = ground.content[box.top : box.bottom, box.left + start : box.left + end]
        return bool((part.mean(axis=axis) > 0.9).any())

    def straightness(self, ground: Ground, box: Box, axis: int, start: int, end: int) -> tuple[float, float] | None:
        """The shares of content along the edges that face a gutter; None if a side is too small for a panel."""
        shares = []
        for side, edge in ((0, start), (1, end)):
            half = _half(box, axis, side, edge)
            content = self.content_box(ground, half)
            if content is None or min(content.height, content.width) < self.least or content.area < self.least_area:
                return None
            if max(content.height, content.width) > 14 * min(content.height, content.width):
                return None
            shares.append(_edge_share(ground, content, axis, 1 - side))
        return shares[0], shares[1]

    def is_flat(self, box: Box) -> bool:
        """Whether a box has one tone, as a chart's bar and a heat map's tile have, or is made of such tiles."""
        return box in self.tiled or _spread(self.pixels, box) < _FLAT_SPREAD

    def fill(self, box: Box) -> float:
        """The share of a box that is not white."""
        low = self.pixels[box.top : box.bottom, box.left : box.right].min(axis=2)
        return float((low < _NOT_WHITE).mean())

    def content_box(self, ground: Ground, box: Box) -> Box | None:
        """The part of a box that holds content."""
        rows = np.flatnonzero(ground.profile(box, 0) > _NOISE * box.width * 0.3)
        columns = np.flatnonzero(ground.profile(box, 1) > _NOISE * box.height * 0.3)
        if not len(rows) or not len(columns):
            return None
        return Box(box.top + rows[0], box.left + columns[0], box.top + rows[-1] + 1, box.left + columns[-1] + 1)

    def sides(self, region: Box, cut: _Cut) -> tuple[Box, Box]:
        """The regions beside a cut: parted where no lettering stands, and at straight edges if the ground is black.

        Black also surrounds what a dark picture shows, so that without an edge its true border is a guess.
        """
        if cut.ground.name != "black":
            before = behind = self.parting(region, cut)
        else:
            first, second = (share >= _STRAIGHT for share in cut.straight)
            near = min(cut.width, max(_LINE, cut.width // 4))
            middle = (cut.start + cut.end) // 2
            before = cut.start if first else cut.end - near if second else middle
            behind = cut.end if second else cut.start + near if first else middle
        return _half(region, cut.axis, 0, before), _half(region, cut.axis, 1, behind)

    def parting(self, region: Box, cut: _Cut) -> int:
        """The middle of the widest part of a gutter that holds no lettering either."""
        gutter = _half(_half(region, cut.axis, 1, cut.start), cut.axis, 0, cut.end)
        part = cut.ground.everything[gutter.top : gutter.bottom, gutter.left : gutter.right]
        runs = list(_true_runs(part.mean(axis=1 - cut.axis) <= _NOISE))
        start, end = max(runs, key=lambda run: run[1] - run[0], default=(0, cut.width))
        return cut.start + (start + end) // 2

    def trimmed(self, region: Box) -> tuple[Box, list[str]]:
        """A region without its margins, and the ground that went at each side ("" for none).

        Each side loses one ground: inside a white drawing on grey, white is its own. A black margin goes only where a
        straight edge follows it and it is broader than the axis of a plot, for air is black too.
        """
        box, names = list(region), [""] * 4
        for ground in self.grounds:
            content = self.content_box(ground, region)
            if content is None:
                continue
            for side, (axis, end) in enumerate(_SIDES):
                margin = abs(content[side] - region[side])
                if ground.name == "black" and (margin <= _LINE or _edge_share(ground, content, axis, end) < _STRAIGHT):
                    continue
                if margin > abs(box[side] - region[side]):
                    box[side], names[side] = content[side], ground.name
        return Box(*box), names

    def with_lettering(self, box: Box, region: Box, grounds: list[str]) -> Box:
        """A drawing keeps its tick labels and words; a picture, which fills its box, has none of its own outside."""
        if "white" not in grounds:
            return box
        white = next((ground for ground in self.grounds if ground.name == "white"), None)
        if white is None or not box.area or white.content[box.top : box.bottom, box.left : box.right].mean() > _FILLED:
            return box
        down, across = box.height // 5, box.width // 5
        reach = (-down, -across, down, across)
        wide = (b + r if name == "white" else b for b, r, name in zip(box, reach, grounds))
        top, left, bottom, right = (min(max(w, region[n % 2]), region[2 + n % 2]) for n, w in enumerate(wide))
        part = white.everything[top:bottom, left:right]
        rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
        return Box(top + rows[0], left + columns[0], top + rows[-1] + 1, left + columns[-1] + 1) if len(rows) else box


#: top, left, bottom, right of a box as (axis, end)
_SIDES = ((0, 0), (1, 0), (0, 1), (1, 1))


def _edge_share(ground: Ground, content: Box, axis: int, end: int) -> float:
    """How much of a content box's first (end 0) or last (1) lines along an axis is content, 0 to 1."""
    depth = 3
    if axis == 0:
        rows = slice(content.top, content.top + depth) if end == 0 else slice(content.bottom - depth, content.bottom)
        return float(ground.content[rows, content.left : content.right].any(axis=0).mean())
    columns = slice(content.left, content.left + depth) if end == 0 else slice(content.right - depth, content.right)
    return float(ground.content[content.top : content.bottom, columns].any(axis=1).mean())


def _half(box: Box, axis: int, side: int, edge: int) -> Box:
    if axis == 0:
        return box._replace(bottom=edge) if side == 0 else box._replace(top=edge)
    return box._replace(right=edge) if side == 0 else box._replace(left=edge)


def _shrunk(box: Box, by: int) -> Box:
    """A box without a frame of some pixels, which would cross every gutter."""
    return Box(box.top + by, box.left + by, max(box.top + by, box.bottom - by), max(box.left + by, box.right - by))


def _true_runs(flags: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    change = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(np.int8), [0]])))
    yield from zip(change[::2].tolist(), change[1::2].tolist())


def _is_plausible(pixels: NDArray[np.uint8], leaves: list[Box]) -> bool:
    """Whether cuts made panels: many flat tiles are one chart or table, and nobody letters that many panels."""
    if len(leaves) > _MAX_LEAVES:
        return False
    flat = [_spread(pixels, box) < _FLAT_SPREAD for box in leaves if box.area]
    return len(flat) < 3 or sum(flat) < 0.5 * len(flat)


def _spread(pixels: NDArray[np.uint8], box: Box) -> float:
    """Standard deviation of the colour that varies most, inside a box."""
    return float(pixels[_inner(box)].std(axis=(0, 1)).max())


def _inner(box: Box) -> tuple[slice, slice]:
    down, across = box.height // 10, box.width // 10
    return slice(box.top + down, box.bottom - down), slice(box.left + across, box.right - across)


def _reduced(pixels: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    if factor <= 1:
        return pixels
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).reduce(factor))


def _scaled(layout: Layout, factor: int, shape: tuple[int, ...]) -> Layout:
    box = Box(*(int(side) * factor for side in layout.box))
    fitted = Box(box.top, box.left, min(box.bottom, shape[0]), min(box.right, shape[1]))
    children = tuple(_scaled(child, factor, shape) for child in layout.children)
    return Layout(fitted, layout.gutter * factor, layout.strong, children)
