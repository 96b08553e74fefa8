"""The panel of subgroups: figures of each group as forest and table, and the gaps between groups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvlp.eval.intervals import Interval
from kvlp.eval.page.blocks import Block, Cell, Charts, Section, Table
from kvlp.eval.page.charts import Chart, Forest, shared_limits
from kvlp.eval.page.words import plain
from kvlp.eval.subgroup_rows import UNDERDIAGNOSIS
from kvlp.eval.subgroups import MEAN, METRICS, SubgroupFigure

if TYPE_CHECKING:
    from kvlp.eval.evaluate import Evaluation

__all__ = ["subgroup_blocks"]

_HEADS = {
    "auc": "AUC",
    "sensitivity": "sensitivity",
    "false_positive_rate": "false positive rate",
    UNDERDIAGNOSIS: "ill, called free",
}
_RULE = (
    "Is the model alike for everyone? Every group by the same threshold of each class, on the same resamples "
    "of patients. Groups of fewer than {k} patients are hidden, and so are counts from which their size could be "
    "worked out."
)
_GAP = (
    "The group with the largest figure minus the one with the smallest. The interval allows for having picked the two "
    "after seeing all; where it holds 0, no gap is shown. Undefined where fewer than two groups define it."
)


def subgroup_blocks(result: Evaluation) -> list[Block]:
    """Forests and tables by attribute, then the gaps; nothing where the manifest tells no groups."""
    figures = result.subgroups
    if not figures:
        return []
    target = MEAN if len(result.classes) > 1 else result.classes[0]
    what = "Means over the classes." if target == MEAN else f"Class: {plain(target)}."
    blocks: list[Block] = [Section("Subgroups", f"{_RULE.format(k=result.options.hide_below)} {what}")]
    whole = [f for f in figures if f.target == target or f.metric == UNDERDIAGNOSIS]
    attributes = list(dict.fromkeys(f.attribute for f in whole))
    single = list(dict.fromkeys(f.attribute for f in whole if not f.pair))
    for name in single:
        blocks += [Charts(_forests(name, whole)), _table(name, _of(whole, name))]
    blocks.append(_gaps(whole, attributes))
    if target == MEAN:
        blocks.append(_class_gaps(figures, result.classes, single))
    return blocks + [_table(name, _of(whole, name), closed=True) for name in attributes if name not in single]


def _of(figures: Sequence[SubgroupFigure], attribute: str) -> list[SubgroupFigure]:
    return [f for f in figures if f.attribute == attribute]


def _groups(figures: Sequence[SubgroupFigure]) -> list[str]:
    return list(dict.fromkeys(f.group for f in figures if f.kind == "group"))


def _find(figures: Sequence[SubgroupFigure], metric: str, kind: str, group: str = "") -> SubgroupFigure | None:
    return next((f for f in figures if (f.metric, f.kind) == (metric, kind) and group in ("", f.group)), None)


def _forests(name: str, whole: Sequence[SubgroupFigure]) -> list[Chart]:
    """AUC of each group; beside it sensitivity and false positive rate, and underdiagnosis."""
    own = _of(whole, name)
    marks = [f.interval for f in whole if f.metric == "auc" and f.kind == "group" and not math.isnan(f.interval.value)]
    limits = shared_limits(marks, reference=0.5)
    charts: list[Chart] = []
    for title, metrics in (("AUC", METRICS[:1]), ("rates", METRICS[1:]), ("underdiagnosis", (UNDERDIAGNOSIS,))):
        if not any(f.metric in metrics for f in own):
            continue
        rows = []
        for group in _groups(own):
            found = [_find(own, metric, "group", group) for metric in metrics]
            hidden = found[0] is not None and found[0].hidden
            label = f"{group} (hidden)" if hidden else group
            rows.append((label, [f.interval if f is not None else None for f in found]))
        kinds = [_HEADS[metric] for metric in metrics]
        reference, span = (0.5, limits) if title == "AUC" else (None, (0.0, 1.0))
        axis = f"{' or '.join(kinds)}, 95 % interval"
        charts.append(Forest(f"By {name}: {title}", rows, kinds, x_label=axis, reference=reference, limits=span))
    return charts


def _table(name: str, own: Sequence[SubgroupFigure], *, closed: bool = False) -> Table:
    metrics = [metric for metric in _HEADS if any(f.metric == metric for f in own)]
    with_rest = any(f.kind == "rest" for f in own)
    rows: list[list[Cell]] = []
    for group in _groups(own):
        auc = _find(own, "auc", "group", group)
        row: list[Cell] = [group, _count(auc)]
        for metric in metrics:
            row.append(_cell(_find(own, metric, "group", group)))
            if metric == "auc" and with_rest:
                row.append("hidden" if auc is not None and auc.hidden else _cell(_find(own, metric, "rest", group)))
        rows.append(row)
    columns = [name, "patients"]
    for metric in metrics:
        columns += [_HEADS[metric], *(["AUC minus the rest's"] if metric == "auc" and with_rest else [])]
    note = "Small print: 95 % interval over patients. The rest: all other groups together."
    return Table(columns, rows, f"By {name}", note=note if with_rest else "", closed=closed)


def _count(figure: SubgroupFigure | None) -> Cell:
    if figure is None or figure.hidden:
        return "hidden"
    return figure.interval.n_groups if figure.counted else "not told"


def _cell(figure: SubgroupFigure | None) -> Cell:
    if figure is None:
        return None
    return "hidden" if figure.hidden and figure.kind == "group" else _shown(figure.interval)


def _shown(interval: Interval) -> Cell:
    return Interval(interval.value, interval.low, interval.high, 0, interval.method)


def _gaps(whole: Sequence[SubgroupFigure], attributes: Sequence[str]) -> Table:
    metrics = [metric for metric in _HEADS if any(f.metric == metric for f in whole)]
    rows: list[list[Cell]] = []
    for name in attributes:
        own = _of(whole, name)
        rows.append([name, *(_gap(_find(own, metric, "gap")) for metric in metrics)])
    return Table(["gap by", *(_HEADS[metric] for metric in metrics)], rows, "Gaps between groups", note=_GAP)


def _class_gaps(figures: Sequence[SubgroupFigure], classes: Sequence[str], attributes: Sequence[str]) -> Table:
    rows: list[list[Cell]] = []
    for name in classes:
        own = [f for f in figures if f.target == name]
        rows.append([plain(name), *(_gap(_find(_of(own, attribute), "auc", "gap")) for attribute in attributes)])
    columns = ["class", *(f"by {attribute}" for attribute in attributes)]
    note = "Many gaps are looked at here: some will show by chance."
    return Table(columns, rows, "Gaps in AUC, class by class", note=note)


def _gap(figure: SubgroupFigure | None) -> Cell:
    """The gap with its interval, and which groups it is between."""
    if figure is None or math.isnan(figure.interval.value):
        return ("undefined", "")
    interval = figure.interval
    bounds = "" if math.isnan(interval.low) else f"{interval.low:.3f} to {interval.high:.3f}\n".replace("-", "−")
    return (f"{interval.value:.3f}", bounds + figure.group.replace(" minus ", " −\n"))
