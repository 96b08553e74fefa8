"""Several images of one examination as one row: how their scores, vectors, labels and reports become the study's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kvlp.datasets.manifest import Manifest, Record
from kvlp.errors import ConfigError
from kvlp.eval.metrics import Floats

__all__ = ["POOLINGS", "Pooling", "Studies", "studies_of"]

Pooling = Literal["", "mean", "max", "embeddings"]
#: how images become a study -> in words
POOLINGS: dict[str, str] = {
    "mean": "a study's score is the mean of its images' scores",
    "max": "a study's score is the highest of its images' scores",
    "embeddings": "a study's score is that of the mean of its images' embeddings, brought to length 1",
}
#: of the labels of a study's images, the first of these that one of them has is the study's
_STRONGEST = (1.0, -1.0, 0.0)


@dataclass(frozen=True, eq=False)
class Studies:
    """Which of N images make which of S studies, and how. A study of one image has exactly that image's values.

    Attributes:
        how: "mean", "max" or "embeddings".
        owner: int (N,), the study of each image; studies are numbered in the order of their first image.
        records: S records: the first of each study's images, with the study's report, labels and views.
        differing: studies whose images have different labels for a finding.
    """

    how: str
    owner: NDArray[np.intp]
    records: list[Record]
    differing: int

    def scores(self, table: Floats) -> Floats:
        """Scores (N,) or (N, C) of the images -> (S,) or (S, C); their mean with "embeddings" too."""
        if self.how == "max":
            out = np.full((len(self.records), *table.shape[1:]), -np.inf)
            np.maximum.at(out, self.owner, table)
            return out
        return self._means(table)

    def vectors(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Unit vectors (N, D) of the images -> (S, D): their mean at length 1, whatever `how` is."""
        rows = self._means(vectors.astype(np.float64))
        several = np.bincount(self.owner, minlength=len(rows)) > 1
        rows[several] /= np.maximum(np.linalg.norm(rows[several], axis=1, keepdims=True), 1e-12)
        return rows.astype(np.float32)

    def _means(self, table: Floats) -> Floats:
        out = np.zeros((len(self.records), *table.shape[1:]))
        np.add.at(out, self.owner, table)
        counts = np.bincount(self.owner, minlength=len(out)).astype(np.float64)
        return out / counts.reshape(-1, *([1] * (table.ndim - 1)))


def studies_of(records: Sequence[Record], how: str) -> Studies:
    """Put images that share patient and study id together; one without a study id is a study of its own.

    A study has a finding that one of its images has, else is in doubt where one is, else lacks it where one lacks it.

    Raises:
        ConfigError: another way than "mean", "max" or "embeddings".
    """
    if how not in POOLINGS:
        raise ConfigError(f"studies: expected one of {', '.join(POOLINGS)}, got {how!r}")
    places: dict[int, list[int]] = {}
    for row, record in enumerate(records):
        places.setdefault(id(record), []).append(row)
    owner = np.zeros(len(records), dtype=np.intp)
    made, differing = [], 0
    for number, study in enumerate(Manifest(records).studies()):
        owner[[row for record in study.records for row in places[id(record)]]] = number
        labels, alike = _labels(study.records)
        differing += not alike
        first, report = study.records[0], study.report
        text = {} if first.report == report else {"text": report, "findings": "", "impression": ""}
        view = "+".join(sorted({record.view for record in study.records if record.view}))
        made.append(replace(first, labels=labels, view=view, **text))  # type: ignore[arg-type]
    return Studies(how, owner, made, differing)


def _labels(records: Sequence[Record]) -> tuple[dict[str, float], bool]:
    """The labels of a study, and whether no two of its images contradict each other."""
    told: dict[str, set[float]] = {}
    for record in records:
        for name, value in record.labels.items():
            if not math.isnan(value):
                told.setdefault(name, set()).add(float(value))
    labels = {name: next(v for v in _STRONGEST if v in values) for name, values in told.items()}
    return labels, all(len(values) == 1 for values in told.values())
