"""The panel of the worst errors: single images furthest on the wrong side of their threshold."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from kvlp.eval.page.blocks import Block, GridRow, ImageGrid, Section, Tile
from kvlp.eval.page.words import plain

if TYPE_CHECKING:
    from kvlp.eval.evaluate import Evaluation
    from kvlp.eval.page.pictures import Pictures

__all__ = ["error_blocks"]

_TEXT = (
    "The images furthest on the wrong side of the threshold, for the classes with the lowest AUC: labelled absent and "
    "scored highest, labelled present and scored lowest. A wrong label shows up here too."
)
_HEAT = (
    "Beneath each picture: from red to yellow, what covering a place up takes from the score. The scale is each "
    "picture's own."
)
_LOOKS = (
    "Beneath each picture: from red to yellow, where the query network looks for the sentences that state the class "
    "(its last cross-attention, mean over sentences). The scale is each picture's own."
)
_LEFT_OUT = "Pictures are left out: they are of patients. --with-images puts them in."


def error_blocks(result: Evaluation, pictures: Pictures | None) -> list[Block]:
    """Rows of pictures with their probability or score; place holders without `pictures`."""
    rows = []
    for errors in result.errors:
        decision = result.decisions[errors.name]
        what = "score" if decision.calibrator is None else "probability"
        note = f"The number is the {what}; the threshold is {decision.threshold:.3f}.".replace("-", "−")
        tiles = [*_tiles(result, errors.name, errors.flagged, "absent, flagged", pictures)]
        tiles += _tiles(result, errors.name, errors.missed, "present, missed", pictures)
        rows.append(GridRow(plain(errors.name), note, tiles))
    if not rows:
        return []
    heat = pictures is not None and result.model is not None
    legend = _LOOKS if result.options.scorer == "query" else _HEAT
    caption = _LEFT_OUT if pictures is None else legend if heat else ""
    return [Section("Worst errors", _TEXT), ImageGrid(rows, caption, legend=False, large=True)]


def _tiles(
    result: Evaluation, name: str, images: Iterable[tuple[int, float]], label: str, pictures: Pictures | None
) -> Iterable[Tile]:
    for row, value in images:
        picture, heat = pictures.for_class(row, name) if pictures is not None else ("", "")
        yield Tile(picture, f"{label} {value:.3f}".replace("-", "−"), "", f"{result.unit} {row + 1}", heat)
