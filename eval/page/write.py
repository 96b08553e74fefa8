"""Blocks into HTML, through one template and one style sheet that are put into the page."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from kvlp import __version__
from kvlp.datasets.files import atomic_write
from kvlp.eval.intervals import Interval
from kvlp.eval.page.blocks import Block, Section
from kvlp.typing import PathLike

__all__ = ["RESEARCH_NOTE", "render_page", "write_page"]

RESEARCH_NOTE = (
    "For research. Not a medical device: its scores are no diagnosis and have no place in the care of patients."
)
#: what stands in place of a number
_NO_NUMBER = ("undefined", "hidden", "not told")
_HERE = Path(__file__).parent


def write_page(path: PathLike, title: str, blocks: Sequence[Block], *, subtitle: str = "") -> Path:
    """Write a page, whole or not at all.

    Args:
        path: the HTML file.
        title: the page's title.
        blocks: what it holds, in order.
        subtitle: a line beneath the title.
    """
    atomic_write(path, render_page(title, blocks, subtitle=subtitle).encode())
    return Path(path)


def render_page(title: str, blocks: Sequence[Block], *, subtitle: str = "") -> str:
    """The page as text. Every string of a block is escaped; nothing in it can become markup."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        cell=_cell, numeric=_is_numeric, value=lambda v: _cell(v)[0], bounds=lambda v: _cell(v)[1], anchor=_anchor
    )
    environment.globals["svg"] = lambda chart: Markup(chart.svg())  # charts escape their own words
    return environment.get_template("page.html").render(
        title=title,
        subtitle=subtitle,
        blocks=list(blocks),
        sections=[block for block in blocks if isinstance(block, Section)],
        style=Markup((_HERE / "page.css").read_text(encoding="utf-8")),
        note=RESEARCH_NOTE,
        made=f"kvlp {__version__}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    )


def _cell(value: object) -> tuple[str, str]:
    """A cell's main text and the small text beneath it."""
    if value is None:
        return "–", ""
    if isinstance(value, tuple):
        return value[0], value[1]
    if isinstance(value, Interval):
        return _figure(value.value), "" if math.isnan(value.low) else f"{_figure(value.low)} to {_figure(value.high)}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value), ""
    return (f"{value:,}" if isinstance(value, int) else _figure(value)), ""


def _figure(value: float) -> str:
    if math.isnan(value):
        return "undefined"
    text = f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 2 else f"{value:.3f}"
    return text.replace("-", "−")


def _is_numeric(value: object) -> bool:
    if isinstance(value, tuple | str):
        text = value if isinstance(value, str) else value[0]
        return (text.removeprefix("−")[:1].isdigit() and isinstance(value, tuple)) or text in _NO_NUMBER
    return value is None or (isinstance(value, int | float | Interval) and not isinstance(value, bool))


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
