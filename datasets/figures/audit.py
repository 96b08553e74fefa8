"""A page to look at: sampled figures with the panels that were found drawn in, and what each was matched with."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from kvlp import __version__
from kvlp.datasets.figures.articles import as_rgb
from kvlp.datasets.figures.importing import read_journal
from kvlp.datasets.figures.packages import open_package
from kvlp.datasets.files import atomic_write
from kvlp.datasets.images import decode
from kvlp.errors import DataError
from kvlp.typing import PathLike

__all__ = ["write_audit"]

_WIDEST = 560
_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class _Card:
    """One sampled figure as the template shows it."""

    title: str
    note: str
    picture: str
    rows: Sequence[Mapping[str, Any]]


def write_audit(out: PathLike, *, count: int = 40, seed: int = 0) -> Path:
    """Write OUT/audit.html, one self-contained page without a script, from the journal of an import.

    Args:
        out: the folder of an import.
        count: figures to show; compound ones come first, for there is more to be wrong.
        seed: another seed, other figures.

    Raises: DataError if OUT holds no journal.
    """
    figures = _figures(out)
    if not figures:
        raise DataError(f"{out}: no journal with pairs; run kvlp figures import first")
    rng = np.random.default_rng(seed)
    drawn = [figures[i] for i in rng.permutation(len(figures))]
    drawn.sort(key=lambda figure: len(figure[1]) < 2)
    cards = [_card(entry, rows) for entry, rows in drawn[:count]]
    path = Path(out) / "audit.html"
    atomic_write(path, _render(cards, len(figures), seed).encode())
    return path


def _figures(out: PathLike) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Each figure with its rows and the entry of its article."""
    found = []
    for entry in read_journal(out):
        groups: dict[str, list[dict[str, Any]]] = {}
        for row in entry["rows"]:
            groups.setdefault(row["figure"], []).append(row)
        found += [(entry, rows) for rows in groups.values()]
    return found


def _card(entry: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> _Card:
    article = entry["article"]
    name = article["pmcid"] or entry["key"]
    picture, size, note = _picture(entry, rows[0]["file"])
    placed = [{**row, "style": _place(row["box"], size), "number": n} for n, row in enumerate(rows)]
    licence = rows[0]["licence"] or "no licence stated"
    return _Card(f"{name} / {rows[0]['figure']}", note or f"{licence}; {article['doi'] or 'no DOI'}", picture, placed)


def _picture(entry: Mapping[str, Any], file: str) -> tuple[str, tuple[int, int], str]:
    """The figure as a small JPEG in a data address, its size (H, W), and why it is missing if it is."""
    from PIL import Image

    try:
        _, data = open_package(entry["source"]).image([file])
        pixels = as_rgb(decode(data))
    except (DataError, OSError):
        return "", (1, 1), "the package is no longer where it was"
    image = Image.fromarray(pixels)
    image.thumbnail((_WIDEST, _WIDEST))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return (
        f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}",
        (pixels.shape[0], pixels.shape[1]),
        "",
    )


def _place(box: Sequence[int], size: tuple[int, int]) -> str:
    """CSS of a box, in per cent of the picture."""
    top, left, bottom, right = box
    height, width = size
    parts = {
        "top": top / height,
        "left": left / width,
        "height": (bottom - top) / height,
        "width": (right - left) / width,
    }
    return ";".join(f"{name}:{100 * share:.2f}%" for name, share in parts.items())


def _render(cards: Sequence[_Card], figures: int, seed: int) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made = f"kvlp {__version__}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    return environment.get_template("audit.html").render(cards=cards, figures=figures, seed=seed, made=made)
