"""Rows of what the thresholds do and of whether the probabilities mean what they say."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from kvlp.eval.calibration import Reliability, calibration_line, reliability
from kvlp.eval.calibration_intervals import calibration_intervals
from kvlp.eval.decisions import Decision
from kvlp.eval.intervals import FewPositivesWarning, point_intervals
from kvlp.eval.metrics import Floats
from kvlp.eval.results import Result

if TYPE_CHECKING:
    from kvlp.eval.evaluate import Evaluation

__all__ = ["BINS", "POINTS", "decision_rows", "reliability_of"]

#: bins of the reliability diagram, of equal mass
BINS = 10
#: what is reported at a threshold: name -> meaning
POINTS = {
    "sensitivity": "share of the present that are flagged",
    "specificity": "share of the absent that are not flagged",
    "ppv": "share of the flagged that are present",
    "npv": "share of the not flagged that are absent",
    "f1": "harmonic mean of sensitivity and PPV",
    "mcc": "Matthews' correlation",
}
_CALIBRATION = {
    "brier": "mean squared difference of probability and outcome",
    "ece": "expected calibration error, 15 bins of equal width",
    "calibration_slope": "slope of logistic recalibration; 1 is right, below it forecasts are too extreme",
    "calibration_intercept": "intercept of logistic recalibration; 0 is right",
}


def decision_rows(result: Evaluation) -> None:
    """Add threshold, sensitivity, specificity and so on of every class, and its calibration where there is one."""
    scores = result.scores[result.main_setting]
    for c, name in enumerate(result.classes):
        decision = result.decisions[name]
        values, labels = decision.values(scores[:, c]), result.y_true[:, c]
        result.results.extend(_point_rows(result, name, decision, labels, values))
        if decision.calibrator is not None:
            result.results.extend(_calibration_rows(result, name, decision, labels, values))


def reliability_of(result: Evaluation, name: str) -> Reliability | None:
    """The bins of a class's reliability diagram; None without a calibration."""
    decision, c = result.decisions[name], result.classes.index(name)
    if decision.calibrator is None:
        return None
    return reliability(
        result.y_true[:, c], decision.values(result.scores[result.main_setting][:, c]), BINS, binning="mass"
    )


def _common(result: Evaluation, name: str) -> dict[str, Any]:
    return {
        "target": name,
        "setting": result.main_setting,
        "task": "threshold",
        "provenance": result.provenance,
    }


def _point_rows(result: Evaluation, name: str, decision: Decision, labels: Floats, values: Floats) -> Iterator[Result]:
    what = "probability" if decision.calibrator is not None else "score"
    common = _common(result, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewPositivesWarning)  # every row carries the note
        table = point_intervals(
            labels, values, decision.threshold, result.patients, n=result.options.resamples, seed=result.provenance.seed
        )
    yield Result(
        metric="threshold", value=decision.threshold, low=math.nan, high=math.nan, method=decision.origin,
        definition=f"flagged is a {what} at or above it", n=table["f1"].n, n_positive=table["f1"].n_positive, **common,
    )  # fmt: skip
    for metric, meaning in POINTS.items():
        definition = f"{meaning}, at {what} {decision.threshold:.6g}: {decision.origin}"
        yield Result.of(table[metric], metric=metric, definition=definition, **common)


def _calibration_rows(
    result: Evaluation, name: str, decision: Decision, labels: Floats, values: Floats
) -> Iterator[Result]:
    common = {**_common(result, name), "task": "calibration"}
    options = {"n": result.options.resamples, "seed": result.provenance.seed}
    table = calibration_intervals(labels, values, result.patients, **options)
    for metric, interval in table.items():
        yield Result.of(interval, metric=metric, definition=_CALIBRATION[metric], **common)
    line = calibration_line(labels, values)
    counts = {"n": line.n, "n_positive": line.n_positive, "notes": line.notes}
    for metric, value, low, high in (
        ("calibration_slope", line.slope, line.slope_low, line.slope_high),
        ("calibration_intercept", line.intercept, line.intercept_low, line.intercept_high),
    ):
        yield Result(
            metric=metric, value=value, low=low, high=high, method="Wald interval, rows taken as independent",
            definition=_CALIBRATION[metric], **{**common, **counts},
        )  # fmt: skip
    bins = reliability(labels, values, BINS, binning="mass")
    for count, forecast, observed in zip(bins.count, bins.forecast, bins.observed, strict=True):
        yield Result(
            metric="reliability_bin", value=float(observed), low=math.nan, high=math.nan, method="one bin: no interval",
            definition=f"share present among images of like probability, {BINS} bins of equal mass",
            n=int(count), notes=(f"mean probability {forecast:.6g}",), **common,
        )  # fmt: skip
