"""Rows of an evaluation by groups of patients, and how often the ill of each group are called free of findings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from kvlp.eval.attributes import record_attributes
from kvlp.eval.decisions import flags
from kvlp.eval.intervals import mean_interval
from kvlp.eval.metrics import Bools
from kvlp.eval.results import Result
from kvlp.eval.subgroups import MEAN, SubgroupFigure, SubgroupPlan, subgroup_figures, subgroup_rate

if TYPE_CHECKING:
    from kvlp.eval.evaluate import Evaluation

__all__ = ["UNDERDIAGNOSIS", "subgroup_metric", "subgroup_rows"]

UNDERDIAGNOSIS = "underdiagnosis"
_NO_FINDING = frozenset({"no finding", "no findings", "normal"})
_UNDER = "share of the ill who are called free of findings (underdiagnosis, Seyyed-Kalantari et al. 2021)"
_MEANING = {
    UNDERDIAGNOSIS: _UNDER,
    "auc": "area under the ROC curve",
    "sensitivity": "share of the present that are flagged, at the class's one threshold",
    "false_positive_rate": "share of the absent that are flagged, at the class's one threshold",
}
_KINDS = {
    "group": "",
    "rest": ": this group minus all others of the attribute, on the same resamples of patients",
    "gap": ": the group with the largest value minus the one with the smallest",
}
_SUFFIX = {"group": "", "rest": "_against_rest", "gap": "_gap"}


def subgroup_rows(result: Evaluation) -> None:
    """Add figures by age, sex, view, ... and pairs of these, where the manifest tells at least two groups."""
    options = result.options
    called = _called_healthy(result)
    if called is not None:
        result.results.append(_underdiagnosis_row(result, *called))
    attributes = record_attributes(result.records) if options.subgroups else {}
    if not attributes:
        return
    plan = SubgroupPlan(k=options.hide_below, n=options.resamples, seed=result.provenance.seed)
    scores = result.scores[result.main_setting]
    result.subgroups.extend(
        subgroup_figures(
            result.y_true, scores, flags(result.decisions, scores), attributes, result.patients,
            names=result.classes, plan=plan,
        )
    )  # fmt: skip
    if called is not None:
        title, event, about, _ = called
        found = subgroup_rate(event, about, attributes, result.patients, target=title, metric=UNDERDIAGNOSIS, plan=plan)
        result.subgroups.extend(found)
    result.results.extend(_rows(result, result.subgroups))


def subgroup_metric(figure: SubgroupFigure) -> str:
    """The name of a figure's row: "subgroup_auc", "subgroup_auc_gap", "underdiagnosis_against_rest"."""
    prefix = "" if figure.metric == UNDERDIAGNOSIS else "subgroup_"
    return prefix + figure.metric + _SUFFIX[figure.kind]


def _kept(figure: SubgroupFigure, result: Evaluation) -> bool:
    """Of pairs of attributes, only means over the classes and gaps have rows: there are a great many otherwise."""
    told = figure.target == MEAN or figure.metric == UNDERDIAGNOSIS or len(result.classes) == 1
    return told or figure.kind == "gap" or not figure.pair


def _rows(result: Evaluation, figures: Iterable[SubgroupFigure]) -> Iterable[Result]:
    for figure in figures:
        if not _kept(figure, result):
            continue
        mean = "; mean over the classes that all groups with a mean define" if figure.target == MEAN else ""
        yield Result.of(
            figure.interval,
            metric=subgroup_metric(figure),
            target=figure.target,
            definition=_MEANING[figure.metric] + mean + _KINDS[figure.kind],
            setting=result.main_setting,
            group=f"{figure.attribute}: {figure.group}",
            task="subgroup",
            provenance=result.provenance,
        )


def _called_healthy(result: Evaluation) -> tuple[str, Bools, Bools, str] | None:
    """The target, who is called free of findings, who is ill, and how that was found out; None if it has no meaning.

    By the class "No Finding" where it is scored; else the ill have some scored class, and are called free of findings
    if none of the classes is flagged.
    """
    if any(task.versus for task in result.tasks):
        return None
    flagged = flags(result.decisions, result.scores[result.main_setting])
    for c, name in enumerate(result.classes):
        if name.replace("_", " ").strip().lower() in _NO_FINDING:
            return name, flagged[:, c], result.y_true[:, c] == 0, "by the class itself"
    if len(result.classes) < 2:
        return None
    how = "ill: some scored class is present; free of findings: none is flagged"
    return "No Finding", ~flagged.any(axis=1), (result.y_true == 1).any(axis=1), how


def _underdiagnosis_row(result: Evaluation, title: str, event: Bools, about: Bools, how: str) -> Result:
    values = np.where(about, event.astype(np.float64), np.nan)
    interval = mean_interval(values, result.patients, n=result.options.resamples, seed=result.provenance.seed)
    return Result.of(
        interval,
        metric=UNDERDIAGNOSIS,
        target=title,
        definition=f"{_UNDER}; {how}",
        setting=result.main_setting,
        group="all",
        task="subgroup",
        provenance=result.provenance,
    )
