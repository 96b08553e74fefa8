"""Several views of a study as one sample: its images are embedded each and pooled, and meet one report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from kvlp.datasets.manifest import Manifest, Record

if TYPE_CHECKING:
    from kvlp.typing import IntArray

__all__ = ["pool_views", "study_rows", "with_study_reports"]


def with_study_reports(manifest: Manifest) -> Manifest:
    """Give every row the report of its study, the first that one of its rows has; labels likewise where a row has none.

    Rows share a study where patient and study id are the same; a row without a study id is a study of its own.
    """
    told: dict[int, tuple[str, Mapping[str, float]]] = {}
    for study in manifest.studies():
        labels = next((record.labels for record in study.records if record.labels), {})
        told.update({id(record): (study.report, labels) for record in study.records})
    return Manifest((_telling(record, *told[id(record)]) for record in manifest), manifest.root)


def _telling(record: Record, report: str, labels: Mapping[str, float]) -> Record:
    changed = {} if record.report == report else {"text": report, "findings": "", "impression": ""}
    return replace(record, **changed, labels=record.labels or labels)  # type: ignore[arg-type]


def study_rows(manifest: Manifest) -> tuple[IntArray, ...]:
    """The row numbers of each study, in order of first appearance."""
    place = {id(record): row for row, record in enumerate(manifest)}
    return tuple(np.array([place[id(record)] for record in study.records]) for study in manifest.studies())


def pool_views(features: Mapping[str, Tensor], counts: Tensor | None) -> dict[str, Tensor]:
    """The mean over the views of each study; `image_emb`, whose rows have length 1, is brought to length 1 again.

    Args:
        features: name -> (V, D), the views of one study after another.
        counts: (B,) int64, how many views each study has; their sum is V. None: nothing is pooled.

    Returns:
        name -> (B, D).
    """
    if counts is None:
        return dict(features)
    owner = torch.repeat_interleave(counts)
    means = {
        name: value.new_zeros(len(counts), value.shape[1]).index_add(0, owner, value) / counts[:, None]
        for name, value in features.items()
    }
    return {name: F.normalize(value, dim=1) if name == "image_emb" else value for name, value in means.items()}
