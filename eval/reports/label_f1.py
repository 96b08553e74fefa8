"""F1 of labels that our own reader takes from reference and hypothesis: CheXpert's 14 classes by default."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from kvlp.eval.reports.metric import Column, Floats, check_english
from kvlp.knowledge.labels import Classes, ReportLabeler, Uncertain
from kvlp.knowledge.linking import EntityLinker
from kvlp.knowledge.linking.language import known_language

if TYPE_CHECKING:
    from kvlp.knowledge.graph import KnowledgeGraph

__all__ = ["LabelF1"]


class LabelF1:
    """F1 of the positives (label 1) of a list of classes; denied and not mentioned both count as negative.

    micro pools the decisions of all classes and reports; macro is the mean over the classes that are positive in some
    report or hypothesis. For one report both are the F1 over its classes: undefined (NaN) where neither text has a
    positive one.

    Args:
        graph: whose concepts are read.
        classes: as in `ReportLabeler`.
        uncertain: what a doubt becomes: "ones" (the usual choice for this metric), "zeros" or "graded".
        linker: to use instead of a new one; one that refuses other languages refuses such hypotheses, too.
        language: "en" refuses references that are clearly not English; None reads them anyway.
        name: of the columns: "chexpert-f1" gives "chexpert-f1-micro" and "chexpert-f1-macro".
    """

    def __init__(
        self,
        graph: KnowledgeGraph,
        classes: Classes = "chexpert14",
        *,
        uncertain: Uncertain = "ones",
        linker: EntityLinker | None = None,
        language: str | None = "en",
        name: str = "chexpert-f1",
    ) -> None:
        linker = linker or EntityLinker(graph, language=None)
        self.labeler = ReportLabeler(graph, classes, uncertain=uncertain, linker=linker)
        self._language = known_language(language)
        self.name, self._uncertain = name, uncertain

    def __call__(self, refs: Sequence[str], hyps: Sequence[str]) -> list[Column]:
        """Columns micro and macro, each in [0, 1]."""
        if self._language is not None:
            check_english(refs)
        gold, read = self._positive(refs), self._positive(hyps)
        parts = np.stack([gold & read, ~gold & read, gold & ~read], axis=1).astype(np.float64)
        each = _f1(parts.sum(axis=2).T)
        flat = parts.reshape(len(refs), -1)
        classes = len(self.labeler.classes)
        what = f"F1 of positive labels of {classes} classes by kvlp's reader, doubts as {self._uncertain}"
        return [
            Column(f"{self.name}-micro", f"{what}; all decisions pooled", each, flat, partial(_micro, classes=classes)),
            Column(
                f"{self.name}-macro",
                f"{what}; mean over classes with a positive",
                each,
                flat,
                partial(_macro, classes=classes),
            ),
        ]

    def _positive(self, texts: Sequence[str]) -> np.ndarray:
        rows = [[label == 1.0 for label in labels.values()] for labels in map(self.labeler, texts)]
        return np.asarray(rows, dtype=bool).reshape(len(texts), len(self.labeler.classes))


def _micro(sums: Floats, *, classes: int) -> Floats:
    return _f1(sums.reshape(len(sums), 3, classes).sum(axis=2).T)


def _macro(sums: Floats, *, classes: int) -> Floats:
    each = _f1(sums.reshape(len(sums), 3, classes).transpose(1, 0, 2))
    known = ~np.isnan(each)
    total = np.where(known, each, 0.0).sum(axis=1)
    return np.divide(total, known.sum(axis=1), out=np.full(total.shape, np.nan), where=known.any(axis=1))


def _f1(parts: np.ndarray) -> Floats:
    """2 tp / (2 tp + fp + fn) along the first axis; NaN where nothing is positive."""
    tp, fp, fn = parts
    below = 2 * tp + fp + fn
    return np.divide(2 * tp, below, out=np.full(below.shape, np.nan), where=below > 0)
