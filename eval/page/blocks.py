"""What a page can hold. Each block is plain data; the template gives it its looks."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvlp.errors import ShapeError
from kvlp.eval.intervals import Interval
from kvlp.eval.page.charts import Chart

__all__ = [
    "Bars",
    "Block",
    "Cell",
    "Charts",
    "GridRow",
    "Headline",
    "Headlines",
    "ImageGrid",
    "Notice",
    "Section",
    "Settings",
    "Table",
    "Text",
    "Tile",
    "picture_uri",
    "png_uri",
]

#: A table cell: words, words with small print beneath, a number, an interval (bounds beneath), or nothing.
Cell: TypeAlias = str | tuple[str, str] | int | float | Interval | None


@dataclass(frozen=True)
class Section:
    """A heading with a few words beneath it; it also stands in the page's list of contents."""

    kind: ClassVar[str] = "section"
    title: str
    text: str = ""


@dataclass(frozen=True)
class Text:
    """Paragraphs of plain text."""

    kind: ClassVar[str] = "text"
    paragraphs: Sequence[str]


@dataclass(frozen=True)
class Notice:
    """One remark in a frame: "note", "good" or "bad"."""

    kind: ClassVar[str] = "notice"
    text: str
    tone: Literal["note", "good", "bad"] = "note"


@dataclass(frozen=True)
class Headline:
    """One large number with its interval, and what it means in a few words."""

    label: str
    value: Interval | str
    note: str = ""


@dataclass(frozen=True)
class Headlines:
    """Large numbers side by side."""

    kind: ClassVar[str] = "headlines"
    items: Sequence[Headline]


@dataclass(frozen=True)
class Table:
    """A table; the first column names the row, numbers stand right.

    Attributes:
        columns: headings.
        rows: one sequence of cells a row.
        caption: what it shows.
        strong: indices of rows to stress (means).
        note: small print beneath.
        closed: shown only after a click on the caption; on paper it is open.
    """

    kind: ClassVar[str] = "table"
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    strong: frozenset[int] = frozenset()
    note: str = ""
    closed: bool = False

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ShapeError(f"row {number} has {len(row)} cells for {len(self.columns)} columns")


@dataclass(frozen=True)
class Charts:
    """Charts beside each other, as many as the width allows."""

    kind: ClassVar[str] = "charts"
    charts: Sequence[Chart]


@dataclass(frozen=True)
class Bars:
    """Horizontal bars with their numbers, for timings and counts."""

    kind: ClassVar[str] = "bars"
    values: Mapping[str, float]
    unit: str = ""
    caption: str = ""

    @property
    def rows(self) -> list[tuple[str, str, float]]:
        """Label, number in words, and width in per cent of the longest bar."""
        top = max([*self.values.values(), 1e-12])
        return [(name, _amount(value, self.unit), 100 * value / top) for name, value in self.values.items()]


@dataclass(frozen=True)
class Tile:
    """One picture of a grid.

    Attributes:
        image: data URI from `picture_uri`; "" shows a place holder.
        second: another one of the same, beneath it: with a heat map.
        caption: beneath it, short.
        verdict: relevant or not; "" for neither.
        alt: what a screen reader says, and the place holder's text.
    """

    image: str = ""
    caption: str = ""
    verdict: Literal["good", "bad", ""] = ""
    alt: str = ""
    second: str = ""


@dataclass(frozen=True)
class GridRow:
    """One row of a grid: a title, its figures, and its pictures."""

    title: str
    note: str
    tiles: Sequence[Tile]


@dataclass(frozen=True)
class ImageGrid:
    """Rows of pictures, usually a query and its results; with a legend of verdicts, and large if told."""

    kind: ClassVar[str] = "grid"
    rows: Sequence[GridRow]
    caption: str = ""
    legend: bool = True
    large: bool = False


@dataclass(frozen=True)
class Settings:
    """Names and values; long values (hashes) break across lines. Closed ones open on a click."""

    kind: ClassVar[str] = "settings"
    values: Mapping[str, object]
    caption: str = ""
    closed: bool = False
    rows: list[tuple[str, str]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", [(str(k), _words(v)) for k, v in self.values.items()])


Block: TypeAlias = Section | Text | Notice | Headlines | Table | Charts | Bars | ImageGrid | Settings


def png_uri(image: NDArray[np.uint8] | NDArray[np.floating], *, max_side: int = 144) -> str:
    """A grey or colour image as a PNG data URI, shrunk to at most `max_side` pixels a side.

    Args:
        image: (H, W) or (H, W, 3); uint8, or floating in [0, 1].
        max_side: longest side in the page's file.
    """
    return _uri(image, max_side, "PNG", optimize=True)


def picture_uri(image: NDArray[np.uint8] | NDArray[np.floating], *, max_side: int = 160) -> str:
    """The same as a JPEG, a third as large and good enough to look at. Arguments as `png_uri`."""
    return _uri(image, max_side, "JPEG", quality=85, optimize=True)


def _uri(image: NDArray[np.uint8] | NDArray[np.floating], max_side: int, kind: str, **options: object) -> str:
    from PIL import Image

    pixels = np.asarray(image)
    if pixels.ndim not in (2, 3) or pixels.size == 0:
        raise ShapeError(f"expected an image (H, W) or (H, W, 3), got {pixels.shape}")
    if pixels.dtype != np.uint8:
        pixels = np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    picture = Image.fromarray(pixels)
    picture.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **options)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _amount(value: float, unit: str) -> str:
    if unit == "s" and value >= 120:
        return f"{int(value // 60)} min {int(value % 60)} s"
    digits = 0 if value >= 100 or float(value).is_integer() else 1 if value >= 10 else 2
    return f"{value:.{digits}f} {unit}".strip()


def _words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_words(v)}" for k, v in value.items())
    if isinstance(value, str):
        return value or "none"
    if isinstance(value, Sequence):
        return ", ".join(map(_words, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
