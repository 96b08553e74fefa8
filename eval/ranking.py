"""One query's ranking judged: hits, precision, reciprocal rank, average precision, nDCG. NumPy alone.

Tied scores count as their mean over all orders of the ties, so that constant scores give chance and no more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from kvlp.errors import ConfigError, DataError, ShapeError
from kvlp.eval.metrics import Floats

__all__ = ["Ranking"]


@dataclass(frozen=True, slots=True)
class Ranking:
    """A query's pool in the order of its scores, in blocks of tied items, best first.

    Attributes:
        pool: items that were ranked.
        size: shape (T,), items in each block.
        relevant: shape (T,), how many of them are relevant (a grade above 0).
        gain: shape (T,), the sum of their grades.
        ideal: shape (pool,), all grades, falling.
    """

    pool: int
    size: Floats
    relevant: Floats
    gain: Floats
    ideal: Floats

    @classmethod
    def of(cls, relevance: ArrayLike, scores: ArrayLike) -> Ranking:
        """Rank a pool.

        Args:
            relevance: shape (N,); 0, or a grade above 0 (1 for relevant); items of -1 or NaN are not in the pool.
            scores: shape (N,), higher is better.

        Raises:
            ShapeError: shapes differ or are not one-dimensional.
            DataError: another negative or an infinite grade, or a NaN score in the pool.
        """
        grades, ranks = np.asarray(relevance, dtype=np.float64), np.asarray(scores, dtype=np.float64)
        if grades.ndim != 1 or grades.shape != ranks.shape:
            raise ShapeError(f"relevance and scores must both have shape (N,), got {grades.shape} and {ranks.shape}")
        strange = np.isinf(grades) | ((grades < 0) & (grades != -1))
        if strange.any():
            at = int(np.flatnonzero(strange)[0])
            raise DataError(f"relevance[{at}] is {grades[at]:g}; expected 0, a grade above 0, -1 or NaN (not judged)")
        judged = np.flatnonzero(grades >= 0)
        if np.isnan(ranks[judged]).any():
            at = int(judged[np.isnan(ranks[judged])][0])
            raise DataError(f"scores[{at}] is NaN for a judged item; leave unscored items out and say how many")
        grades, ranks = grades[judged], ranks[judged]
        _, block = np.unique(-ranks, return_inverse=True)
        return cls(
            pool=judged.size,
            size=np.bincount(block).astype(np.float64),
            relevant=np.bincount(block, weights=grades > 0).astype(np.float64),
            gain=np.bincount(block, weights=grades).astype(np.float64),
            ideal=np.sort(grades)[::-1],
        )

    @property
    def n_relevant(self) -> int:
        """Relevant items in the pool; every figure is NaN if there is none."""
        return int(self.relevant.sum())

    def hit(self, k: int) -> float:
        """The chance that a relevant item is among the k best: 1 or 0, between them only for ties."""
        if not self.n_relevant:
            return math.nan
        before, size, relevant = self._first()
        inside = np.arange(min(max(_k(k) - before, 0), size))
        return float(1 - np.prod((size - relevant - inside) / (size - inside)))

    def precision(self, k: int) -> float:
        """Share of relevant items among the k best; a smaller pool is taken whole."""
        return self._found(k) / min(_k(k), self.pool) if self.n_relevant else math.nan

    def recall(self, k: int) -> float:
        """Share of the relevant items that are among the k best."""
        return self._found(k) / self.n_relevant if self.n_relevant else math.nan

    def reciprocal_rank(self) -> float:
        """1 / the rank of the first relevant item."""
        if not self.n_relevant:
            return math.nan
        before, size, relevant = self._first()
        place = np.arange(size - relevant + 1)
        # the chance that none of the places before holds a relevant item
        none = np.r_[1.0, np.cumprod((size - relevant - place[:-1]) / (size - place[:-1]))]
        return float(np.sum(none * relevant / (size - place) / (before + place + 1)))

    def average_precision(self) -> float:
        """Mean over the relevant items of the precision at their rank.

        Unlike `kvlp.eval.average_precision`, which takes tied scores as one step, this is the mean over their orders.

        Reference: McSherry and Najork 2008.
        """
        if not self.n_relevant:
            return math.nan
        block = np.repeat(np.arange(self.size.size), self.size.astype(np.intp))
        size, relevant = self.size[block], self.relevant[block]
        rank = np.arange(1.0, self.pool + 1)
        place = rank - 1 - (np.cumsum(self.size) - self.size)[block]
        above = (np.cumsum(self.relevant) - self.relevant)[block]
        among = place * (relevant - 1) / np.maximum(size - 1, 1)  # relevant ones tied with it and ranked before it
        return float(np.sum(relevant / size * (above + among + 1) / rank) / self.n_relevant)

    def ndcg(self, k: int) -> float:
        """Discounted gain of the k best (grade / log2(rank + 1)) over that of the best possible order.

        Reference: Järvelin and Kekäläinen 2002, with grades as gains.
        """
        if not self.n_relevant:
            return math.nan
        k = min(_k(k), self.pool)
        discount = 1 / np.log2(np.arange(2.0, k + 2))
        gains = np.repeat(self.gain / self.size, self.size.astype(np.intp))[:k]
        return float(gains @ discount / (self.ideal[:k] @ discount))

    def _found(self, k: int) -> float:
        inside = np.clip(_k(k) - (np.cumsum(self.size) - self.size), 0, self.size)
        return float(np.sum(self.relevant * inside / self.size))

    def _first(self) -> tuple[int, int, int]:
        """The first block with a relevant item: items before it, its size, its relevant items."""
        at = int(np.flatnonzero(self.relevant)[0])
        return int(self.size[:at].sum()), int(self.size[at]), int(self.relevant[at])


def _k(k: int) -> int:
    if k < 1:
        raise ConfigError(f"k is {k}; expected at least 1")
    return k
