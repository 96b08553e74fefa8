"""Compound figures with a planted truth: where each panel lies, and with which letter."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvlp.datasets.figures.fonts import font
from kvlp.datasets.figures.panels import Box
from kvlp.datasets.figures.planted.pictures import draw_picture

__all__ = ["LAYOUTS", "Look", "Planted", "draw_figure", "sample_look", "whole_figure"]

#: name -> rows of cells; a cell is (columns, rows) that it spans, and where rows differ a row is cut by itself
LAYOUTS: dict[str, tuple[tuple[float, float, float, float], ...]] = {}


def _even(rows: int, columns: int) -> tuple[tuple[float, float, float, float], ...]:
    """Cells (top, left, bottom, right) of a grid, as shares of the figure."""
    return tuple(
        (r / rows, c / columns, (r + 1) / rows, (c + 1) / columns) for r in range(rows) for c in range(columns)
    )


LAYOUTS |= {
    f"{rows}x{columns}": _even(rows, columns)
    for rows, columns in ((1, 2), (2, 1), (2, 2), (1, 3), (2, 3), (3, 2), (3, 3), (1, 4), (2, 4))
}
LAYOUTS |= {
    "big left": ((0, 0, 1, 0.6), (0, 0.6, 0.5, 1), (0.5, 0.6, 1, 1)),
    "big right": ((0, 0, 0.5, 0.4), (0, 0.4, 1, 1), (0.5, 0, 1, 0.4)),
    "big top": ((0, 0, 0.6, 1), (0.6, 0, 1, 0.5), (0.6, 0.5, 1, 1)),
    "2 over 3": ((0, 0, 0.5, 0.5), (0, 0.5, 0.5, 1), (0.5, 0, 1, 1 / 3), (0.5, 1 / 3, 1, 2 / 3), (0.5, 2 / 3, 1, 1)),
    "uneven 2x2": ((0, 0, 0.4, 0.35), (0, 0.35, 0.4, 1), (0.4, 0, 1, 0.35), (0.4, 0.35, 1, 1)),
    "uneven 1x3": ((0, 0, 1, 0.45), (0, 0.45, 1, 0.7), (0, 0.7, 1, 1)),
    "3 of 2x2": ((0, 0, 0.5, 0.5), (0, 0.5, 0.5, 1), (0.5, 0, 1, 0.5)),
}
_GROUNDS = {"white": 255, "black": 0, "grey": 190}
_FONTS = (
    "DejaVuSerif-Bold.ttf",
    "DejaVuSansMono-Bold.ttf",
    "DejaVuSans-BoldOblique.ttf",
    "cmss10.ttf",
    "cmb10.ttf",
    "DejaVuSerif.ttf",
    "STIXGeneralBol.ttf",
    "DejaVuSans-Bold.ttf",
)


@dataclass(frozen=True, slots=True)
class Look:
    """How a figure is set.

    Attributes:
        layout: a name in LAYOUTS.
        ground: "white", "black" or "grey".
        gutter: pixels between panels.
        margin: pixels around them.
        letters: "inside", "inside boxed", "outside", "below" or "none".
        corner: "top left", "top right", "bottom left" or "bottom right", for letters inside.
        font: a file of matplotlib's.
        form: "{}", "({})", "{})" or "{}.".
        upper: capitals.
        size: height of a letter as a share of the figure's shorter side.
        quality: JPEG's; 0 is PNG.
        framed: a thin line around each panel.
        down: letters run down the columns, not along the rows.
        width: pixels of the figure.
    """

    layout: str
    ground: str = "white"
    gutter: int = 10
    margin: int = 8
    letters: str = "inside"
    corner: str = "top left"
    font: str = "DejaVuSans-Bold.ttf"
    form: str = "{}"
    upper: bool = True
    size: float = 0.05
    quality: int = 85
    framed: bool = False
    down: bool = False
    width: int = 900


@dataclass(frozen=True, slots=True)
class Planted:
    """A drawn figure: its file's bytes and ending, and the panels' boxes in the order of their letters."""

    data: bytes
    ending: str
    boxes: tuple[Box, ...]


def sample_look(rng: np.random.Generator) -> Look:
    """Draw a way of setting a figure."""
    ground = str(rng.choice(["white", "white", "white", "black", "grey"]))
    letters = str(rng.choice(["inside", "inside", "inside boxed", "outside", "below", "none"]))
    return Look(
        layout=str(rng.choice(list(LAYOUTS))),
        ground=ground,
        gutter=int(rng.choice([3, 5, 8, 12, 20, 30])),
        margin=int(rng.choice([0, 0, 6, 20])),
        letters=letters,
        corner=str(rng.choice(["top left", "top left", "top left", "top right", "bottom left", "bottom right"])),
        font=str(rng.choice(_FONTS)),
        form=str(rng.choice(["{}", "{}", "({})", "{})", "{}."])),
        upper=bool(rng.random() < 0.65),
        size=float(rng.uniform(0.035, 0.07)),
        quality=int(rng.choice([0, 70, 80, 90, 95])),
        framed=bool(rng.random() < 0.15),
        down=letters != "none" and bool(rng.random() < 0.15),
        width=int(rng.choice([600, 800, 1000, 1300])),
    )


def draw_figure(look: Look, kinds: tuple[str, ...], labels: tuple[str, ...], rng: np.random.Generator) -> Planted:
    """Draw a figure with a panel of each kind; the letters follow `labels`, cell by cell."""
    cells = LAYOUTS[look.layout]
    if look.down:
        cells = tuple(sorted(cells, key=lambda cell: (cell[1], cell[0])))
    height = _height(look, cells, rng)
    size = max(12, round(look.size * min(height, look.width)))
    strip = round(size * 1.6) if look.letters in ("outside", "below") else 0
    canvas = np.full((height, look.width, 3), _GROUNDS[look.ground], np.uint8)
    cellular = boxes = [_box(cell, height, look, strip) for cell in cells]
    for box, kind in zip(boxes, kinds):
        canvas[box.top : box.bottom, box.left : box.right] = draw_picture(kind, box.height, box.width, rng)
    if look.ground == "white" and not look.framed:
        boxes = [_inked(canvas, box) if kind == "plot" else box for box, kind in zip(boxes, kinds)]
    written = _write(canvas, look, cellular, labels, size)
    return Planted(*_encoded(written, look.quality), tuple(boxes))


def whole_figure(kind: str, rng: np.random.Generator) -> tuple[bytes, str]:
    """A figure that is one picture: bytes and ending. Kinds: those of pictures, "heat map", "chess", "abutting"."""
    if kind in ("heat map", "chess"):
        pixels = _tiles(rng, gap=4 if kind == "heat map" else 0)
    elif kind == "abutting":
        pixels = np.concatenate([draw_picture("radiograph", 400, 400, rng) for _ in range(2)], axis=1)
    else:
        pixels = draw_picture(kind, int(rng.integers(360, 700)), int(rng.integers(360, 700)), rng)
    return _encoded(pixels, int(rng.choice([0, 80, 92])))


def _tiles(rng: np.random.Generator, gap: int) -> NDArray[np.uint8]:
    tile, count = 80, 6
    canvas = np.full((count * tile, count * tile, 3), 255, np.uint8)
    for row in range(count):
        for column in range(count):
            colour = rng.integers(30, 220, 3) if gap else np.full(3, 255 * ((row + column) % 2))
            canvas[row * tile + gap : (row + 1) * tile, column * tile + gap : (column + 1) * tile] = colour
    return canvas


def _height(look: Look, cells: tuple[tuple[float, float, float, float], ...], rng: np.random.Generator) -> int:
    """So tall that panels are about as tall as wide."""
    rows = sum(1 for cell in cells if cell[1] == 0)
    columns = sum(1 for cell in cells if cell[0] == 0)
    return round(look.width * rows / columns * rng.uniform(0.85, 1.15))


def _box(cell: tuple[float, float, float, float], height: int, look: Look, strip: int) -> Box:
    """A cell without its share of the gutters, and without a strip for a letter above or below."""
    inner_height, inner_width = height - 2 * look.margin + look.gutter, look.width - 2 * look.margin + look.gutter
    top, left = look.margin + round(cell[0] * inner_height), look.margin + round(cell[1] * inner_width)
    bottom = look.margin + round(cell[2] * inner_height) - look.gutter
    right = look.margin + round(cell[3] * inner_width) - look.gutter
    if look.letters == "outside":
        return Box(top + strip, left, bottom, right)
    return Box(top, left, bottom - strip, right)


def _inked(canvas: NDArray[np.uint8], box: Box) -> Box:
    """Where a plot has ink: on a white figure nobody can see how far its own white reaches."""
    ink = canvas[box.top : box.bottom, box.left : box.right].min(axis=2) < 200
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    top, left = box.top + int(rows[0]), box.left + int(columns[0])
    return Box(top, left, box.top + int(rows[-1]) + 1, box.left + int(columns[-1]) + 1)


def _write(
    canvas: NDArray[np.uint8], look: Look, boxes: list[Box], labels: tuple[str, ...], size: int
) -> NDArray[np.uint8]:
    from PIL import Image, ImageDraw

    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    for box, label in zip(boxes, labels):
        if look.framed:
            draw.rectangle([box.left, box.top, box.right - 1, box.bottom - 1], outline="black", width=2)
        if look.letters != "none":
            _letter(draw, look, box, look.form.format(label.upper() if look.upper else label), size)
    return np.asarray(image)


def _letter(draw, look: Look, box: Box, text: str, size: int) -> None:  # type: ignore[no-untyped-def]  # PIL's ImageDraw
    face = font(look.font, size)
    x0, y0, x1, y1 = draw.textbbox((0, 0), text, font=face)
    wide, tall, pad = x1 - x0, y1 - y0, max(3, size // 5)
    if look.letters in ("outside", "below"):
        top = box.top - tall - pad if look.letters == "outside" else box.bottom + pad
        left = box.left if look.letters == "outside" else (box.left + box.right - wide) // 2
        colour = "white" if look.ground == "black" else "black"
    else:
        top = box.top + pad if look.corner.startswith("top") else box.bottom - tall - pad
        left = box.left + pad if look.corner.endswith("left") else box.right - wide - pad
        colour = "white"
    if look.letters == "inside boxed":
        draw.rectangle([left - pad, top - pad, left + wide + pad - 1, top + tall + pad - 1], fill="white")
        colour = "black"
    if look.letters == "inside":
        draw.text(
            (left - x0, top - y0), text, font=face, fill=colour, stroke_width=max(1, size // 14), stroke_fill="black"
        )
        return
    draw.text((left - x0, top - y0), text, font=face, fill=colour)


def _encoded(pixels: NDArray[np.uint8], quality: int) -> tuple[bytes, str]:
    from PIL import Image

    buffer = io.BytesIO()
    if quality:
        Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
        return buffer.getvalue(), ".jpg"
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue(), ".png"
