"""The panel of thresholds and the panel of calibration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvlp.eval.decision_rows import BINS, POINTS, reliability_of
from kvlp.eval.page.blocks import Block, Cell, Charts, Notice, Section, Table
from kvlp.eval.page.charts import Chart, Lines, Series
from kvlp.eval.page.words import interval_of, plain, titled

if TYPE_CHECKING:
    from kvlp.eval.evaluate import Evaluation

__all__ = ["decision_blocks"]

_HEADS = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "f1": "F1",
    "mcc": "MCC",
}
_CALIBRATION = {
    "brier": "Brier score",
    "ece": "calibration error",
    "calibration_slope": "slope",
    "calibration_intercept": "intercept",
}
_TEXT = "What one threshold a class does. It was chosen on other images than are scored here, or on none."
_DESCRIPTIVE = (
    "No validation images were given and the checkpoint holds no fitting calibration: the threshold is 0, where the "
    "sentences that state a class and those that deny it match alike. Read these figures as a description."
)
_CALIBRATED = (
    f"Do the probabilities mean what they say? Points: what came against what was said, in {BINS} bins of equal mass; "
    "the broken line is right. Slope 1 and intercept 0 are right; a slope below 1 says too extreme."
)
_NOT = "The scores are no probabilities: nothing was learned on validation images, so calibration cannot be judged."


def decision_blocks(result: Evaluation) -> list[Block]:
    """Thresholds with what they do, and reliability diagrams of the calibrated classes."""
    blocks: list[Block] = [Section("Thresholds", _TEXT)]
    if not any(decision.chosen for decision in result.decisions.values()):
        blocks.append(Notice(_DESCRIPTIVE))
    blocks += [_point_table(result), Section("Calibration", _CALIBRATED)]
    fitted = [name for name in result.classes if result.decisions[name].calibrator is not None]
    if not fitted:
        return [*blocks, Notice(_NOT)]
    charts: list[Chart] = []
    for title, part in titled("Reliability", fitted, 4):
        series = []
        for name in part:
            bins = reliability_of(result, name)
            if bins is not None and bins.count.size:
                series.append(Series(plain(name), bins.forecast, bins.observed))
        charts.append(Lines(title, series, "said", "came", diagonal=True, dots=True))
    return [*blocks, Charts(charts), _calibration_table(result, fitted)]


def _point_table(result: Evaluation) -> Table:
    found = {(row.metric, row.target): row for row in result.results if row.task == "threshold"}
    origins = {decision.origin for decision in result.decisions.values()}
    rows: list[list[Cell]] = []
    for name in result.classes:
        chosen = found["threshold", name]
        small = result.decisions[name].origin if len(origins) > 1 else ""
        threshold: Cell = (f"{chosen.value:.3f}".replace("-", "−"), small)
        rows.append([plain(name), threshold, *(interval_of(found[metric, name]) for metric in POINTS)])
    note = f"Threshold: {next(iter(origins))}. " if len(origins) == 1 else ""
    note += "Small print: 95 % interval over patients. PPV and NPV move with the prevalence."
    return Table(["class", "threshold", *(_HEADS[metric] for metric in POINTS)], rows, "At one threshold", note=note)


def _calibration_table(result: Evaluation, names: list[str]) -> Table:
    found = {(row.metric, row.target): row for row in result.results if row.task == "calibration"}
    rows: list[list[Cell]] = [
        [plain(name), *(interval_of(found[metric, name]) for metric in _CALIBRATION)] for name in names
    ]
    note = (
        "Small print: 95 % interval. Calibration error over 15 bins of equal width; resampled ones lean upwards. "
        "Slope and intercept: Wald intervals, images taken as independent."
    )
    return Table(["class", *_CALIBRATION.values()], rows, "Calibration by class", note=note)
