"""One-to-one matching of two graphs by vertex and edge affinities: a quadratic assignment, solved in milliseconds.

The problem is NP-hard; what is found here is a local optimum. `kvlp bench matching` tells how near it comes to the best
and how long it takes. SciPy is imported on first use (extra `matching`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from kvlp.errors import MissingExtraError, ShapeError

__all__ = ["Match", "match_graphs", "matched_edges"]

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Match:
    """A one-to-one matching.

    Attributes:
        partner: (n,) int64: vertex i of the first graph goes to vertex partner[i] of the second.
        value: summed affinity of the matched vertices and edges.
        steps: iterations of the solver.
    """

    partner: Ints
    value: float
    steps: int


def match_graphs(
    vertex: Floats, edge: Floats, first: Ints, second: Ints, *, start: Ints | None = None, most: int = 20
) -> Match:
    """Find a matching of large summed affinity, sum_i vertex[i, p_i] + the affinities of the edges that it preserves.

    Frank-Wolfe on the relaxation to doubly stochastic matrices: each step solves a linear assignment for the gradient
    and goes as far towards it as raises the objective most (a quadratic in one number). Every assignment on the way is
    itself a candidate, and the best of them is returned. Two starts are tried: the best matching of the vertices alone,
    or `start`, and the even matrix.

    Args:
        vertex: (n, n) affinity of vertex i of the first and vertex a of the second graph.
        edge: (n * k, n * l): affinity of the edge i -> first[i, r] (row i * k + r) and a -> second[a, s].
        first: (n, k) int64, the k neighbours that vertex i of the first graph has an edge to.
        second: (n, l) int64, likewise of the second graph.
        start: (n,) a matching to begin from, for example that of a similar problem; it is never made worse.
        most: iterations from each start.

    Raises:
        ShapeError: shapes that do not fit.
        MissingExtraError: SciPy is not installed.
    """
    problem = _Problem.of(vertex, edge, first, second)
    best, steps, n = problem.candidate(problem.assign(vertex) if start is None else start), 0, len(vertex)
    for begin in (best.partner, None) if n > 1 else ():
        plan = np.full((n, n), 1 / n) if begin is None else _permutation(begin)
        slope = problem.even_slope() if begin is None else problem.slope(begin)
        for _ in range(most):
            steps += 1
            partner = problem.assign(vertex + slope)
            found, new_slope = problem.candidate(partner), problem.slope(partner)
            best = max(best, found, key=lambda match: match.value)
            toward = _permutation(partner) - plan
            share = _best_share(float((toward * (vertex + slope)).sum()), float((toward * (new_slope - slope)).sum()))
            if share <= 0.0:
                break
            plan += share * toward
            slope = slope + share * (new_slope - slope)
    return Match(best.partner, best.value, steps)


def _best_share(rise: float, bend: float) -> float:
    """The share in [0, 1] that maximises rise * share + bend * share^2 / 2; 0 where nothing is to be gained."""
    if rise <= 1e-9:
        return 0.0
    return 1.0 if bend >= 0 else min(1.0, rise / -bend)


def matched_edges(partner: Ints, first: Ints, second: Ints) -> tuple[Ints, Ints]:
    """Rows and columns of the edge affinities whose edges a matching lays on each other, i -> j on p_i -> p_j."""
    k, l = first.shape[1], second.shape[1]
    rows = np.repeat(np.arange(first.size), l)
    tails = partner[np.arange(len(first)).repeat(k)]
    columns = (tails[:, None] * l + np.arange(l)).reshape(-1)
    kept = second.reshape(-1)[columns] == partner[first.reshape(-1)].repeat(l)
    return rows[kept], columns[kept]


@dataclass(frozen=True)
class _Problem:
    """Affinities with what each step needs of them at hand."""

    vertex: Floats
    edge: Floats
    first: Ints
    second: Ints
    order: Ints  # edges of the second graph, those that end at one vertex beside each other
    begin: Ints  # (n + 1,) where each vertex's part of that order begins
    assign: Callable[[Floats], Ints]

    @classmethod
    def of(cls, vertex: Floats, edge: Floats, first: Ints, second: Ints) -> _Problem:
        n = len(vertex)
        if vertex.shape != (n, n) or len(first) != n or len(second) != n or edge.shape != (first.size, second.size):
            raise ShapeError(
                "expected affinities (n, n) of vertices and (n * k, n * l) of edges, and neighbours (n, k) and (n, l), "
                f"got {vertex.shape}, {edge.shape}, {first.shape} and {second.shape}"
            )
        try:
            from scipy.optimize import linear_sum_assignment
        except ImportError:
            raise MissingExtraError("scipy", "matching") from None
        order = np.argsort(second, axis=None, kind="stable")
        begin = np.searchsorted(second.reshape(-1)[order], np.arange(n + 1))
        assign = partial(_assign, linear_sum_assignment)
        return cls(vertex, edge, first, second, order, begin, assign)

    def candidate(self, partner: Ints) -> Match:
        rows, columns = matched_edges(partner, self.first, self.second)
        value = self.vertex[np.arange(len(partner)), partner].sum() + self.edge[rows, columns].sum()
        return Match(partner, float(value), 0)

    def slope(self, partner: Ints) -> Floats:
        """Gradient (n, n) of the edges' part at a matching: what i -> a would gain, the others as they are.

        An edge i -> j of the first graph counts where one of its ends is matched as it is: only with the edges of the
        second graph that end at j's partner, and with those that leave i's. So few pairs are looked at.
        """
        n, k, l = len(self.vertex), self.first.shape[1], self.second.shape[1]
        heads, edges = self.first.reshape(-1), np.arange(self.first.size)
        begin = self.begin[partner[heads]]
        count = self.begin[partner[heads] + 1] - begin
        rows = np.repeat(edges, count)
        columns = self.order[np.repeat(begin - np.cumsum(count) + count, count) + np.arange(rows.size)]
        leaving = np.repeat(edges, l)
        reached = (partner[edges // k][:, None] * l + np.arange(l)).reshape(-1) if k else leaving
        places = [rows // max(k, 1) * n + columns // max(l, 1), heads[leaving] * n + self.second.reshape(-1)[reached]]
        gains = [self.edge[rows, columns], self.edge[leaving, reached]]
        summed: Floats = np.bincount(np.concatenate(places), np.concatenate(gains), minlength=n * n).astype(np.float64)
        return summed.reshape(n, n)

    def even_slope(self) -> Floats:
        """The same at the matrix whose entries are all 1 / n."""
        n, k, l = len(self.vertex), self.first.shape[1], self.second.shape[1]
        by_end = _summed(self.edge[:, self.order], self.begin)  # (n * k, n)
        order = np.argsort(self.first, axis=None, kind="stable")
        begin = np.searchsorted(self.first.reshape(-1)[order], np.arange(n + 1))
        ends = _summed(by_end[order].T, begin).T
        return (self.edge.reshape(n, k, n, l).sum(axis=(1, 3)) + ends) / n


def _assign(solve: Callable[..., tuple[Ints, Ints]], gains: Floats) -> Ints:
    return solve(gains, maximize=True)[1]


def _summed(values: Floats, begin: Ints) -> Floats:
    """Sums (m, n) of the columns of each group; group a is columns begin[a] to begin[a + 1], none for some."""
    out = np.zeros((len(values), len(begin) - 1), dtype=values.dtype)
    there = begin[1:] > begin[:-1]
    if there.any():
        out[:, there] = np.add.reduceat(values, begin[:-1][there], axis=1)
    return out


def _permutation(partner: Ints) -> Floats:
    return np.eye(len(partner))[partner]
