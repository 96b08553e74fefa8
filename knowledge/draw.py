"""A picture of a concept's neighbourhood: above it what it is a kind of, below its kinds, at its sides the rest.

Lengths are in inches. What a relation says of the concept stands at the right, what is said of it at the left.
"""

from __future__ import annotations

import textwrap
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from kvlp.errors import KnowledgeError
from kvlp.knowledge.graph import Concept, KnowledgeGraph
from kvlp.knowledge.neighbourhood import Group, neighbourhood
from kvlp.typing import PathLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_neighbourhood"]

_SUFFIXES = (".png", ".svg", ".pdf")
#: semantic type -> fill and line; types that are not here get the later pairs in the order of their names
_COLOURS = {
    "finding": ("#dbeafe", "#1d4ed8"),
    "disease": ("#fee2e2", "#b91c1c"),
    "anatomy": ("#dcfce7", "#15803d"),
    "symptom": ("#fef3c7", "#b45309"),
    "device": ("#ede9fe", "#6d28d9"),
    "descriptor": ("#ccfbf1", "#0f766e"),
    "normal": ("#ecfccb", "#4d7c0f"),
}
_OTHERS = (("#fce7f3", "#be185d"), ("#ffedd5", "#c2410c"), ("#e0f2fe", "#0369a1"), ("#e5e7eb", "#374151"))
_PLAIN = ("#ffffff", "#94a3b8")
_LINE_COLOUR, _TEXT = "#64748b", "#0f172a"
_Colours: TypeAlias = dict[str, tuple[str, str]]
_NOTE: dict[str, Any] = {"color": _LINE_COLOUR, "fontsize": 8, "style": "italic", "parse_math": False}
_WIDTH, _LINE, _PAD, _GAP, _AISLE = 2.2, 0.165, 0.11, 0.14, 0.95
_WRAP, _MAX_LINES, _ROW = 26, 3, 4


@dataclass(frozen=True, slots=True)
class _Box:
    """A text in a frame: its middle, its size and its colours."""

    text: str
    x: float
    y: float
    height: float
    colours: tuple[str, str]
    width: float = _WIDTH
    dashed: bool = False
    bold: bool = False


def draw_neighbourhood(graph: KnowledgeGraph, concept: str, path: PathLike, *, limit: int = 8) -> Path:
    """Draw a concept and its neighbours; return the file.

    Args:
        graph: the graph.
        concept: an id, a source id or any surface.
        path: .png, .svg or .pdf.
        limit: how many boxes each relation has; if it has more neighbours the last one says "+n more".

    Raises:
        KnowledgeError: no such concept, or another kind of file.
    """
    target = Path(path)
    if target.suffix.lower() not in _SUFFIXES:
        raise KnowledgeError(f"{target}: a picture ends in {', '.join(_SUFFIXES)}, got '{target.suffix}'")
    middle = graph.concept(concept)
    groups = neighbourhood(graph, middle.id, limit=limit)
    target.parent.mkdir(parents=True, exist_ok=True)
    from matplotlib import rc_context

    # text stays text in SVG, and the same graph gives the same file
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "kvlp"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        _save(graph, middle, groups, target)
    return target


def _save(graph: KnowledgeGraph, middle: Concept, groups: Sequence[Group], target: Path) -> None:
    from matplotlib.figure import Figure

    colours = _palette([middle, *(c for g in groups for c in g.concepts)])
    figure = Figure(dpi=150)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    centre = _centre(middle, colours)
    beside = [g for g in groups if g.type != "is_a"]
    boxes = [
        *_column(axes, centre, [g for g in beside if g.out], 1, colours),
        *_column(axes, centre, [g for g in beside if not g.out], -1, colours),
    ]
    reach = max([centre.height / 2, *(abs(box.y) + box.height / 2 for box in boxes)])
    for group in groups:
        if group.type == "is_a":
            boxes += _rows(axes, centre, reach, group, colours)
    for box in (centre, *boxes):
        _draw(axes, box)
    figure.set_size_inches(*_frame(axes, [centre, *boxes], graph.name, colours))
    undated = {"Date": None} if target.suffix.lower() == ".svg" else None
    figure.savefig(target, metadata=undated, facecolor="white")


def _palette(concepts: Iterable[Concept]) -> dict[str, tuple[str, str]]:
    """Main semantic type -> colours, in the order in which the types come."""
    types = list(dict.fromkeys(c.semantic_types[0] for c in concepts if c.semantic_types))
    free = iter(_OTHERS)
    return {t: _COLOURS.get(t) or next(free, _PLAIN) for t in types}


def _wrapped(text: str, width: int = _WRAP) -> str:
    shown = "".join(c if c.isprintable() else "?" for c in text)
    return "\n".join(textwrap.wrap(shown, width, max_lines=_MAX_LINES, placeholder=" …", break_on_hyphens=False))


def _height(text: str) -> float:
    return (text.count("\n") + 1) * _LINE + 2 * _PAD


def _colour(concept: Concept, colours: _Colours) -> tuple[str, str]:
    return colours.get(concept.semantic_types[0], _PLAIN) if concept.semantic_types else _PLAIN


def _centre(concept: Concept, colours: _Colours) -> _Box:
    text = f"{_wrapped(concept.name, 24)}\0{_wrapped(concept.id)}"
    return _Box(
        text, 0, 0, _height(text.replace("\0", "\n")) + 0.14, _colour(concept, colours), _WIDTH + 0.4, bold=True
    )


def _items(group: Group, colours: _Colours) -> list[tuple[str, tuple[str, str], bool]]:
    """Text, colours and whether it only counts, for each box of a group."""
    shown = [(_wrapped(c.name), _colour(c, colours), False) for c in group.concepts]
    return [*shown, (f"+{group.more} more", _PLAIN, True)] if group.more else shown


# ---- at the sides ----------------------------------------------------------------------------------------------------


def _column(axes: Axes, centre: _Box, groups: Sequence[Group], side: int, colours: _Colours) -> list[_Box]:
    """Groups below each other, as high above the middle as below it; a line runs along them. `side` is 1 or -1."""
    if not groups:
        return []
    edge, line, near = (side * (centre.width / 2 + n * _AISLE) for n in (0, 0.5, 1))
    boxes: list[_Box] = []
    titles: list[tuple[float, str]] = []
    y = 0.0
    for group in groups:
        titles.append((y - 0.09, group.title))
        y -= 0.21
        for text, pair, counts in _items(group, colours):
            height = _height(text)
            boxes.append(_Box(text, near + side * _WIDTH / 2, y - height / 2, height, pair, dashed=counts))
            y -= height + _GAP * 0.7
        y -= _GAP
    up = (_GAP * 1.7 - y) / 2
    boxes = [replace(box, y=box.y + up) for box in boxes]
    left = near if side > 0 else near - _WIDTH
    for at, title in titles:
        axes.text(left + 0.02, at + up, title, va="center", **_NOTE)
    for box in boxes:
        _line(axes, [(line, box.y), (near, box.y)], tip=side > 0)
    ys = [0.0, *(box.y for box in boxes)]
    _line(axes, [(line, min(ys)), (line, max(ys))])
    _line(axes, [(line, 0), (edge, 0)], tip=side < 0)
    return boxes


# ---- above and below -------------------------------------------------------------------------------------------------


def _rows(axes: Axes, centre: _Box, reach: float, group: Group, colours: _Colours) -> list[_Box]:
    """A group in rows above the middle (what it is) or below it (its kinds), beyond what stands at the sides."""
    sign = 1 if group.out else -1
    items = _items(group, colours)
    boxes: list[_Box] = []
    y = sign * (reach + 0.3)
    axes.text(0.07, y - sign * 0.13, group.title, va="center", **_NOTE)
    for start in range(0, len(items), _ROW):
        row = items[start : start + _ROW]
        tallest = max(_height(text) for text, _, _ in row)
        lane, y = y, y + sign * (0.2 + tallest / 2)
        for n, (text, pair, counts) in enumerate(row):
            x, height = (n - (len(row) - 1) / 2) * (_WIDTH + 2 * _GAP), _height(text)
            boxes.append(_Box(text, x, y, height, pair, dashed=counts))
            _line(axes, [(0, lane), (x, lane), (x, y - sign * height / 2)], tip=group.out)
        _line(axes, [(0, sign * centre.height / 2), (0, lane)])
        y += sign * (tallest / 2 + 0.16)
    if not group.out:
        _line(axes, [(0, -centre.height / 2 - 0.2), (0, -centre.height / 2)], tip=True)
    return boxes


# ---- lines, boxes, frame ---------------------------------------------------------------------------------------------


def _line(axes: Axes, points: Sequence[tuple[float, float]], *, tip: bool = False) -> None:
    """A line through points; with a tip at the last one."""
    plain = points[:-1] if tip else points
    axes.plot(*zip(*plain, strict=True), color=_LINE_COLOUR, linewidth=1.0, zorder=1)
    if tip:
        arrow = {"arrowstyle": "-|>", "color": _LINE_COLOUR, "linewidth": 1.0, "mutation_scale": 9}
        arrow |= {"shrinkA": 0, "shrinkB": 0}
        axes.annotate("", xy=points[-1], xytext=points[-2], arrowprops=arrow, zorder=2)


def _draw(axes: Axes, box: _Box) -> None:
    from matplotlib.patches import FancyBboxPatch

    corner = (box.x - box.width / 2, box.y - box.height / 2)
    fill, line = box.colours
    style: dict[str, Any] = {"linestyle": "--" if box.dashed else "-", "linewidth": 2.0 if box.bold else 1.0}
    shape = "round,pad=0,rounding_size=0.07"
    axes.add_patch(
        FancyBboxPatch(corner, box.width, box.height, shape, facecolor=fill, edgecolor=line, zorder=3, **style)
    )
    # names may hold "$", which is no formula here
    name, _, rest = box.text.partition("\0")
    words: dict[str, Any] = {
        "ha": "center",
        "va": "center",
        "color": _TEXT,
        "zorder": 4,
        "linespacing": 1.25,
        "parse_math": False,
    }
    if not rest:
        axes.text(box.x, box.y, name, fontsize=8.5, **words)
        return
    split = box.y + (rest.count("\n") + 1) * _LINE / 2
    axes.text(box.x, split, name, fontsize=10, fontweight="bold", **words)
    low = box.y - (name.count("\n") + 1) * _LINE / 2 - 0.04
    axes.text(box.x, low, rest, fontsize=7.5, **{**words, "color": _LINE_COLOUR})


def _frame(axes: Axes, boxes: Sequence[_Box], note: str, colours: _Colours) -> tuple[float, float]:
    """Fit the view around the boxes, legend and the graph's name under them; return the picture's width and height."""
    left = min(box.x - box.width / 2 for box in boxes) - 0.25
    right = max(box.x + box.width / 2 for box in boxes) + 0.25
    top = max(box.y + box.height / 2 for box in boxes) + 0.4
    bottom = min(box.y - box.height / 2 for box in boxes) - 0.3
    right = max(right, left + 0.3 + 1.3 * len(colours) + 2.0)
    x = left + 0.25
    for name, pair in colours.items():
        axes.plot([x + 0.05], [bottom], marker="s", markersize=8, markerfacecolor=pair[0], markeredgecolor=pair[1])
        axes.text(x + 0.16, bottom, _wrapped(name, 16), fontsize=7.5, va="center", color=_TEXT, parse_math=False)
        x += 0.45 + 0.075 * len(_wrapped(name, 16))
    source = textwrap.shorten(_wrapped(note, 60), 60, placeholder=" …")
    axes.text(right - 0.25, bottom, source, fontsize=7, va="center", ha="right", color=_LINE_COLOUR, parse_math=False)
    axes.set_xlim(left, right)
    axes.set_ylim(bottom - 0.25, top)
    return right - left, top - bottom + 0.25
