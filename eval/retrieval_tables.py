"""Tables of retrieval figures with intervals: over queries, both ways between images and reports, and by label.

Every table holds the size of the pool that was searched, without which no such figure says anything. NumPy alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvlp.errors import ShapeError
from kvlp.eval.intervals import Interval, mean_interval
from kvlp.eval.metrics import Floats
from kvlp.eval.percentiles import bounds
from kvlp.eval.ranking import Ranking
from kvlp.eval.resampling import Clusters

__all__ = ["CrossModal", "LabelRankings", "RankingTable", "cross_modal", "label_rankings", "ranking_table"]


@dataclass(frozen=True, slots=True)
class RankingTable:
    """Figures of several queries, each over its own pool.

    Attributes:
        name: what was asked of what: "image to text".
        pool: shape (Q,), items in each query's pool.
        prevalence: shape (Q,), share of them that is relevant: what chance gives for P@k; NaN without a relevant one.
        per_query: figure -> its values (Q,); NaN for a query without a relevant item.
        means: figure -> the mean over the other queries, with its interval.
        undefined: indices of the queries without a relevant item.

    Figures: "R@k" a relevant item is among the k best (for one right answer: recall at k); "P@k" share of relevant
    items among the k best; "MRR" mean reciprocal rank of the first relevant item; "mAP" mean average precision;
    "nDCG@k" discounted gain of graded relevance over the best possible.
    """

    name: str
    pool: NDArray[np.intp]
    prevalence: Floats
    per_query: Mapping[str, Floats]
    means: Mapping[str, Interval]
    undefined: tuple[int, ...]

    @property
    def pool_text(self) -> str:
        """The pool in words: "pool of 812" or "pools of 790 to 812"."""
        if not self.pool.size:
            return "no query"
        low, high = int(self.pool.min()), int(self.pool.max())
        return f"pool of {high:,}" if low == high else f"pools of {low:,} to {high:,}"

    def __str__(self) -> str:
        judged = self.pool.size - len(self.undefined)
        figures = "; ".join(f"{figure} {interval}" for figure, interval in self.means.items())
        return f"{self.name}: {judged:,} queries, {self.pool_text}; {figures}"


def ranking_table(
    relevance: ArrayLike,
    scores: ArrayLike,
    *,
    name: str = "queries",
    ks: Sequence[int] = (1, 5, 10),
    groups: ArrayLike | None = None,
    n: int = 1000,
    seed: int = 0,
) -> RankingTable:
    """Judge Q queries over N items.

    Args:
        relevance: shape (Q, N); 0, a grade above 0, or -1 and NaN for items not in that query's pool.
        scores: shape (Q, N).
        name: what was asked of what.
        ks: cut-offs.
        groups: shape (Q,), queries resampled together (the patient of a query image); None takes them alone.
        n: resamples of queries.
        seed: seed of the resamples.

    Raises:
        ShapeError, DataError: see `kvlp.eval.ranking.Ranking.of`.
    """
    grades, ranks = np.asarray(relevance, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if grades.ndim != 2 or grades.shape != ranks.shape:
        raise ShapeError(f"relevance and scores must both have shape (Q, N); got {grades.shape} and {ranks.shape}")
    judged = [Ranking.of(row, score) for row, score in zip(grades, ranks, strict=True)]
    figures = _figures(judged, ks)
    pool = np.array([ranking.pool for ranking in judged], dtype=np.intp)
    relevant = np.array([ranking.n_relevant for ranking in judged], dtype=np.float64)
    unit = "queries" if groups is None else ""
    return RankingTable(
        name=name,
        pool=pool,
        prevalence=np.divide(relevant, pool, out=np.full(pool.shape, np.nan), where=relevant > 0),
        per_query=figures,
        means={key: mean_interval(values, groups, unit=unit, n=n, seed=seed) for key, values in figures.items()},
        undefined=tuple(int(q) for q in np.flatnonzero(relevant == 0)),
    )


@dataclass(frozen=True, slots=True)
class CrossModal:
    """Retrieval between N images and M distinct reports, both ways.

    Attributes:
        image_to_text: every image with a report asks for it among the distinct reports.
        text_to_image: every report asks for the images that it belongs to, among all images with a report.
    """

    image_to_text: RankingTable
    text_to_image: RankingTable

    def __str__(self) -> str:
        return f"{self.image_to_text}\n{self.text_to_image}"


def cross_modal(
    similarity: ArrayLike,
    target: ArrayLike,
    *,
    ks: Sequence[int] = (1, 5, 10),
    groups: ArrayLike | None = None,
    n: int = 1000,
    seed: int = 0,
) -> CrossModal:
    """Both ways from one table of similarities.

    Args:
        similarity: shape (N, M), images by distinct reports, see `kvlp.eval.distinct_reports`.
        target: shape (N,), the index of each image's report; -1 for an image without one, which is left out.
        ks: cut-offs.
        groups: shape (N,), the patient of each image. Images are resampled by patient; reports, which several patients
            may share word for word, are resampled alone.
        n: resamples of queries.
        seed: seed of the resamples.
    """
    scores, right = np.asarray(similarity, dtype=np.float64), np.asarray(target, dtype=np.intp)
    if scores.ndim != 2 or right.shape != scores.shape[:1]:
        raise ShapeError(f"similarity must be (N, M) and target (N,); got {scores.shape} and {right.shape}")
    if right.size and not (right.min() >= -1 and right.max() < scores.shape[1]):
        raise ShapeError(f"targets must lie in -1..{scores.shape[1] - 1}; got {right.min()} to {right.max()}")
    kept = np.flatnonzero(right >= 0)
    scores = scores[kept]
    relevance = (right[kept, None] == np.arange(scores.shape[1])).astype(np.float64)
    own = None if groups is None else np.asarray(groups)[kept]
    return CrossModal(
        ranking_table(relevance, scores, name="image to text", ks=ks, groups=own, n=n, seed=seed),
        ranking_table(relevance.T, scores.T, name="text to image", ks=ks, n=n, seed=seed),
    )


@dataclass(frozen=True, slots=True)
class LabelRankings:
    """Retrieval by label: queries that have a label ask for items that have it.

    Attributes:
        per_label: label -> its table, over the queries that have it and the pool for which it is known.
        macro: figure -> the mean over the labels' means, with its interval; every query image is resampled once for
            all of its labels.
        undefined: labels that no query has, or no item of the pool; they are in no mean.
    """

    per_label: Mapping[str, RankingTable]
    macro: Mapping[str, Interval]
    undefined: tuple[str, ...]


def label_rankings(
    query_labels: ArrayLike,
    pool_labels: ArrayLike,
    scores: ArrayLike,
    names: Sequence[str],
    *,
    ks: Sequence[int] = (5, 10),
    groups: ArrayLike | None = None,
    n: int = 1000,
    seed: int = 0,
) -> LabelRankings:
    """Judge retrieval label by label (or concept by concept, with labels from `kvlp.eval.relevance.concept_labels`).

    Args:
        query_labels: shape (Q, C); 1, 0, -1 or NaN; a query counts for the labels where it has 1.
        pool_labels: shape (N, C), likewise; items of -1 or NaN are not in the pool of that label.
        scores: shape (Q, N); NaN takes an item out of a query's pool (an image that looks for others).
        names: C labels.
        ks: cut-offs.
        groups: shape (Q,), the patient of each query.
        n: resamples.
        seed: seed of the resamples.
    """
    asked, held = np.asarray(query_labels, dtype=np.float64), np.asarray(pool_labels, dtype=np.float64)
    ranks = np.asarray(scores, dtype=np.float64)
    if asked.shape != (len(ranks), len(names)) or held.shape != (*ranks.shape[1:], len(names)):
        raise ShapeError(
            f"query_labels (Q, C), pool_labels (N, C) and scores (Q, N) with C = {len(names)} do not fit: got "
            f"{asked.shape}, {held.shape} and {ranks.shape}"
        )
    clusters = Clusters.of(groups, len(ranks))
    tables, rows = {}, {}
    for c, name in enumerate(names):
        rows[name] = np.flatnonzero(asked[:, c] == 1)
        own = ranks[rows[name]]
        relevance = np.where(np.isnan(own), np.nan, held[:, c])
        tables[name] = ranking_table(
            relevance, own, name=name, ks=ks, groups=clusters.number[rows[name]] if clusters.grouped else None,
            n=n, seed=seed,
        )  # fmt: skip
    undefined = tuple(name for name, table in tables.items() if len(table.undefined) == table.pool.size)
    defined = [name for name in names if name not in undefined]
    macro = {
        figure: _macro([tables[name].per_query[figure] for name in defined], [rows[name] for name in defined],
                       clusters, n, seed, undefined)
        for figure in _figures([], ks)
    }  # fmt: skip
    return LabelRankings(tables, macro, undefined)


def _macro(
    values: Sequence[Floats],
    rows: Sequence[NDArray[np.intp]],
    clusters: Clusters,
    n: int,
    seed: int,
    undefined: tuple[str, ...],
) -> Interval:
    """Mean over labels of the mean over their queries, all labels on the same resampled queries."""
    notes = (f"undefined and left out: {', '.join(undefined)}",) if undefined else ()
    if not values:
        return Interval(math.nan, math.nan, math.nan, 0, "undefined for every label", notes=notes)
    known = [np.flatnonzero(~np.isnan(v)) for v in values]
    tops = np.stack([clusters.sums(v[k], r[k]) for v, r, k in zip(values, rows, known, strict=True)], axis=1)
    whole = np.stack([clusters.sums(np.ones(k.size), r[k]) for r, k in zip(rows, known, strict=True)], axis=1)
    both = clusters.sample_sums(np.concatenate([tops, whole], axis=1), n, seed).T
    samples = _mean_share(both[:, : len(values)], both[:, len(values) :])
    value = float(_mean_share(tops.sum(axis=0)[None], whole.sum(axis=0)[None])[0])
    counted = np.unique(np.concatenate([r[k] for r, k in zip(rows, known, strict=True)]))
    low, high = bounds(value, samples)
    made = Interval(value, low, high, n, f"percentile bootstrap of {'patients' if clusters.grouped else 'queries'}")
    return replace(made, n=counted.size, n_groups=clusters.count_at(counted), notes=notes)


def _mean_share(top: Floats, whole: Floats) -> Floats:
    """Mean of top / whole over the labels that were drawn: (B, C) and (B, C) to (B,)."""
    held = whole > 0
    share = np.divide(top, whole, out=np.zeros_like(top), where=held)
    drawn = held.sum(axis=1)
    return np.divide(share.sum(axis=1), drawn, out=np.full(len(top), np.nan), where=drawn > 0)


def _figures(judged: Sequence[Ranking], ks: Sequence[int]) -> dict[str, Floats]:
    found = {f"R@{k}": [r.hit(k) for r in judged] for k in ks}
    found |= {f"P@{k}": [r.precision(k) for r in judged] for k in ks}
    found |= {"MRR": [r.reciprocal_rank() for r in judged], "mAP": [r.average_precision() for r in judged]}
    found |= {f"nDCG@{k}": [r.ndcg(k) for r in judged] for k in ks}
    return {name: np.array(values, dtype=np.float64) for name, values in found.items()}
