"""Precision and recall at k: hand values, ties as the mean over orders, distinct reports."""

import itertools
import math

import numpy as np
import pytest

from kvlp.errors import ConfigError, ShapeError
from kvlp.eval.retrieval import (
    distinct_reports,
    precision_at_k,
    precision_table,
    recall_at_k,
    recall_hits,
    target_ranks,
)

NAN = math.nan


def test_precision_by_hand():
    assert precision_at_k([1, 0, 1, 0], [4, 3, 2, 1], 1) == 1.0
    assert precision_at_k([1, 0, 1, 0], [4, 3, 2, 1], 2) == 0.5
    assert precision_at_k([1, 0, 1, 0], [4, 3, 2, 1], 3) == pytest.approx(2 / 3)
    assert precision_at_k([1, 0, 1, 0], [4, 3, 2, 1], 10) == 0.5  # the pool is smaller than k
    assert precision_at_k([1, NAN, 0, -1], [1, 9, 2, 8], 1) == 0.0  # unknown items are not in the pool


def test_precision_under_ties_is_the_mean_over_orders():
    relevant = np.array([1, 0, 0, 1, 1, 0.0])
    scores = np.array([3, 2, 2, 2, 2, 1.0])
    for k in range(1, 7):
        means = []
        for order in itertools.permutations(range(6)):
            ranked = sorted(order, key=lambda i: -scores[i])
            means.append(relevant[ranked[:k]].mean())
        assert precision_at_k(relevant, scores, k) == pytest.approx(np.mean(means), abs=1e-12)
    assert precision_at_k(relevant, np.zeros(6), 2) == pytest.approx(0.5)


def test_precision_table_gives_lift_and_leaves_empty_queries_out():
    relevant = np.zeros((3, 20))
    relevant[0, :2] = relevant[1, :8] = 1
    scores = -np.arange(20.0)[None].repeat(3, axis=0)
    table = precision_table(relevant, scores, k=4, n=200)
    assert table.per_query[:2].tolist() == [0.5, 1.0]
    assert table.undefined == (2,)
    assert math.isnan(table.prevalence[2])
    assert table.mean.value == pytest.approx(0.75)
    assert table.lift.value == pytest.approx(0.75 / 0.25)
    assert table.pool.tolist() == [20, 20, 20]
    assert table.mean.n == 2


def test_chance_has_a_lift_of_one():
    rng = np.random.default_rng(0)
    relevant = (rng.random((400, 300)) < 0.1).astype(float)
    table = precision_table(relevant, rng.normal(size=(400, 300)), k=10, n=200)
    assert table.lift.low < 1 < table.lift.high


def test_recall_by_hand_and_by_a_loop():
    similarity = np.array([[0.9, 0.5, 0.1], [0.9, 0.5, 0.1], [0.2, 0.3, 0.4]])
    assert recall_hits(similarity, [0, 1, 0], 1).tolist() == [1, 0, 0]
    assert recall_at_k(similarity, [0, 1, 0], 2) == pytest.approx(2 / 3)
    assert recall_at_k(similarity, [0, 1, 0], 3) == 1.0
    rng = np.random.default_rng(1)
    scores, target = rng.normal(size=(50, 30)), rng.integers(0, 30, 50)
    by_loop = np.mean([target[i] in np.argsort(-scores[i])[:5] for i in range(50)])
    assert recall_at_k(scores, target, 5) == pytest.approx(by_loop)


def test_constant_scores_give_chance():
    assert recall_at_k(np.zeros((7, 40)), np.arange(7), 4) == pytest.approx(0.1)
    above, tied = target_ranks(np.zeros((2, 5)), [0, 1])
    assert (above.tolist(), tied.tolist()) == ([0, 0], [5, 5])


def test_distinct_reports_fold_case_and_spacing_and_skip_empty_ones():
    texts = ["No acute disease.", "Left effusion.", "no  acute\ndisease.", "", "LEFT EFFUSION."]
    kept, index = distinct_reports(texts)
    assert kept == ["No acute disease.", "Left effusion."]
    assert index.tolist() == [0, 1, 0, -1, 1]


def test_wrong_input_is_named():
    with pytest.raises(ConfigError, match="k is 0"):
        precision_at_k([1], [1], 0)
    with pytest.raises(ShapeError, match=r"\(Q, N\)"):
        precision_table([1, 0], [1, 0])
    with pytest.raises(ShapeError, match=r"targets must lie in 0\.\.2"):
        recall_at_k(np.zeros((1, 3)), [3], 1)
