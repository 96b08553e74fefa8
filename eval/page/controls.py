"""Controls and baselines with our difference to each; other models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kvlp.eval.page.blocks import Block, Cell, Section, Table
from kvlp.eval.page.words import KINDS, NOTE, interval_of, target_of

if TYPE_CHECKING:
    from kvlp.eval.results import Result

__all__ = ["control_blocks"]


def control_blocks(rows: Sequence[Result]) -> list[Block]:
    """Controls and baselines with our difference to each; then other models, a column for each score compared."""
    gaps = {(row.setting, row.target, row.group): row for row in rows if row.metric != "auc"}
    table: list[list[Cell]] = []
    strong: set[int] = set()
    for control in (row for row in rows if row.metric == "auc"):
        own = (control.setting, control.target, control.group)
        key = next((k for k in gaps if (_against(gaps[k]), *k[1:]) == own), None)
        gap = gaps.pop(key) if key else None
        if control.target == "macro":
            strong.add(len(table))
        first: Cell = (target_of(control), _compared(gap or control))
        table.append([first, interval_of(control), interval_of(gap) if gap else None])
    text = "What can be had without this model. Where the interval of a difference holds 0, no difference is shown."
    blocks: list[Block] = [Section("Controls and comparisons", text)]
    if table:
        columns = ["class", "AUC of the control", "ours minus control"]
        blocks.append(Table(columns, table, strong=frozenset(strong), note=NOTE))
    return blocks + ([_comparisons(gaps)] if gaps else [])


def _comparisons(gaps: Mapping[tuple[str, str, str], Result]) -> Table:
    """A line a class, a column for each score of ours minus the same score of another model."""
    titles = {setting: _compared(row) for (setting, _, _), row in gaps.items()}
    lines = {(target, group): row for (_, target, group), row in gaps.items()}
    rows: list[list[Cell]] = []
    for key, row in lines.items():
        found = [gaps.get((setting, *key)) for setting in titles]
        rows.append([target_of(row), *(interval_of(gap) if gap else None for gap in found)])
    strong = frozenset(i for i, (target, _) in enumerate(lines) if target == "macro")
    return Table(["AUC of ours minus another's", *titles.values()], rows, strong=strong, note=NOTE)


def _against(row: Result) -> str:
    """The control's name in a row of a difference ("PAIR minus source only")."""
    return row.setting.split(" minus ", 1)[-1]


def _compared(row: Result) -> str:
    """What a row compares, in words: "both combined, minus source only"."""
    kind, minus, other = row.setting.partition(" minus ")
    return f"{KINDS.get(kind, kind)}, minus {other}" if minus else row.setting
