"""Evaluator: metrics of generated reports, for each report and overall with intervals, and two systems compared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvlp.errors import ConfigError
from kvlp.eval.intervals import Interval
from kvlp.eval.multiplicity import holm
from kvlp.eval.reports.metric import Column, Floats, ReportMetric, check_pairs
from kvlp.eval.reports.registry import DEFAULT, Tools, get_metric
from kvlp.eval.resampling import Clusters

if TYPE_CHECKING:
    from kvlp.knowledge.graph import KnowledgeGraph

__all__ = ["Comparison", "Evaluator", "ReportScores", "compare_systems"]


@dataclass(frozen=True, eq=False)
class ReportScores:
    """Scores of N hypotheses.

    Attributes:
        per_report: column -> shape (N,), NaN where undefined.
        overall: column -> figure with its 95 % interval.
        definitions: column -> what it is.
    """

    per_report: Mapping[str, Floats]
    overall: Mapping[str, Interval]
    definitions: Mapping[str, str]

    def rows(self) -> list[dict[str, Any]]:
        """The overall figures, ready for JSON: metric, value, low, high, n, n_groups, method, definition."""
        keys = ("value", "low", "high", "n", "n_groups", "n_resamples", "method")
        return [
            {"metric": name, **{k: _json(getattr(i, k)) for k in keys}, "definition": self.definitions[name]}
            for name, i in self.overall.items()
        ]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two systems on the same references by one metric.

    Attributes:
        metric: name of the column.
        a, b: their figures.
        difference: a - b with its 95 % interval and p-value (paired bootstrap: both on the same resamples).
        p_permutation: two-sided p-value from swapping the systems at random, report by report (or group by group).
        p_holm: that p-value, adjusted for the number of metrics (Holm).
    """

    metric: str
    a: float
    b: float
    difference: Interval
    p_permutation: float
    p_holm: float

    def row(self) -> dict[str, Any]:
        """All of it, ready for JSON."""
        difference = {k: _json(v) for k, v in asdict(self.difference).items()}
        figures = {k: _json(getattr(self, k)) for k in ("a", "b", "p_permutation", "p_holm")}
        return {"metric": self.metric, **figures, "difference": difference}


class Evaluator:
    """Scores generated reports.

    Args:
        metrics: names (see `kvlp.eval.reports.registry.METRICS`, "radgraph:FOLDER", "green:FOLDER") or metrics.
        graph: for those that read reports; None is the bundled one.
        n: bootstrap samples, and permutations.
        seed: their seed.

    Example:
        >>> scores = Evaluator(["bleu-4", "concept-graph-f1"])(refs=refs, hyps=hyps)
        >>> print(scores.overall["concept-graph-f1"])
        ... (... to ...)

    Raises:
        ConfigError: an unknown name, or none.
        MissingExtraError: a library is not installed; the message names the extra.
    """

    def __init__(
        self,
        metrics: Sequence[str | ReportMetric] = DEFAULT,
        *,
        graph: KnowledgeGraph | None = None,
        n: int = 1000,
        seed: int = 0,
    ) -> None:
        if isinstance(metrics, str) or not metrics:
            raise ConfigError(f"expected a list of at least one metric, got {metrics!r}")
        if n < 1:
            raise ConfigError(f"n is {n}; expected at least 1 resample (1000 is usual)")
        tools = Tools(graph)
        self._metrics = [get_metric(m, tools) if isinstance(m, str) else m for m in metrics]
        self._n, self._seed = n, seed

    def __call__(self, *, refs: Sequence[str], hyps: Sequence[str], groups: ArrayLike | None = None) -> ReportScores:
        """Score each hypothesis against its reference.

        Args:
            refs: N reference reports.
            hyps: N generated reports, in the same order.
            groups: shape (N,), the patient of each, who are drawn whole; None takes reports as independent.

        Raises:
            ShapeError, DataError: not N pairs of texts.
        """
        columns = self._columns(refs, hyps)
        clusters = Clusters.of(groups, len(refs))
        overall = {c.name: self._interval(c, clusters) for c in columns}
        return ReportScores({c.name: c.per_report for c in columns}, overall, {c.name: c.definition for c in columns})

    def compare_systems(
        self, refs: Sequence[str], a: Sequence[str], b: Sequence[str], groups: ArrayLike | None = None
    ) -> list[Comparison]:
        """Compare two systems on the same references: paired bootstrap, and a paired permutation test with Holm."""
        first, second = self._columns(refs, a), self._columns(refs, b)
        clusters = Clusters.of(groups, len(refs))
        ps = [self._permuted(one, other, clusters) for one, other in zip(first, second, strict=True)]
        adjusted = holm({one.name: p for one, p in zip(first, ps, strict=True)}).adjusted
        return [
            Comparison(
                one.name, _whole(one), _whole(other), self._difference(one, other, clusters), p, adjusted[one.name]
            )
            for one, other, p in zip(first, second, ps, strict=True)
        ]

    def _columns(self, refs: Sequence[str], hyps: Sequence[str]) -> list[Column]:
        check_pairs(refs, hyps)
        columns = [column for metric in self._metrics for column in metric(refs, hyps)]
        names = [c.name for c in columns]
        twice = [n for n in names if names.count(n) > 1]
        if twice:
            raise ConfigError(f"two metrics have a column {twice[0]!r}; leave one out or give it another name")
        return columns

    def _resampled(self, column: Column, clusters: Clusters) -> Floats:
        weights = clusters.weights(self._n, self._seed)
        return np.concatenate([column.pool(w.T.astype(np.float64) @ column.parts) for w in weights])

    def _interval(self, column: Column, clusters: Clusters) -> Interval:
        return _percentile(_whole(column), self._resampled(column, clusters), column, clusters)

    def _difference(self, one: Column, other: Column, clusters: Clusters) -> Interval:
        drawn = self._resampled(one, clusters) - self._resampled(other, clusters)
        return _percentile(_whole(one) - _whole(other), drawn, one, clusters, p=_p_of(drawn, clusters))

    def _permuted(self, one: Column, other: Column, clusters: Clusters) -> float:
        """Two-sided p-value of the difference under random swaps of the two systems within each cluster."""
        gap = one.parts - other.parts
        by_cluster = np.zeros((clusters.count, gap.shape[1]))
        np.add.at(by_cluster, clusters.number, gap)
        swap = np.random.default_rng(self._seed).integers(0, 2, size=(self._n, clusters.count)).astype(np.float64)
        moved = swap @ by_cluster
        drawn = one.pool(one.parts.sum(axis=0) - moved) - other.pool(other.parts.sum(axis=0) + moved)
        seen = abs(_whole(one) - _whole(other))
        if math.isnan(seen):
            return math.nan
        return float((1 + (np.abs(drawn) >= seen - 1e-12).sum()) / (1 + self._n))


def compare_systems(
    refs: Sequence[str],
    a: Sequence[str],
    b: Sequence[str],
    metrics: Sequence[str | ReportMetric] = DEFAULT,
    *,
    groups: ArrayLike | None = None,
    graph: KnowledgeGraph | None = None,
    n: int = 1000,
    seed: int = 0,
) -> list[Comparison]:
    """Compare two systems; `Evaluator(metrics, ...).compare_systems(refs, a, b)` in one call."""
    return Evaluator(metrics, graph=graph, n=n, seed=seed).compare_systems(refs, a, b, groups)


def _whole(column: Column) -> float:
    return float(column.pool(column.parts.sum(axis=0, keepdims=True))[0])


def _percentile(value: float, drawn: Floats, column: Column, clusters: Clusters, p: float = math.nan) -> Interval:
    known = drawn[~np.isnan(drawn)]
    counted = np.flatnonzero(~np.isnan(column.per_report))
    groups = clusters.count_at(counted) if counted.size else 0
    bounds = (
        np.quantile(known, [0.025, 0.975]) if known.size and groups > 1 and not math.isnan(value) else [math.nan] * 2
    )
    return Interval(
        value,
        float(bounds[0]),
        float(bounds[1]),
        drawn.size,
        clusters.method.replace("rows", "reports"),
        n=int(counted.size),
        n_groups=groups,
        n_degenerate=int(np.isnan(drawn).sum()),
        p=p,
        notes=("no interval: a single report or patient",) if groups == 1 else (),
    )


def _p_of(drawn: NDArray[np.float64], clusters: Clusters) -> float:
    known = drawn[~np.isnan(drawn)]
    if clusters.count < 2 or not known.size:
        return math.nan
    return float(min(1.0, 2 * (min((known <= 0).sum(), (known >= 0).sum()) + 1) / (known.size + 1)))


def _json(value: Any) -> Any:
    return None if isinstance(value, float) and math.isnan(value) else value
