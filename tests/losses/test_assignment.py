"""Matching of graphs: against every matching there is, and what it says of itself."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from kvlp.errors import ShapeError
from kvlp.losses.assignment import match_graphs, matched_edges


def problem(n: int, k: int, seed: int) -> tuple[np.ndarray, ...]:
    """Random affinities and neighbours."""
    rng = np.random.default_rng(seed)
    near, far = (np.stack([rng.permutation([j for j in range(n) if j != i])[:k] for i in range(n)]) for _ in range(2))
    return rng.uniform(-1, 1, (n, n)), rng.uniform(-1, 1, (n * k, n * k)), near, far


def worth(partner: np.ndarray, vertex: np.ndarray, edge: np.ndarray, near: np.ndarray, far: np.ndarray) -> float:
    total = 0.0
    for i, a in enumerate(partner):
        total += vertex[i, a]
        for r, s in itertools.product(range(near.shape[1]), range(far.shape[1])):
            if partner[near[i, r]] == far[a, s]:
                total += edge[i * near.shape[1] + r, a * far.shape[1] + s]
    return total


@pytest.mark.parametrize("n", [2, 4, 6])
def test_it_comes_near_the_best_of_all_matchings(n: int) -> None:
    gaps = []
    for seed in range(12):
        given = problem(n, min(3, n - 1), seed)
        found = match_graphs(*given)
        assert sorted(found.partner) == list(range(n))
        assert found.value == pytest.approx(worth(found.partner, *given))
        every = sorted(worth(np.array(p), *given) for p in itertools.permutations(range(n)))
        assert found.value <= every[-1] + 1e-9
        gaps.append((every[-1] - found.value) / (every[-1] - np.mean(every)))
    assert np.mean(gaps) < 0.05
    assert np.mean(np.array(gaps) < 1e-9) >= 0.6


def test_edges_find_what_vertices_do_not_tell() -> None:
    """A planted graph with numbered edges and no vertex affinity at all."""
    rng = np.random.default_rng(0)
    n, k = 24, 4
    hidden = rng.permutation(n)
    near = np.stack([rng.choice([j for j in range(n) if j != i], k, replace=False) for i in range(n)])
    far = np.empty_like(near)
    far[hidden] = hidden[near]
    marks = rng.normal(size=(n, k, 8))
    moved = np.empty_like(marks)
    moved[hidden] = marks
    edge = marks.reshape(-1, 8) @ moved.reshape(-1, 8).T
    found = match_graphs(np.zeros((n, n)), edge, near, far)
    assert np.array_equal(found.partner, hidden)
    assert found.value == pytest.approx((marks**2).sum())


def test_a_start_is_never_made_worse() -> None:
    vertex, edge, near, far = problem(12, 3, 5)
    start = np.random.default_rng(1).permutation(12)
    found = match_graphs(vertex, edge, near, far, start=start, most=1)
    assert found.value >= worth(start, vertex, edge, near, far)


def test_edges_laid_on_edges_by_hand() -> None:
    # 0 -> 1, 1 -> 2, 2 -> 0 turned by one place: every edge lies on the next one
    circle = np.array([[1], [2], [0]])
    rows, columns = matched_edges(np.array([1, 2, 0]), circle, circle)
    assert rows.tolist() == [0, 1, 2]
    assert columns.tolist() == [1, 2, 0]
    assert matched_edges(np.array([0, 2, 1]), circle, circle)[0].tolist() == []


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_to_match(n: int) -> None:
    nobody = np.zeros((n, 0), dtype=np.int64)
    found = match_graphs(np.ones((n, n)), np.ones((0, 0)), nobody, nobody)
    assert found.partner.tolist() == list(range(n))
    assert found.value == n


def test_shapes_are_checked() -> None:
    vertex, edge, near, far = problem(4, 2, 0)
    with pytest.raises(ShapeError, match=r"got \(4, 4\), \(8, 7\), \(4, 2\) and \(4, 2\)"):
        match_graphs(vertex, edge[:, :-1], near, far)
