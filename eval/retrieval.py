"""Retrieval figures on arrays: precision at k with lift over prevalence, recall at k over distinct reports.

NumPy alone. Tied scores count as their mean over all orders of the ties, so that constant scores give the prevalence
and no more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvlp.errors import ConfigError, ShapeError
from kvlp.eval.intervals import Interval, mean_interval
from kvlp.eval.metrics import Floats, known_rows

__all__ = [
    "PrecisionTable",
    "distinct_reports",
    "precision_at_k",
    "precision_table",
    "recall_at_k",
    "recall_hits",
    "target_ranks",
]


def precision_at_k(relevant: ArrayLike, scores: ArrayLike, k: int) -> float:
    """Share of relevant items among the k best scored.

    Args:
        relevant: shape (N,); 1, 0, -1 or NaN; items of the last two are not in the pool.
        scores: shape (N,).
        k: how many; a smaller pool is taken whole.

    Returns:
        A number in [0, 1]; NaN if no item of the pool is relevant or the pool is empty.
    """
    if k < 1:
        raise ConfigError(f"k is {k}; expected at least 1")
    is_relevant, ranked, _ = known_rows(relevant, scores)
    if not is_relevant.any():
        return math.nan
    k = min(k, ranked.size)
    edge = np.partition(ranked, ranked.size - k)[ranked.size - k]
    above, tied = ranked > edge, ranked == edge
    found = is_relevant[above].sum() + (k - above.sum()) * is_relevant[tied].mean()
    return float(found / k)


@dataclass(frozen=True, slots=True)
class PrecisionTable:
    """Precision at k over several queries.

    Attributes:
        k: how many results each query was judged by.
        per_query: shape (Q,); NaN where a query has no relevant item.
        prevalence: shape (Q,), share of relevant items in each query's pool: what chance gives.
        pool: shape (Q,), items in each query's pool.
        mean: mean precision over the queries that have a relevant item, with its interval over queries.
        lift: mean precision over mean prevalence, with its interval over queries.
        undefined: indices of the queries left out.
    """

    k: int
    per_query: Floats
    prevalence: Floats
    pool: NDArray[np.intp]
    mean: Interval
    lift: Interval
    undefined: tuple[int, ...]


def precision_table(
    relevant: ArrayLike,
    scores: ArrayLike,
    k: int = 10,
    *,
    targets: Sequence[str] | None = None,
    n: int = 1000,
    seed: int = 0,
) -> PrecisionTable:
    """Precision at k of Q queries over N items, with lift over prevalence and intervals over queries.

    Args:
        relevant: shape (Q, N); 1, 0, -1 or NaN.
        scores: shape (Q, N).
        k: results judged for each query.
        targets: what each query asks for; wordings of one target are resampled together; None: all independent.
        n: resamples of queries.
        seed: seed of the resamples.
    """
    labels, ranks = np.asarray(relevant, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if labels.ndim != 2 or labels.shape != ranks.shape:
        raise ShapeError(f"relevant and scores must both have shape (Q, N); got {labels.shape} and {ranks.shape}")
    pool = ((labels == 0) | (labels == 1)).sum(axis=1)
    hits = (labels == 1).sum(axis=1)
    per_query = np.array([precision_at_k(row, score, k) for row, score in zip(labels, ranks, strict=True)])
    prevalence = np.divide(hits, pool, out=np.full(len(pool), np.nan), where=hits > 0)
    return PrecisionTable(
        k=k,
        per_query=per_query,
        prevalence=prevalence,
        pool=pool,
        mean=mean_interval(per_query, targets, unit="query targets" if targets else "queries", n=n, seed=seed),
        lift=mean_interval(
            per_query, targets, over=prevalence, unit="query targets" if targets else "queries", n=n, seed=seed
        ),
        undefined=tuple(int(i) for i in np.flatnonzero(np.isnan(per_query))),
    )


def distinct_reports(texts: Sequence[str]) -> tuple[list[str], NDArray[np.intp]]:
    """Distinct texts (case and spacing apart), and the index of each text's own among them; -1 for an empty text.

    Normal films often share one report; counting each copy as another target would hide a right answer.
    """
    index: dict[str, int] = {}
    kept: list[str] = []
    where = np.full(len(texts), -1, dtype=np.intp)
    for row, text in enumerate(texts):
        key = " ".join(text.casefold().split())
        if not key:
            continue
        if key not in index:
            index[key] = len(kept)
            kept.append(text)
        where[row] = index[key]
    return kept, where


def target_ranks(similarity: ArrayLike, target: ArrayLike) -> tuple[Floats, Floats]:
    """How many candidates score above each row's target, and how many tie with it (the target itself included).

    Args:
        similarity: shape (N, M), each row's scores of M distinct candidates.
        target: shape (N,), the right candidate of each row.
    """
    scores = np.asarray(similarity, dtype=np.float64)
    right = np.asarray(target, dtype=np.intp)
    if scores.ndim != 2 or right.shape != scores.shape[:1]:
        raise ShapeError(f"similarity must be (N, M) and target (N,); got {scores.shape} and {right.shape}")
    if right.size and not (right.min() >= 0 and right.max() < scores.shape[1]):
        raise ShapeError(f"targets must lie in 0..{scores.shape[1] - 1}; got {right.min()} to {right.max()}")
    own = scores[np.arange(right.size), right][:, None]
    return (scores > own).sum(axis=1).astype(np.float64), (scores == own).sum(axis=1).astype(np.float64)


def recall_hits(similarity: ArrayLike, target: ArrayLike, k: int) -> Floats:
    """For each row, the chance that its target is among the k best candidates: 1 or 0, between them only for ties."""
    if k < 1:
        raise ConfigError(f"k is {k}; expected at least 1")
    above, tied = target_ranks(similarity, target)
    return np.clip((k - above) / tied, 0.0, 1.0)


def recall_at_k(similarity: ArrayLike, target: ArrayLike, k: int) -> float:
    """Share of rows whose right candidate is among their k best; state the pool size M with it.

    Args:
        similarity: shape (N, M); make the M candidates distinct first, see `distinct_reports`.
        target: shape (N,), the index of each row's right candidate.
        k: how many candidates count.

    Returns:
        A number in [0, 1]; constant scores give k / M; NaN for no row.
    """
    hits = recall_hits(similarity, target, k)
    return float(hits.mean()) if hits.size else math.nan
