"""Intervals and paired differences for metrics: bootstrap over patients, and DeLong. NumPy alone.

Images of one patient are not independent: resampling images covers far less than it says (about 77 % for a nominal
95 % at four images a patient), so rows that share a group are always drawn together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from kvlp.errors import ConfigError, ShapeError
from kvlp.eval.delong import Z95, DeLong, delong_covariance, delong_test
from kvlp.eval.metrics import METRICS, Floats, known_rows
from kvlp.eval.operating import POINT_METRICS
from kvlp.eval.percentiles import FewPositivesWarning, Interval, Known, bounds, few_notes, p_value, percentile_interval
from kvlp.eval.resampling import RESAMPLERS, Clusters, function_resampler, resample

__all__ = [
    "DeLong",
    "FewPositivesWarning",
    "Interval",
    "MetricTable",
    "auc_interval",
    "auc_table",
    "bootstrap",
    "delong_test",
    "mean_interval",
    "paired_bootstrap",
    "paired_table",
    "point_intervals",
]

Metric: TypeAlias = str | Callable[[ArrayLike, ArrayLike], float]


@dataclass(frozen=True, slots=True)
class MetricTable:
    """A metric (or a difference) for every class and its macro mean, all from the same resamples.

    Attributes:
        metric: its name.
        per_class: class name -> interval.
        macro: interval of the mean over the defined classes.
        undefined: names of the classes that the labels do not define; they are in no mean.
        samples: class name -> the resampled values, shape (n,), NaN where undefined in that resample.
    """

    metric: str
    per_class: Mapping[str, Interval]
    macro: Interval
    undefined: tuple[str, ...]
    samples: Mapping[str, Floats]

    def mean(self, names: Sequence[str]) -> Interval:
        """Macro interval over some of the classes, from the same resamples."""
        return _macro(self.per_class, self.samples, names)


def bootstrap(
    metric: Metric,
    y_true: ArrayLike,
    y_score: ArrayLike,
    groups: ArrayLike | None = None,
    n: int = 1000,
    seed: int = 0,
    *,
    unit: str = "group",
    force: bool = False,
) -> Interval:
    """Percentile bootstrap interval (95 %) of a metric, drawing whole groups (patients).

    Args:
        metric: "auc", "average_precision", or any function (y_true, y_score) -> float. The named two take a fast way.
        y_true: shape (N,); 1, 0, -1 or NaN; rows of the last two are left out.
        y_score: shape (N,).
        groups: shape (N,), the patient of each row; None takes rows as independent.
        n: resamples.
        seed: the same seed gives the same interval, in any order of the rows if `groups` is given.
        unit: "group", or "image" to draw rows although groups are given.
        force: with unit="image", go on although groups repeat.

    Raises:
        ConfigError: unit="image" and a group repeats, unless `force`; or an unknown metric.
        ShapeError, DataError: see `kvlp.eval.metrics.known_rows`.
    """
    known = known_rows(y_true, y_score)
    clusters = Clusters.of(groups, np.size(y_true), unit=unit, force=force)
    (samples,) = _samples(metric, [known], clusters, n, seed)
    return percentile_interval(_value(metric, known), samples, known, clusters)


def paired_bootstrap(
    metric: Metric,
    y_true: ArrayLike,
    score_a: ArrayLike,
    score_b: ArrayLike,
    groups: ArrayLike | None = None,
    n: int = 1000,
    seed: int = 0,
) -> Interval:
    """Interval of metric(a) - metric(b) on the same rows, both computed on the same resamples.

    One class: arrays of shape (N,). Several: all three of shape (N, C), and the difference is that of the macro means.
    The p-value is twice the smaller share of resampled differences on one side of 0, and never below 1 / (n + 1).
    """
    if np.ndim(y_true) == 2:
        return paired_table(_metric_name(metric), y_true, score_a, score_b, groups, n=n, seed=seed).macro
    a, b = known_rows(y_true, score_a), known_rows(y_true, score_b)
    clusters = Clusters.of(groups, np.size(y_true))
    drawn_a, drawn_b = _samples(metric, [a, b], clusters, n, seed)
    value = _value(metric, a) - _value(metric, b)
    return percentile_interval(value, drawn_a - drawn_b, a, clusters, difference=True)


def auc_table(
    y_true: ArrayLike,
    y_score: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    names: Sequence[str] | None = None,
    metric: str = "auc",
    n: int = 1000,
    seed: int = 0,
) -> MetricTable:
    """Per-class and macro AUC (or average precision) with intervals over patients, all classes on the same resamples.

    Args:
        y_true: shape (N, C); 1, 0, -1 or NaN, each class with its own unknown rows.
        y_score: shape (N, C).
        groups: shape (N,), the patient of each row; None takes rows as independent.
        names: C class names; default "0", "1", ...
        metric: "auc" or "average_precision".
        n: resamples.
        seed: seed of the resamples.
    """
    labels, (scores,), classes = _table_arrays(y_true, [y_score], names)
    clusters = Clusters.of(groups, len(labels))
    columns = [known_rows(labels[:, c], scores[:, c]) for c in range(len(classes))]
    drawn = dict(zip(classes, _samples(_metric_name(metric), columns, clusters, n, seed), strict=True))
    values = {name: _value(metric, column) for name, column in zip(classes, columns, strict=True)}
    return _table(metric, values, drawn, columns, clusters)


def paired_table(
    metric: Metric,
    y_true: ArrayLike,
    score_a: ArrayLike,
    score_b: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    names: Sequence[str] | None = None,
    n: int = 1000,
    seed: int = 0,
) -> MetricTable:
    """Differences a - b per class and of the macro means, every one on the same resamples. Shapes as in `auc_table`."""
    labels, (first, second), classes = _table_arrays(y_true, [score_a, score_b], names)
    clusters = Clusters.of(groups, len(labels))
    name = _metric_name(metric)
    a = [known_rows(labels[:, c], first[:, c]) for c in range(len(classes))]
    b = [known_rows(labels[:, c], second[:, c]) for c in range(len(classes))]
    samples = _samples(name, a + b, clusters, n, seed)
    drawn = {c: samples[i] - samples[i + len(a)] for i, c in enumerate(classes)}
    values = {c: _value(name, a[i]) - _value(name, b[i]) for i, c in enumerate(classes)}
    return _table(name, values, drawn, a, clusters, difference=True)


def point_intervals(
    y_true: ArrayLike,
    y_score: ArrayLike,
    threshold: float,
    groups: ArrayLike | None = None,
    *,
    n: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """Sensitivity, specificity, PPV, NPV, F1, MCC and Youden's J at one threshold, all on the same resamples.

    A share of 0 or 1 is the same in every resample. Its interval is then the exact binomial bound over the groups that
    it is about (at 1 of n: from 0.025 ** (1 / n) to 1).

    Args:
        y_true: shape (N,); 1, 0, -1 or NaN; rows of the last two are left out.
        y_score: shape (N,).
        threshold: flagged is score >= threshold; chosen on other data, see `kvlp.eval.choose_threshold`.
        groups: shape (N,), the patient of each row; None takes rows as independent.
        n: resamples.
        seed: seed of the resamples.
    """
    known = known_rows(y_true, y_score)
    positive, flagged = known[0], known[1] >= threshold
    clusters = Clusters.of(groups, np.size(y_true))
    cells = np.stack([positive & flagged, ~positive & flagged, positive & ~flagged, ~positive & ~flagged], axis=1)
    sums = clusters.sums(cells.astype(np.float64), known[2])
    drawn = clusters.sample_sums(sums, n, seed)
    few = few_notes(positive)
    table = {}
    for name, function in POINT_METRICS.items():
        interval = percentile_interval(
            float(function(*sums.sum(axis=0))), function(*drawn), known, clusters, positives=False
        )
        about = [sums[:, list(_ABOUT[name])].any(axis=1).sum()] if name in _ABOUT else []
        table[name] = replace(_at_the_end(interval, *map(int, about)), notes=(*interval.notes, *few))
    return table


#: share -> the cells (of tp, fp, fn, tn) that it is about
_ABOUT = {"sensitivity": (0, 2), "specificity": (1, 3), "ppv": (0, 1), "npv": (2, 3)}


def _at_the_end(interval: Interval, about: int = 0) -> Interval:
    """The exact bound for a share of 0 or 1 among `about` groups; other intervals as they are."""
    if not about or interval.value not in (0.0, 1.0) or math.isnan(interval.low):
        return interval
    far = 0.025 ** (1 / about)
    low, high = (far, 1.0) if interval.value == 1 else (0.0, 1 - far)
    unit = "patients" if interval.method.endswith("patients") else "rows"
    return replace(interval, low=low, high=high, method=f"exact binomial bound over {about} {unit}", n_resamples=0)


def mean_interval(
    values: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    over: ArrayLike | None = None,
    unit: str = "",
    n: int = 1000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of a mean, or of a ratio of two means if `over` is given.

    Args:
        values: shape (N,); NaN rows are left out.
        groups: shape (N,), rows drawn together; None takes rows as independent.
        over: shape (N,), the denominator (for a lift: the prevalence of each query).
        unit: what is drawn, in words for the method; default "patients" or "rows".
        n: resamples.
        seed: seed of the resamples.
    """
    top = np.asarray(values, dtype=np.float64)
    below = np.ones_like(top) if over is None else np.asarray(over, dtype=np.float64)
    clusters = Clusters.of(groups, top.size)
    rows = np.flatnonzero(~np.isnan(top) & ~np.isnan(below))
    known = (np.zeros(rows.size, dtype=bool), top[rows], rows)
    if not rows.size:
        return Interval(math.nan, math.nan, math.nan, n, clusters.method, notes=("undefined: no value to average",))
    sums = clusters.sums(np.stack([top[rows], below[rows]], axis=1), rows)
    samples = _ratio(*clusters.sample_sums(sums, n, seed))
    value = float(_ratio(top[rows].sum(), below[rows].sum()))
    interval = percentile_interval(value, samples, known, clusters, positives=False)
    return replace(interval, method=f"percentile bootstrap of {unit}") if unit else interval


def auc_interval(
    y_true: ArrayLike, y_score: ArrayLike, groups: ArrayLike | None = None, *, logit: bool = True
) -> Interval:
    """DeLong's analytic 95 % interval of one AUC; with groups, of whole patients (Obuchowski's variance).

    On the logit scale it stays within [0, 1] and covers better for AUCs near 1.

    Args:
        y_true: shape (N,); 1, 0, -1 or NaN; rows of the last two are left out.
        y_score: shape (N,).
        groups: shape (N,), the patient of each row; None takes rows as independent.
        logit: work on the logit scale.
    """
    known = known_rows(y_true, y_score)
    clusters = Clusters.of(groups, np.size(y_true))
    aucs, cov = delong_covariance(known[0], known[1][None], clusters.number[known[2]])
    value, error = float(aucs[0]), float(np.sqrt(np.maximum(cov[0, 0], 0.0)))
    low, high = value - Z95 * error, value + Z95 * error
    if logit and 0 < value < 1:
        middle, half = math.log(value / (1 - value)), Z95 * error / (value * (1 - value))
        low, high = _expit(middle - half), _expit(middle + half)
    taken = "patients as groups" if clusters.grouped else "rows taken as independent"
    return Interval(
        value=value,
        low=low,
        high=high,
        n_resamples=0,
        method=f"{'logit ' if logit else ''}DeLong, {taken}",
        n=known[2].size,
        n_groups=clusters.count_at(known[2]),
        n_positive=int(known[0].sum()),
        notes=few_notes(known[0]),
    )


def _samples(metric: Metric, columns: Sequence[Known], clusters: Clusters, n: int, seed: int) -> list[Floats]:
    """The metric of every column on every resample: arrays of shape (n,)."""
    if n < 1:
        raise ConfigError(f"n is {n}; expected at least 1 resample (1000 is usual)")
    name = _metric_name(metric) if not callable(metric) or metric in METRICS.values() else ""
    make = RESAMPLERS[name] if name else function_resampler(_called(metric))
    makers = [make(positive, scores, clusters.number[rows]) for positive, scores, rows in columns]
    return list(resample(makers, clusters, n, seed, threads=bool(name)))


def _value(metric: Metric, known: Known) -> float:
    positive, scores, _ = known
    if not positive.any() or positive.all():
        return math.nan
    return float(_called(metric)(positive.astype(np.float64), scores))


def _called(metric: Metric) -> Callable[[ArrayLike, ArrayLike], float]:
    return metric if callable(metric) else METRICS[_metric_name(metric)]


def _metric_name(metric: Metric) -> str:
    for name, function in METRICS.items():
        if metric in (name, function):
            return name
    raise ConfigError(f"metric {metric!r} is not known here; expected one of {', '.join(METRICS)}")


def _table(
    metric: Metric,
    values: Mapping[str, float],
    drawn: Mapping[str, Floats],
    columns: Sequence[Known],
    clusters: Clusters,
    *,
    difference: bool = False,
) -> MetricTable:
    per_class = {
        name: percentile_interval(value, drawn[name], known, clusters, name=name, difference=difference)
        for (name, value), known in zip(values.items(), columns, strict=True)
    }
    undefined = tuple(name for name, value in values.items() if math.isnan(value))
    return MetricTable(_metric_name(metric), per_class, _macro(per_class, drawn, list(values)), undefined, drawn)


def _macro(per_class: Mapping[str, Interval], drawn: Mapping[str, Floats], names: Iterable[str]) -> Interval:
    """Mean over the defined classes; in a resample, over those that are defined in it."""
    asked = list(names)
    missing = [name for name in asked if name not in per_class]
    if missing:
        raise ConfigError(f"no class {missing[0]!r} in this table; it has {', '.join(per_class)}")
    defined = [name for name in asked if not math.isnan(per_class[name].value)]
    undefined = [name for name in asked if name not in defined]
    notes = (f"undefined and left out: {', '.join(undefined)}",) if undefined else ()
    if not defined:
        return Interval(math.nan, math.nan, math.nan, 0, "undefined for every class", notes=notes)
    first = per_class[defined[0]]
    table = np.stack([drawn[name] for name in defined])
    held = ~np.isnan(table)
    samples = _ratio(np.where(held, table, 0.0).sum(axis=0), held.sum(axis=0).astype(np.float64))
    value = math.fsum(per_class[name].value for name in defined) / len(defined)
    low, high = bounds(value, samples)
    return Interval(
        value=value,
        low=low,
        high=high,
        n_resamples=first.n_resamples,
        method=f"{first.method}, the same resamples for every class",
        n=max(per_class[name].n for name in defined),
        n_groups=max(per_class[name].n_groups for name in defined),
        n_positive=sum(per_class[name].n_positive for name in defined),
        n_degenerate=int((~held).any(axis=0).sum()),
        p=p_value(samples) if not math.isnan(first.p) else math.nan,
        notes=notes,
    )


def _table_arrays(
    y_true: ArrayLike, y_scores: Sequence[ArrayLike], names: Sequence[str] | None
) -> tuple[Floats, list[Floats], list[str]]:
    labels = np.asarray(y_true, dtype=np.float64)
    scores = [np.asarray(score, dtype=np.float64) for score in y_scores]
    for score in scores:
        if labels.ndim != 2 or score.shape != labels.shape:
            raise ShapeError(f"y_true and scores must both have shape (N, C); got {labels.shape} and {score.shape}")
    classes = [str(c) for c in range(labels.shape[1])] if names is None else list(names)
    if len(classes) != labels.shape[1] or len(set(classes)) != len(classes):
        raise ShapeError(f"names must be {labels.shape[1]} different class names; got {len(classes)}")
    return labels, scores, classes


def _expit(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _ratio(top: ArrayLike, below: ArrayLike) -> Floats:
    top, below = np.asarray(top, dtype=np.float64), np.asarray(below, dtype=np.float64)
    return np.divide(top, below, out=np.full(top.shape, np.nan), where=below > 0)
