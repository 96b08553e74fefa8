"""Controls and baselines with our difference to each; other models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from kvlp.eval.page.blocks import Block, Cell, Section, Table
from kvlp.eval.page.words import KINDS, NOTE, interval_of, target_of

if TYPE_CHECKING:
    from kvlp.eval.results import Result

__all__ = ["control_blocks"]


_TEXT = (
    "What can be had without reading the image. Where the interval of a difference holds 0, no difference is shown. "
    "Shuffled labels and captions must give chance, else the evaluation itself is wrong."
)


def control_blocks(rows: Sequence[Result]) -> list[Block]:
    """Means of the controls with our difference to each, then class by class, further figures, and other models."""
    gaps = {(row.setting, row.target, row.group): row for row in rows if row.metric == "auc_difference"}
    found = [row for row in rows if row.metric == "auc"]
    classes = {row.target for row in found} - {"macro"}
    means: list[list[Cell]] = []
    single: list[list[Cell]] = []
    for control in found:
        own = (control.setting, control.target, control.group)
        key = next((k for k in gaps if (_against(gaps[k]), *k[1:]) == own), None)
        gap = gaps.pop(key) if key else None
        first: Cell = (_compared(gap or control), target_of(control))
        line = [first, interval_of(control), interval_of(gap) if gap else None]
        lone = control.target == "macro" or len(classes) == 1 or _alone(control, found)
        (means if lone else single).append(line)
    blocks: list[Block] = [Section("Controls and comparisons", _TEXT)]
    columns = ["control", "AUC of the control", "ours minus control"]
    if means:
        blocks.append(
            Table(columns, means, "Controls", note="Small print: 95 % interval, or the range of the shuffles.")
        )
    if single:
        blocks.append(Table(columns, single, "Controls, class by class", note=NOTE, closed=True))
    further = [row for row in rows if row.metric not in ("auc", "auc_difference")]
    return blocks + ([_further(further)] if further else []) + ([_comparisons(gaps)] if gaps else [])


def _alone(control: Result, found: Sequence[Result]) -> bool:
    """Whether a control is about one class only, and so has no mean."""
    return not any(row.setting == control.setting and row.target == "macro" for row in found)


def _further(rows: Sequence[Result]) -> Table:
    """Figures that are no AUC of a class: recall with shuffled captions, AUC over all pairs."""
    table: list[list[Cell]] = [
        [(row.setting, f"{row.target}: {row.metric.replace('_', ' ')}"), interval_of(row), _chance(row)] for row in rows
    ]
    return Table(["control", "figure", "chance"], table, "Further controls")


def _chance(row: Result) -> Cell:
    return (row.definition.rsplit("chance ", 1)[1].partition(" ")[0], "") if "chance " in row.definition else None


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
