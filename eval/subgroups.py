"""Does a model do alike for everyone? AUC and rates by group of patients, and the gaps between groups.

Every group of an attribute is measured on the same resamples of patients, so that gaps are paired. Groups of fewer than
`k` patients are hidden, and so are the counts from which the size of a hidden group could be worked out. NumPy alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvlp.errors import ShapeError
from kvlp.eval.gaps import gap
from kvlp.eval.grouping import Attribute, Attributes, Shown, parse_attributes
from kvlp.eval.metrics import Bools, Floats, auc
from kvlp.eval.percentiles import FEW, Interval, bounds, p_value
from kvlp.eval.resampling import Clusters, auc_resampler, resample

__all__ = ["MEAN", "METRICS", "SubgroupFigure", "SubgroupPlan", "subgroup_figures", "subgroup_rate"]

Kind: TypeAlias = Literal["group", "rest", "gap"]
#: what `subgroup_figures` measures
METRICS = ("auc", "sensitivity", "false_positive_rate")
#: target of the means over classes
MEAN = "macro"
_UNTOLD = "counts not told: with them the size of a hidden group could be worked out"


@dataclass(frozen=True, slots=True)
class SubgroupPlan:
    """How groups are compared.

    Attributes:
        k: groups of fewer patients are hidden.
        pairs: also every pair of attributes ("age and sex").
        rest: also each group minus all others of its attribute (not for pairs).
        n: resamples of patients.
        seed: of the resamples.
    """

    k: int = 5
    pairs: bool = True
    rest: bool = True
    n: int = 1000
    seed: int = 0


@dataclass(frozen=True, slots=True)
class SubgroupFigure:
    """One figure of one group, or of a gap.

    Attributes:
        target: the class, or "macro" for the mean over the classes that all groups define (but for groups that define
            fewer than half of them, which have no mean).
        attribute: "sex", or "age and sex".
        group: "female"; for a gap both groups, the larger figure first: "female minus male".
        metric: "auc", "sensitivity", "false_positive_rate", or the name of a rate.
        kind: "group" the figure itself; "rest" it minus that of all others; "gap" the largest minus the smallest.
        interval: the figure; NaN where it is hidden or undefined.
        hidden: fewer than `k` patients.
        counted: whether the interval's counts are told.
        pair: whether the attribute is a pair.
    """

    target: str
    attribute: str
    group: str
    metric: str
    kind: Kind
    interval: Interval
    hidden: bool = False
    counted: bool = True
    pair: bool = False


def subgroup_figures(
    y_true: ArrayLike,
    y_score: ArrayLike,
    flagged: ArrayLike,
    attributes: Attributes,
    patients: ArrayLike | None = None,
    *,
    names: Sequence[str] | None = None,
    plan: SubgroupPlan | None = None,
) -> list[SubgroupFigure]:
    """AUC, sensitivity and false positive rate of every group, class by class and as means over the classes.

    Args:
        y_true: shape (N, C); 1, 0, -1 or NaN; rows of the last two are left out of that class.
        y_score: shape (N, C).
        flagged: shape (N, C), whether a score reached its class's one threshold, which is the same for all groups.
        attributes: attribute -> the group of each of the N rows; "" for not known, which is left out.
        patients: shape (N,), the patient of each row; None takes rows as independent.
        names: C class names; default "0", "1", ...
        plan: how.

    A figure is undefined (NaN) where a group lacks one of the two labels; it is then in no gap and no mean.
    """
    plan = plan or SubgroupPlan()
    labels, scores, flags = (np.asarray(a, dtype=np.float64) for a in (y_true, y_score, flagged))
    if labels.ndim != 2 or not labels.shape == scores.shape == flags.shape:
        raise ShapeError(
            f"y_true, y_score and flagged must all have shape (N, C); got {labels.shape}, {scores.shape}, {flags.shape}"
        )
    classes = [str(c) for c in range(labels.shape[1])] if names is None else list(names)
    clusters, known = Clusters.of(patients, len(labels)), np.isin(labels, (0.0, 1.0))
    found: list[SubgroupFigure] = []
    for attribute in parse_attributes(attributes, len(labels), pairs=plan.pairs):
        panel = _Panel(attribute, clusters, plan)
        shown = [panel.shown(column) for column in known.T]
        rates = [(name, metric) for metric in METRICS[1:] for name in classes]
        about = np.concatenate([labels == 1, labels == 0], axis=1)
        measured = panel.aucs(classes, labels, scores, shown)
        measured += panel.rates(rates, np.tile(flags > 0, 2), about, shown * 2)
        if len(classes) > 1:
            whole = panel.shown(known.any(axis=1))
            measured += [panel.mean([m for m in measured if m.metric == metric], whole) for metric in METRICS]
        found += [figure for one in measured for figure in panel.figures(one)]
    return found


def subgroup_rate(
    event: ArrayLike,
    about: ArrayLike,
    attributes: Attributes,
    patients: ArrayLike | None = None,
    *,
    target: str,
    metric: str,
    plan: SubgroupPlan | None = None,
) -> list[SubgroupFigure]:
    """The share of rows `about` with an `event`, by group: for example of ill patients whom a model calls healthy.

    Args:
        event: shape (N,), bool.
        about: shape (N,), bool: the rows that count; `k` is about the patients among them.
        attributes: as in `subgroup_figures`.
        patients: shape (N,).
        target: of the figures.
        metric: name of the rate.
        plan: how.
    """
    plan = plan or SubgroupPlan()
    happened, counted = np.asarray(event, dtype=bool), np.asarray(about, dtype=bool)
    if happened.ndim != 1 or happened.shape != counted.shape:
        raise ShapeError(f"event and about must both have shape (N,); got {happened.shape} and {counted.shape}")
    clusters = Clusters.of(patients, len(counted))
    found: list[SubgroupFigure] = []
    for attribute in parse_attributes(attributes, len(counted), pairs=plan.pairs):
        panel = _Panel(attribute, clusters, plan)
        measured = panel.rates([(target, metric)], happened[:, None], counted[:, None], [panel.shown(counted)])
        found += [figure for one in measured for figure in panel.figures(one)]
    return found


@dataclass(frozen=True, slots=True)
class _Measured:
    """A metric of all groups on the same resamples; NaN where it is hidden or undefined."""

    target: str
    metric: str
    shown: Shown
    intervals: Sequence[Interval]  # G
    samples: Floats  # (G, n)
    rest: tuple[Floats, Floats]  # (G,) and (G, n): the same of all others; NaN if not asked for


class _Panel:
    """One attribute and the resamples that all its figures share."""

    def __init__(self, attribute: Attribute, clusters: Clusters, plan: SubgroupPlan) -> None:
        self.attribute, self.clusters, self.plan = attribute, clusters, plan
        self.size = len(attribute.groups)
        self.with_rest = plan.rest and not attribute.pair

    def shown(self, counts: Bools) -> Shown:
        """Which groups are shown, of the rows that count."""
        return Shown.of(self.attribute, counts, self.clusters, self.plan.k)

    def aucs(self, names: Sequence[str], labels: Floats, scores: Floats, shown: Sequence[Shown]) -> list[_Measured]:
        """AUC of every class in every group, all in one pass over the resamples."""
        values = np.full((2, len(names), self.size), np.nan)
        samples = np.full((*values.shape, self.plan.n), np.nan)
        places, makers = [], []
        for rest, c, g, rows in self._parts(labels, shown):
            values[rest, c, g] = auc(labels[rows, c], scores[rows, c])
            if not math.isnan(values[rest, c, g]):
                places.append((rest, c, g))
                makers.append(auc_resampler(labels[rows, c] == 1, scores[rows, c], self.clusters.number[rows]))
        if makers:
            samples[tuple(np.transpose(places))] = resample(makers, self.clusters, self.plan.n, self.plan.seed)
        measured = []
        for c, name in enumerate(names):
            table = [
                self._interval(values[0, c, g], samples[0, c, g], shown[c], g, counts=self._labels(labels[:, c], g))
                for g in range(self.size)
            ]
            rest_of = (values[1, c], samples[1, c])
            measured.append(_Measured(name, METRICS[0], shown[c], table, samples[0, c], rest_of))
        return measured

    def _parts(self, labels: Floats, shown: Sequence[Shown]) -> Iterator[tuple[int, int, int, Bools]]:
        """0 for a group or 1 for all others, class, group, and their rows."""
        known = np.isin(labels, (0.0, 1.0)) & (self.attribute.number >= 0)[:, None]
        for g in range(self.size):
            own = self.attribute.number == g
            for c in range(labels.shape[1]):
                if not shown[c].hidden[g]:
                    yield 0, c, g, known[:, c] & own
                    if self.with_rest:
                        yield 1, c, g, known[:, c] & ~own

    def _labels(self, label: Floats, group: int) -> tuple[int, int]:
        """Rows of a group with a known label, and those present."""
        own = label[self.attribute.number == group]
        return int(np.isin(own, (0.0, 1.0)).sum()), int((own == 1).sum())

    def rates(
        self, titles: Sequence[tuple[str, str]], event: NDArray, about: NDArray, shown: Sequence[Shown]
    ) -> list[_Measured]:
        """R shares of rows `about` (N, R) that have the `event` (N, R), in every group."""
        rows = np.flatnonzero(self.attribute.number >= 0)
        cells = np.concatenate([event & about, about], axis=1)[rows].astype(np.float64)
        sums = np.zeros((self.clusters.count * self.size, cells.shape[1]))
        np.add.at(sums, self.clusters.number[rows] * self.size + self.attribute.number[rows], cells)
        each = sums.reshape(self.clusters.count, -1)
        drawn = self.clusters.sample_sums(each, self.plan.n, self.plan.seed)
        tops, wholes = drawn.reshape(self.size, 2, len(titles), -1).swapaxes(0, 1)  # (G, R, n)
        top, whole = each.sum(axis=0).reshape(self.size, 2, len(titles)).swapaxes(0, 1)  # (G, R)
        patients = (each.reshape(-1, self.size, 2, len(titles))[:, :, 1] > 0).sum(axis=0)
        measured = []
        for r, title in enumerate(titles):
            hidden = shown[r].hidden
            values = np.where(hidden, np.nan, _share(top[:, r], whole[:, r]))
            samples = np.where(hidden[:, None], np.nan, _share(tops[:, r], wholes[:, r]))
            table = [
                self._rate(values[g], samples[g], shown[r], g, (int(whole[g, r]), int(patients[g, r])))
                for g in range(self.size)
            ]
            measured.append(_Measured(*title, shown[r], table, samples, self._others(top, whole, tops, wholes, r)))
        return measured

    def _others(self, top: Floats, whole: Floats, tops: Floats, wholes: Floats, r: int) -> tuple[Floats, Floats]:
        """A rate of all rows but those of each group, and the same on the resamples."""
        value = _share(top[:, r].sum() - top[:, r], whole[:, r].sum() - whole[:, r])
        return value, _share(tops[:, r].sum(axis=0) - tops[:, r], wholes[:, r].sum(axis=0) - wholes[:, r])

    def _rate(self, value: float, samples: Floats, shown: Shown, g: int, counts: tuple[int, int]) -> Interval:
        rows, patients = counts
        made = replace(self._interval(value, samples, shown, g, counts=(rows, rows)), n_positive=0, n_groups=patients)
        if math.isnan(value):
            return replace(made, notes=("undefined: no row that it is about",))
        if value not in (0.0, 1.0):
            return replace(made, notes=())
        far = 0.025 ** (1 / patients)  # the same in every resample: the exact binomial bound instead
        low, high = (far, 1.0) if value == 1 else (0.0, 1 - far)
        method = f"exact binomial bound over {patients} patients"
        return replace(made, low=low, high=high, method=method, n_resamples=0, notes=())

    def mean(self, measured: Sequence[_Measured], shown: Shown) -> _Measured:
        """The mean over the classes that all groups define; a group that defines fewer than half of them has none."""
        table = np.array([[interval.value for interval in m.intervals] for m in measured])  # (C, G)
        defined = ~np.isnan(table)
        some = defined.any(axis=1)
        able = ~shown.hidden & (2 * defined[some].sum(axis=0) >= max(some.sum(), 1))
        whole = defined[:, able].all(axis=1) if able.any() else np.zeros(len(measured), dtype=bool)
        used = [m for m, here in zip(measured, whole, strict=True) if here]
        left = ", ".join(m.target for m, here in zip(measured, whole, strict=True) if not here)
        notes = (f"classes that some group does not define, left out: {left}",) if left else ()
        blank = np.full_like(measured[0].samples, np.nan)
        samples = np.where(able[:, None], np.mean([m.samples for m in used], axis=0), np.nan) if used else blank
        made = [self._mean_interval(used if able[g] else [], samples[g], shown, g, notes) for g in range(self.size)]
        rests = [np.mean([m.rest[i] for m in used], axis=0) for i in (0, 1)] if used else [blank[:, 0], blank]
        return _Measured(MEAN, measured[0].metric, shown, made, samples, (rests[0], rests[1]))

    def _mean_interval(
        self, used: Sequence[_Measured], samples: Floats, shown: Shown, g: int, notes: tuple[str, ...]
    ) -> Interval:
        own = [m.intervals[g] for m in used]
        value = math.fsum(i.value for i in own) / len(own) if own else math.nan
        made = self._interval(value, samples, shown, g, counts=(max((i.n for i in own), default=0), 0))
        why = notes if own else ("undefined: defines too few of the classes",)
        return replace(made, n_positive=sum(i.n_positive for i in own), notes=why)

    def _interval(self, value: float, samples: Floats, shown: Shown, g: int, *, counts: tuple[int, int]) -> Interval:
        """Interval of a group's figure; `counts` are its rows and those present."""
        low, high = bounds(value, samples)
        if shown.patients[g] < 2 or low == high:  # a figure that no resample moves is not certain
            low, high = math.nan, math.nan
        n, present = counts
        notes: tuple[str, ...] = ()
        if math.isnan(value):
            notes = ("undefined: one of the two labels is missing",)
        elif min(present, n - present) < FEW:
            notes = (f"only {present} positives and {n - present} negatives: the interval is not to be relied on",)
        return Interval(
            value=float(value),
            low=low,
            high=high,
            n_resamples=samples.size,
            method=self.clusters.method,
            n=n,
            n_groups=int(shown.patients[g]),
            n_positive=present,
            n_degenerate=int(np.isnan(samples).sum()),
            notes=notes,
        )

    def figures(self, measured: _Measured) -> Iterator[SubgroupFigure]:
        """The figure of each group, the same minus that of all others, and the gap."""
        shown, values = measured.shown, np.array([interval.value for interval in measured.intervals])
        groups, base = self.attribute.groups, self._blank(measured)
        for g, group in enumerate(groups):
            own = replace(base, group=group, interval=measured.intervals[g])
            if shown.hidden[g]:
                note = (f"hidden: fewer than {self.plan.k} patients",)
                yield replace(own, interval=replace(_NOTHING, notes=note), hidden=True, counted=False)
                continue
            yield own if shown.counted[g] else replace(own, interval=_untold(own.interval), counted=False)
            if self.with_rest:
                interval = _difference(values[g] - measured.rest[0][g], measured.samples[g] - measured.rest[1][g])
                yield replace(own, kind="rest", interval=interval, counted=False)
        found = gap(values, measured.samples)
        named = f"{groups[found.largest]} minus {groups[found.smallest]}" if found.largest >= 0 else ""
        low, high = (float(np.clip(end, -1, 1)) for end in (found.interval.low, found.interval.high))
        interval = replace(found.interval, low=low, high=high)
        yield replace(base, group=named, kind="gap", interval=interval, counted=False)

    def _blank(self, measured: _Measured) -> SubgroupFigure:
        pair = self.attribute.pair
        return SubgroupFigure(measured.target, self.attribute.name, "", measured.metric, "group", _NOTHING, pair=pair)


_NOTHING = Interval(math.nan, math.nan, math.nan, 0, "no interval")


def _untold(interval: Interval) -> Interval:
    """The figure without what would tell its group's size."""
    notes = tuple("few positives or negatives" if note.startswith("only") else note for note in interval.notes)
    if interval.method.startswith("exact"):
        interval = replace(interval, low=math.nan, high=math.nan, method="no interval")
    return replace(interval, n=0, n_groups=0, n_positive=0, n_degenerate=0, notes=(*notes, _UNTOLD))


def _difference(value: float, drawn: Floats) -> Interval:
    low, high = bounds(value, drawn)
    p = math.nan if math.isnan(value) else p_value(drawn)
    return Interval(float(value), low, high, drawn.size, "paired percentile bootstrap", p=p)


def _share(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
