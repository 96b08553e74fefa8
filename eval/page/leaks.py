"""The panel of leaks and exposure: what stands on two sides, and what the model was trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvlp.eval.page.blocks import Block, Cell, Notice, Section, Table
from kvlp.eval.page.words import plain, upper

if TYPE_CHECKING:
    from kvlp.eval.evaluate import Evaluation

__all__ = ["leak_blocks"]

_TEXT = (
    "A figure is too good where what is scored was seen before: by the model, or in a row that something was chosen on."
)
_NOT = "Leaks between splits were not looked for: give the report of find_leaks as an option, or run kvlp data leaks."


def leak_blocks(result: Evaluation) -> list[Block]:
    """What the exposure manifest says, and a table of the leaks."""
    blocks: list[Block] = [Section("Leaks and exposure", _TEXT)]
    if result.exposure is not None:
        tone = {True: "good", False: "bad", None: "note"}[result.exposure.ok]
        blocks.append(Notice(f"{upper(str(result.exposure))}.", tone))  # type: ignore[arg-type]
    rows = [row for row in result.results if row.metric == "leaks"]
    if not rows:
        return [*blocks, Notice(_NOT)]
    table: list[list[Cell]] = []
    for row in rows:
        known = row.value == row.value
        note = row.notes[0].removeprefix("not known: ")
        table.append([(plain(row.target), row.definition), int(row.value) if known else ("not known", note)])
    sides = next((row.notes[0] for row in rows if row.notes[0].startswith("sides")), "")
    return [*blocks, Table(["kind", "shared"], table, "What stands on two sides", note=upper(sides))]
