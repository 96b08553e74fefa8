"""Identities for any labels and scores: with scikit-learn, with SciPy's U, and of the metrics among themselves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvlp.eval.intervals import auc_table, bootstrap
from kvlp.eval.metrics import auc, average_precision
from kvlp.eval.resampling import RESAMPLERS, Clusters, resample

EXACT = 1e-12

rows = st.lists(st.tuples(st.integers(0, 1), st.integers(-6, 6)), min_size=2, max_size=60).filter(
    lambda pairs: {y for y, _ in pairs} == {0, 1}
)


def arrays(pairs):
    y, s = np.array(pairs, dtype=float).T
    return y, s


@given(rows)
def test_auc_is_scikit_learns_and_u_over_pairs(pairs):
    from scipy.stats import mannwhitneyu
    from sklearn.metrics import average_precision_score, roc_auc_score

    y, s = arrays(pairs)
    assert auc(y, s) == pytest.approx(roc_auc_score(y, s), abs=EXACT)
    assert average_precision(y, s) == pytest.approx(average_precision_score(y, s), abs=EXACT)
    u = mannwhitneyu(s[y == 1], s[y == 0]).statistic
    assert auc(y, s) == pytest.approx(u / ((y == 1).sum() * (y == 0).sum()), abs=EXACT)


@given(rows)
def test_auc_turns_with_the_sign_and_ignores_rising_maps(pairs):
    y, s = arrays(pairs)
    assert auc(y, -s) == pytest.approx(1 - auc(y, s), abs=EXACT)
    assert auc(1 - y, s) == pytest.approx(1 - auc(y, s), abs=EXACT)
    assert auc(y, np.exp(s) + 3) == pytest.approx(auc(y, s), abs=EXACT)
    assert average_precision(y, np.exp(s) + 3) == pytest.approx(average_precision(y, s), abs=EXACT)


@given(rows)
def test_ties_count_one_half_and_constant_scores_give_the_prevalence(pairs):
    y, s = arrays(pairs)
    assert auc(y, np.zeros_like(s)) == 0.5
    assert average_precision(y, np.zeros_like(s)) == pytest.approx(y.mean(), abs=EXACT)
    apart = (auc(y, s + 1e-3 * y) + auc(y, s - 1e-3 * y)) / 2  # every tie won, every tie lost
    assert auc(y, s) == pytest.approx(apart, abs=EXACT)


@given(rows)
def test_every_row_twice_changes_nothing(pairs):
    y, s = arrays(pairs)
    for metric in (auc, average_precision):
        assert metric(np.r_[y, y], np.r_[s, s]) == pytest.approx(metric(y, s), abs=EXACT)


@given(rows, st.integers(0, 5), st.sampled_from(["auc", "average_precision"]))
def test_resampled_values_are_the_metric_of_the_rows_drawn(pairs, groups, metric):
    """Counts against rows that are really repeated, for groups of any size, ties, and labels that one sample lacks."""
    y, s = arrays(pairs)
    number = np.arange(len(y)) % (groups + 1)
    clusters = Clusters.of(number, len(y))
    fast = resample([RESAMPLERS[metric](y == 1, s, clusters.number)], clusters, 20, 7)[0]
    function = {"auc": auc, "average_precision": average_precision}[metric]
    counts = np.concatenate(list(clusters.counts(20, 7)), axis=1).T
    slow = [function(np.repeat(y, c[clusters.number]), np.repeat(s, c[clusters.number])) for c in counts]
    np.testing.assert_allclose(fast, slow, atol=EXACT, equal_nan=True)


@pytest.mark.parametrize("metric", ["auc", "average_precision"])
def test_counts_fill_their_byte(metric):
    """One patient with most rows, drawn up to 255 times: no total may run over."""
    rng = np.random.default_rng(1)
    number = np.r_[np.zeros(250, dtype=np.intp), rng.integers(1, 4, 50)]
    y = (rng.random(300) < 0.4).astype(float)
    s = np.round(rng.normal(size=300) + y, 1)
    for counts in (np.array([[255, 3], [0, 255], [1, 2], [255, 0]]), rng.integers(0, 90, (4, 3)), np.ones((4, 1), int)):
        fast = RESAMPLERS[metric](y == 1, s, number)(counts.astype(np.uint8))
        function = {"auc": auc, "average_precision": average_precision}[metric]
        slow = [function(np.repeat(y, c[number]), np.repeat(s, c[number])) for c in counts.T]
        np.testing.assert_allclose(fast, slow, atol=EXACT)


def test_samples_are_the_same_however_many_are_drawn_at_a_time(monkeypatch):
    clusters = Clusters.of(None, 77)
    usual = np.concatenate(list(clusters.counts(300, 5)), axis=1)
    rng = np.random.default_rng(5)
    by_hand = np.stack([np.bincount(rng.integers(0, 77, 77), minlength=77) for _ in range(300)], axis=1)
    np.testing.assert_array_equal(usual, by_hand)
    monkeypatch.setattr("kvlp.eval.resampling._DRAWS", 500)
    np.testing.assert_array_equal(np.concatenate(list(clusters.counts(300, 5)), axis=1), usual)


def test_threads_and_blocks_change_nothing(monkeypatch):
    rng = np.random.default_rng(0)
    y, groups = (rng.random((500, 5)) < [0.03, 0.2, 0.5, 0.8, 0.97]).astype(float), rng.integers(0, 200, 500)
    s = np.round(rng.normal(size=y.shape) + y, 1)
    plain = auc_table(y, s, groups, n=300)
    monkeypatch.setattr("kvlp.eval.resampling._WORTH_THREADS", 0)
    monkeypatch.setattr("kvlp.eval.resampling._CELLS", 35_000)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert auc_table(y, s, groups, n=300).per_class == plain.per_class
    # a function of the caller's is never run in threads
    from threading import current_thread, main_thread

    def metric(labels, scores):
        assert current_thread() is main_thread()
        return auc(labels, scores)

    loop = bootstrap(metric, y[:, 2], s[:, 2], groups, n=300)
    assert (loop.low, loop.high) == pytest.approx((plain.per_class["2"].low, plain.per_class["2"].high), abs=EXACT)
