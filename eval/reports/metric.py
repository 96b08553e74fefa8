"""What a report metric hands back: a figure for each report, and how those of many are pooled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvlp.errors import DataError, ShapeError
from kvlp.knowledge.linking.language import language_of

__all__ = ["Column", "Floats", "ReportMetric", "check_english", "check_pairs", "mean_column"]

Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Column:
    """One figure of a metric for N pairs of reports.

    The overall figure is `pool` of the sum of `parts`, and so it is in each bootstrap sample: a corpus BLEU or a micro
    F1 is no mean of the reports' own.

    Attributes:
        name: such as "bleu-4" or "concept-graph-f1".
        definition: what it is, in one sentence.
        per_report: shape (N,); NaN where a report leaves it undefined.
        parts: shape (N, K), what adds up over reports.
        pool: (B, K) sums over B samples -> (B,) figures, NaN where undefined.
    """

    name: str
    definition: str
    per_report: Floats
    parts: Floats
    pool: Callable[[Floats], Floats]


@runtime_checkable
class ReportMetric(Protocol):
    """A metric of generated reports: one or several columns for N references and N hypotheses."""

    def __call__(self, refs: Sequence[str], hyps: Sequence[str]) -> list[Column]:
        """Score hypothesis n against reference n, for all n."""
        ...


def mean_column(name: str, definition: str, values: ArrayLike) -> Column:
    """A column whose overall figure is the mean of the reports' own; NaN rows are left out."""
    each = np.asarray(values, dtype=np.float64)
    known = ~np.isnan(each)
    parts = np.stack([np.where(known, each, 0.0), known.astype(np.float64)], axis=1)
    return Column(name, definition, each, parts, _ratio)


def check_pairs(refs: Sequence[str], hyps: Sequence[str]) -> None:
    """Refuse what is no list of pairs of texts.

    Raises:
        ShapeError: another number of hypotheses than of references.
        DataError: no pair at all, or something that is not text; the row is named, never its content.
    """
    for name, texts in (("refs", refs), ("hyps", hyps)):
        if isinstance(texts, str):
            raise DataError(f"{name}: expected a list of report texts, got one str; put it into a list")
    if len(refs) != len(hyps):
        raise ShapeError(f"expected one hypothesis a reference; got {len(refs)} refs and {len(hyps)} hyps")
    if not len(refs):
        raise DataError("expected at least one pair of reports, got none")
    for name, texts in (("refs", refs), ("hyps", hyps)):
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise DataError(f"{name}[{row}]: expected report text as str, got {type(text).__name__}")


def check_english(refs: Sequence[str]) -> None:
    """Refuse references that are clearly not English, of which a reader would find nothing.

    Hypotheses are not checked: what a system writes in another language says nothing and is scored so.

    Raises:
        DataError: the first such row and its language, never its content.
    """
    for row, text in enumerate(refs):
        found = language_of(text)
        if found is not None:
            raise DataError(
                f"refs[{row}]: expected an English reference, this looks like {found}; "
                "leave the row out, or make the metric with language=None"
            )


def _ratio(sums: Floats) -> Floats:
    top, below = sums[:, 0], sums[:, 1]
    return np.divide(top, below, out=np.full(top.shape, np.nan), where=below > 0)
