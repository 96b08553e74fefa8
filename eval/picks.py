"""Single images worth looking at: the worst errors of each class, with rows for their scores."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kvlp.eval.metrics import Floats
from kvlp.eval.results import Result

if TYPE_CHECKING:
    from kvlp.eval.evaluate import Evaluation
    from kvlp.eval.figures import QueryOutcome

__all__ = ["Errors", "error_rows", "hit_rows"]

#: classes whose errors are picked (those with the lowest AUC), and images of each kind
CLASSES, IMAGES = 6, 3


@dataclass(frozen=True, slots=True)
class Errors:
    """The images of a class that lie furthest on the wrong side of its threshold.

    Attributes:
        name: the class.
        flagged: absent and flagged, the highest first: (row, probability or score).
        missed: present and not flagged, the lowest first.
    """

    name: str
    flagged: tuple[tuple[int, float], ...]
    missed: tuple[tuple[int, float], ...]


def error_rows(result: Evaluation) -> None:
    """Pick the worst errors of the classes with the lowest AUC, and add a row for each image."""
    table = result.tables["auc", result.main_setting]
    worst = sorted((i.value, name) for name, i in table.per_class.items() if not math.isnan(i.value))[:CLASSES]
    for _, name in worst:
        c, decision = result.classes.index(name), result.decisions[name]
        values = decision.values(result.scores[result.main_setting][:, c])
        labels, above = result.y_true[:, c], values >= decision.threshold
        found = Errors(name, _first(-values, (labels == 0) & above), _first(values, (labels == 1) & ~above))
        found = Errors(name, tuple((row, -value) for row, value in found.flagged), found.missed)
        if found.flagged or found.missed:
            result.errors.append(found)
            result.results.extend(_error_rows(result, found))


def hit_rows(result: Evaluation, outcome: QueryOutcome) -> None:
    """Add a row for each of a query's first results."""
    for rank, (row, score, relevant) in enumerate(outcome.hits, 1):
        verdict = "relevant" if relevant == 1 else "not relevant"
        result.results.append(
            Result(
                metric="retrieved", target=outcome.query.text, value=score, low=math.nan, high=math.nan,
                method="one image: no interval", definition="similarity of an image among the first results",
                n=outcome.pool, task="picture", notes=(f"rank {rank}", f"{result.unit} {row + 1}", verdict),
                provenance=result.by_encoders,
            )
        )  # fmt: skip


def _first(values: Floats, wanted: NDArray[np.bool_]) -> tuple[tuple[int, float], ...]:
    rows = np.flatnonzero(wanted)
    rows = rows[np.argsort(values[rows], kind="stable")][:IMAGES]
    return tuple((int(row), float(values[row])) for row in rows)


def _error_rows(result: Evaluation, errors: Errors) -> Iterator[Result]:
    what = "score" if result.decisions[errors.name].calibrator is None else "probability"
    unit = result.unit
    for metric, images, label in (
        ("worst_false_positive", errors.flagged, "absent"),
        ("worst_false_negative", errors.missed, "present"),
    ):
        for row, value in images:
            yield Result(
                metric=metric, target=errors.name, value=value, low=math.nan, high=math.nan,
                method="one image: no interval", definition=f"{what} of an image on the wrong side of the threshold",
                n=1, setting=result.main_setting, task="picture", notes=(f"{unit} {row + 1}", f"labelled {label}"),
                provenance=result.provenance,
            )  # fmt: skip
