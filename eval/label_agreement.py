"""How well labels read from reports agree with a gold standard: F1 by class, micro and macro, with intervals.

The gold says yes or no; what is not mentioned, denied or (by the labeler's setting) doubtful counts as no.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kvlp.errors import DataError
from kvlp.eval.resampling import Clusters
from kvlp.typing import Assertion

if TYPE_CHECKING:
    from kvlp.knowledge.labels import LabelMap
    from kvlp.knowledge.linking import Mention

__all__ = ["Agreement", "Disagreement", "agreement", "disagreements", "gold_column", "present_labels"]

_YES, _NO = {"1", "1.0", "true", "yes"}, {"0", "0.0", "false", "no", "-1", "-1.0", ""}


@dataclass(frozen=True, slots=True)
class Agreement:
    """F1 of one class, or of all: "micro" pools the decisions, "macro" averages classes with enough positives.

    Attributes:
        name: class, "micro" or "macro".
        f1, low, high: value and 95 % interval (percentile bootstrap of reports); NaN where the gold has no positive.
        precision, recall: of the same decisions; NaN for "macro".
        tp, fp, fn: counts of reports; for "macro", 0.
        n_positive: positive reports in the gold; for "macro", how many classes it averages.
    """

    name: str
    f1: float
    low: float
    high: float
    precision: float
    recall: float
    tp: int
    fp: int
    fn: int
    n_positive: int


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One report and class where reading and gold differ; it holds no text.

    Attributes:
        report: id of the report.
        name: class.
        kind: "false positive" or "miss".
        phenomenon: what the reading said: present, a grade of doubt, absent, not mentioned.
        start, end: offsets of the mention that decided, or -1.
    """

    report: str
    name: str
    kind: str
    phenomenon: str
    start: int = -1
    end: int = -1


def present_labels(labels: LabelMap, mentions: Sequence[Sequence[Mention]]) -> NDArray[np.bool_]:
    """Read reports as yes and no, shape (N, C): a label of 1 is present, every other is not."""
    rows = [[row[c] == 1.0 for c in labels.classes] for row in map(labels, mentions)]
    return np.asarray(rows, dtype=bool).reshape(len(mentions), len(labels.classes))


def gold_column(cells: Sequence[str], name: str) -> NDArray[np.bool_]:
    """A gold column of a table as yes and no.

    Raises:
        DataError: a cell that is neither; the row is named.
    """
    for row, cell in enumerate(cells, 1):
        if cell.strip().lower() not in _YES | _NO:
            raise DataError(f"gold column '{name}', row {row}: expected 1 or 0, got {len(cell)} other characters")
    return np.asarray([cell.strip().lower() in _YES for cell in cells], dtype=bool)


def agreement(
    gold: NDArray[np.bool_],
    read: NDArray[np.bool_],
    classes: Sequence[str],
    *,
    least_positives: int = 10,
    groups: Sequence[str] | None = None,
    n: int = 1000,
    seed: int = 0,
) -> list[Agreement]:
    """F1 of each class, then "micro" over all of them and "macro" over those with at least `least_positives`.

    Args:
        gold: shape (N, C).
        read: shape (N, C).
        classes: C names.
        least_positives: classes with fewer positive reports stay out of the macro.
        groups: shape (N,), reports that are drawn together; None draws single reports.
        n: bootstrap samples.
        seed: their seed.
    """
    if gold.shape != read.shape or gold.shape[1] != len(classes):
        raise DataError(f"gold {gold.shape} and read {read.shape} must both be (reports, {len(classes)} classes)")
    parts = np.stack([gold & read, ~gold & read, gold & ~read]).astype(np.float32)
    whole = parts.sum(axis=1)
    enough = gold.sum(axis=0) >= least_positives
    clusters = Clusters.of(groups, len(gold))
    drawn = np.concatenate([np.einsum("knc,nb->kbc", parts, w) for w in clusters.weights(n, seed)], axis=1)
    rows = []
    for c, name in enumerate(classes):
        row = _row(name, whole[:, c], drawn[:, :, c])
        rows.append(row if row.n_positive else replace(row, f1=np.nan, low=np.nan, high=np.nan))
    rows.append(_row("micro", whole.sum(axis=1), drawn.sum(axis=2)))
    rows.append(_macro(whole[:, enough], drawn[:, :, enough]))
    return rows


def disagreements(
    ids: Sequence[str], gold: NDArray[np.bool_], labels: LabelMap, mentions: Sequence[Sequence[Mention]]
) -> Iterator[Disagreement]:
    """Every report and class where reading and gold differ, in order, with what the reading said there."""
    read = present_labels(labels, mentions)
    for n, report in enumerate(ids):
        for c, name in enumerate(labels.classes):
            if gold[n, c] != read[n, c]:
                kind = "miss" if gold[n, c] else "false positive"
                yield _because(Disagreement(report, name, kind, "not mentioned"), labels, mentions[n])


def _because(case: Disagreement, labels: LabelMap, mentions: Sequence[Mention]) -> Disagreement:
    evidence = labels.evidence(case.name, mentions)
    if not evidence:
        return case
    order = (Assertion.ABSENT, Assertion.UNCERTAIN, Assertion.PRESENT)
    mention, says = max(evidence, key=lambda pair: order.index(pair[1]))
    said = mention.doubt or "possible" if says is Assertion.UNCERTAIN else says.value
    return replace(case, phenomenon=said, start=mention.start, end=mention.end)


def _f1(parts: NDArray[np.floating]) -> NDArray[np.floating]:
    """2 tp / (2 tp + fp + fn) along the first axis (tp, fp, fn); 0 / 0 is 0."""
    tp, fp, fn = parts
    below = 2 * tp + fp + fn
    return np.divide(2 * tp, below, out=np.zeros_like(below), where=below > 0)


def _row(name: str, whole: NDArray[np.floating], drawn: NDArray[np.floating]) -> Agreement:
    tp, fp, fn = (int(v) for v in whole)
    low, high = np.percentile(_f1(drawn), [2.5, 97.5])
    precision = tp / (tp + fp) if tp + fp else np.nan
    recall = tp / (tp + fn) if tp + fn else np.nan
    return Agreement(name, float(_f1(whole)), float(low), float(high), precision, recall, tp, fp, fn, tp + fn)


def _macro(whole: NDArray[np.floating], drawn: NDArray[np.floating]) -> Agreement:
    count = whole.shape[1]
    if not count:
        return Agreement("macro", np.nan, np.nan, np.nan, np.nan, np.nan, 0, 0, 0, 0)
    low, high = np.percentile(_f1(drawn).mean(axis=-1), [2.5, 97.5])
    value = float(_f1(whole).mean())
    return Agreement("macro", value, float(low), float(high), np.nan, np.nan, 0, 0, 0, count)
