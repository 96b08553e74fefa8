"""Rankings by hand and as means over every order of ties; tables both ways, by label, and through the graph."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvlp.errors import ConfigError, DataError, KnowledgeError, ShapeError
from kvlp.eval.metrics import average_precision
from kvlp.eval.ranking import Ranking
from kvlp.eval.relevance import concept_labels, label_overlap
from kvlp.eval.retrieval import precision_at_k, recall_at_k, recall_hits
from kvlp.eval.retrieval_tables import cross_modal, label_rankings, ranking_table
from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.knowledge.names import Names

NAN = math.nan


def by_orders(relevance, scores, figure):
    """The mean of a figure over every order of the items that keeps the scores falling."""
    relevance, scores = np.asarray(relevance, dtype=float), np.asarray(scores, dtype=float)
    values = []
    for order in itertools.permutations(range(len(scores))):
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order)):
            values.append(figure(relevance[list(order)]))
    return np.mean(values)


def first(ranked):
    return 1 / (1 + int(np.flatnonzero(ranked > 0)[0]))


def mean_precision(ranked):
    hits = np.flatnonzero(ranked > 0)
    return np.mean([(ranked[: i + 1] > 0).mean() for i in hits])


def gain(ranked, k):
    ideal = np.sort(ranked)[::-1]
    return sum(g / math.log2(i + 2) for i, g in enumerate(ranked[:k])) / sum(
        g / math.log2(i + 2) for i, g in enumerate(ideal[:k])
    )


def test_by_hand():
    r = Ranking.of([0, 1, 0, 1, NAN, -1], [5, 4, 3, 2, 9, 9])
    assert (r.pool, r.n_relevant) == (4, 2)
    assert [r.hit(k) for k in (1, 2, 4, 9)] == [0, 1, 1, 1]
    assert [r.precision(k) for k in (1, 2, 4, 9)] == [0, 0.5, 0.5, 0.5]
    assert [r.recall(k) for k in (1, 2, 4)] == [0, 0.5, 1]
    assert r.reciprocal_rank() == 0.5
    assert r.average_precision() == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert r.ndcg(4) == pytest.approx((1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3)))
    graded = Ranking.of([1, 3, 0], [3, 2, 1])
    assert graded.ndcg(1) == pytest.approx(1 / 3)
    assert graded.ndcg(3) == pytest.approx((1 + 3 / math.log2(3)) / (3 + 1 / math.log2(3)))
    assert Ranking.of([0.5, 0, 2], [2, 1, 3]).ndcg(3) == 1.0


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=5).filter(
    lambda rows: any(g for g, _ in rows)
), st.integers(1, 7))  # fmt: skip
def test_ties_are_the_mean_over_their_orders(rows, k):
    grades, scores = zip(*rows, strict=True)
    r = Ranking.of(grades, scores)
    cut = min(k, len(rows))
    total = sum(g > 0 for g in grades)
    assert r.hit(k) == pytest.approx(by_orders(grades, scores, lambda g: float((g[:k] > 0).any())), abs=1e-12)
    assert r.precision(k) == pytest.approx(by_orders(grades, scores, lambda g: (g[:k] > 0).sum() / cut), abs=1e-12)
    assert r.recall(k) == pytest.approx(by_orders(grades, scores, lambda g: (g[:k] > 0).sum() / total), abs=1e-12)
    assert r.reciprocal_rank() == pytest.approx(by_orders(grades, scores, first), abs=1e-12)
    assert r.average_precision() == pytest.approx(by_orders(grades, scores, mean_precision), abs=1e-12)
    assert r.ndcg(k) == pytest.approx(by_orders(grades, scores, lambda g: gain(g, k)), abs=1e-12)


def test_known_siblings_agree():
    from sklearn.metrics import ndcg_score

    rng = np.random.default_rng(0)
    for _ in range(10):
        grades, scores = rng.integers(0, 4, 40).astype(float), rng.normal(size=40)
        grades[0] = 1
        r, binary = Ranking.of(grades, scores), (grades > 0).astype(float)
        assert r.average_precision() == pytest.approx(average_precision(binary, scores), abs=1e-12)
        assert r.precision(7) == pytest.approx(precision_at_k(binary, scores, 7), abs=1e-12)
        for s in (scores, np.round(scores)):
            assert Ranking.of(grades, s).ndcg(10) == pytest.approx(ndcg_score([grades], [s], k=10), abs=1e-12)


def test_constant_scores_give_chance_and_no_relevant_item_is_undefined():
    r = Ranking.of([1, 0, 0, 0, 0], [7] * 5)
    assert (r.hit(2), r.precision(2), r.recall(2)) == pytest.approx((0.4, 0.2, 0.4))
    assert r.reciprocal_rank() == pytest.approx(sum(1 / i for i in range(1, 6)) / 5)
    none = Ranking.of([0, 0, NAN], [1, 2, 3])
    figures = (none.hit(1), none.precision(1), none.recall(1), none.reciprocal_rank(), none.average_precision())
    assert all(math.isnan(v) for v in (*figures, none.ndcg(1)))
    assert Ranking.of([], []).pool == 0


def test_a_table_says_its_pool_and_leaves_empty_queries_out():
    relevance = np.zeros((3, 20))
    relevance[0, :2] = relevance[1, :8] = 1
    relevance[1, 15:] = NAN
    scores = -np.arange(20.0)[None].repeat(3, axis=0)
    table = ranking_table(relevance, scores, name="words to image", ks=(4,), n=100)
    assert table.pool.tolist() == [20, 15, 20]
    assert table.undefined == (2,)
    assert set(table.means) == {"R@4", "P@4", "MRR", "mAP", "nDCG@4"}
    assert table.means["P@4"].value == pytest.approx(0.75)
    assert table.means["P@4"].n == 2
    assert table.prevalence.tolist() == pytest.approx([0.1, 8 / 15, NAN], nan_ok=True)
    assert str(table).startswith("words to image: 2 queries, pools of 15 to 20; R@4 1.000 ")
    assert table.means["MRR"].method == "percentile bootstrap of queries"


def test_both_ways_between_images_and_distinct_reports():
    # images 0 and 2 share report 0; image 4 has none
    similarity = np.array([[0.9, 0.5, 0.1], [0.8, 0.4, 0.6], [0.3, 0.7, 0.2], [0.1, 0.2, 0.9], [1.0, 1.0, 1.0]])
    target = np.array([0, 1, 0, 2, -1])
    both = cross_modal(similarity, target, ks=(1, 2), groups=["a", "b", "b", "c", "d"], n=50)
    images, reports = both.image_to_text, both.text_to_image
    assert images.pool.tolist() == [3, 3, 3, 3]
    assert images.per_query["R@1"].tolist() == [1, 0, 0, 1]
    assert images.per_query["R@2"].tolist() == recall_hits(similarity[:4], target[:4], 2).tolist() == [1, 0, 1, 1]
    assert images.means["R@2"].value == recall_at_k(similarity[:4], target[:4], 2)
    assert (images.means["R@1"].n_groups, images.means["R@1"].method) == (3, "percentile bootstrap of patients")
    # reports ask the four images: report 0 finds image 0 first and image 2 third
    assert reports.pool.tolist() == [4, 4, 4]
    assert reports.per_query["R@1"].tolist() == [1, 0, 1]
    assert reports.per_query["mAP"].tolist() == pytest.approx([(1 + 2 / 3) / 2, 1 / 3, 1])
    assert "image to text: 4 queries, pool of 3;" in str(both)
    assert "text to image: 3 queries, pool of 4;" in str(both)


def test_by_label_and_their_mean():
    names = ["edema", "mass", "hernia"]
    asked = np.array([[1, 0, 0], [1, 1, 0], [0, 1, -1.0], [0, 0, NAN]])
    held = np.array([[1, 0, 0], [0, 1, 0], [1, NAN, 0], [0, 0, 1.0]])
    scores = np.array([[4, 3, 2, 1], [1, 2, 3, 4], [4, 3, 2, 1], [0, 0, 0, 0.0]])
    table = label_rankings(asked, held, scores, names, ks=(1,), n=200)
    assert table.undefined == ("hernia",)
    assert table.per_label["edema"].per_query["P@1"].tolist() == [1, 0]
    assert table.per_label["edema"].pool.tolist() == [4, 4]
    assert table.per_label["mass"].pool.tolist() == [3, 3]
    assert table.per_label["mass"].per_query["MRR"].tolist() == [1 / 2, 1 / 2]
    assert table.macro["P@1"].value == pytest.approx((0.5 + 0) / 2)
    assert (table.macro["P@1"].n, table.macro["P@1"].notes) == (3, ("undefined and left out: hernia",))
    assert table.macro["P@1"].low <= 0.25 <= table.macro["P@1"].high
    # an image that looks for others is not in its own pool
    alone = np.where(np.eye(4, dtype=bool), NAN, scores)
    assert label_rankings(held, held, alone, names, ks=(1,), n=20).per_label["edema"].pool.tolist() == [3, 3]
    assert math.isnan(label_rankings(asked * 0, held, scores, names, n=20).macro["mAP"].value)


def test_the_macro_interval_is_that_of_a_loop():
    rng = np.random.default_rng(2)
    asked, held = (rng.random((30, 3)) < 0.5).astype(float), (rng.random((40, 3)) < 0.4).astype(float)
    scores = rng.normal(size=(30, 40)) + asked @ held.T
    patients = np.repeat(np.arange(15), 2)
    table = label_rankings(asked, held, scores, ["a", "b", "c"], ks=(5,), groups=patients, n=60, seed=3)
    draws = np.random.default_rng(3)
    order = np.unique(patients.astype(str)).astype(int)
    samples = []
    for _ in range(60):
        drawn = draws.integers(0, 15, size=15, dtype=np.int64)
        rows = np.concatenate([np.flatnonzero(patients == order[g]) for g in drawn])
        means = []
        for c, name in enumerate(["a", "b", "c"]):
            value = np.full(30, NAN)
            value[asked[:, c] == 1] = table.per_label[name].per_query["P@5"]
            means.append(np.nanmean(value[rows]))
        samples.append(np.mean(means))
    expected = np.quantile(samples, [0.025, 0.975])
    assert (table.macro["P@5"].low, table.macro["P@5"].high) == pytest.approx(tuple(expected), abs=1e-12)
    assert table.macro["P@5"].n_groups == 15


def test_labels_go_up_the_graph_and_denials_down():
    graph = KnowledgeGraph.load("chest")
    names = Names(graph)
    concept = names("pneumonia")
    parent = sorted(graph.ancestors(concept))[0]
    child = sorted(graph.descendants(concept))[0]
    rows = [{child: 1}, {"pneumonia": 1}, {parent: 1}, {parent: 0}, {child: 0}, {child: -1}, {}, {parent: 0, child: 1}]
    table = concept_labels(rows, [child, "Pneumonia", parent], names)
    np.testing.assert_array_equal(table[:, 1], [1, 1, NAN, 0, NAN, -1, NAN, 1])
    np.testing.assert_array_equal(table[:, 2], [1, 1, 1, 0, NAN, -1, NAN, 1])
    np.testing.assert_array_equal(table[:, 0], [1, NAN, NAN, 0, 0, -1, NAN, 1])
    plain = concept_labels([{"My Label": 1}, {"other": 0}], ["my_label"], Names(None))
    np.testing.assert_array_equal(plain[:, 0], [1, NAN])
    with pytest.raises(KnowledgeError, match="'gout' is neither in the graph nor a label; labels: other"):
        concept_labels([{"other": 1}], ["gout"], Names(None))


def test_overlap_of_labels():
    asked = [[1, 1, 0], [0, 0, 0], [NAN, -1, 1]]
    held = [[1, 0, 0], [0, 0, NAN], [NAN, NAN, NAN], [0, -1, 1]]
    np.testing.assert_allclose(
        label_overlap(asked, held), [[1 / 2, 0, NAN, 0], [0, 1, NAN, 0], [0, NAN, NAN, 1]], equal_nan=True
    )


def test_wrong_input_is_named():
    with pytest.raises(DataError, match=r"relevance\[1\] is -2"):
        Ranking.of([1, -2], [1, 2])
    with pytest.raises(DataError, match=r"scores\[2\] is NaN"):
        Ranking.of([NAN, 1, 0], [NAN, 2, NAN])
    with pytest.raises(ShapeError, match=r"shape \(N,\)"):
        Ranking.of([[1]], [[1]])
    with pytest.raises(ConfigError, match="k is 0"):
        Ranking.of([1], [1]).hit(0)
    with pytest.raises(ShapeError, match=r"\(Q, N\)"):
        ranking_table([1], [1])
    with pytest.raises(ShapeError, match=r"targets must lie in -1\.\.1"):
        cross_modal(np.zeros((1, 2)), [2])
    with pytest.raises(ShapeError, match="do not fit"):
        label_rankings(np.zeros((2, 1)), np.zeros((3, 1)), np.zeros((2, 4)), ["a"])
    with pytest.raises(ShapeError, match="query_labels must be"):
        label_overlap([[1]], [[1, 0]])
