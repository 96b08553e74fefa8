"""One self-contained HTML page: no script, no request, readable on a phone and on paper."""

from kvlp.eval.page.blocks import (
    Bars,
    Block,
    Charts,
    GridRow,
    Headline,
    Headlines,
    ImageGrid,
    Notice,
    Section,
    Settings,
    Table,
    Text,
    Tile,
    picture_uri,
    png_uri,
)
from kvlp.eval.page.charts import Forest, Lines, Series
from kvlp.eval.page.write import write_page

__all__ = [
    "Bars",
    "Block",
    "Charts",
    "Forest",
    "GridRow",
    "Headline",
    "Headlines",
    "ImageGrid",
    "Lines",
    "Notice",
    "picture_uri",
    "png_uri",
    "Section",
    "Series",
    "Settings",
    "Table",
    "Text",
    "Tile",
    "write_page",
]
