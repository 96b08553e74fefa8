"""Intervals: exact DeLong fixture, slow reference loops, paired resamples, coverage."""

import math
import warnings

import numpy as np
import pytest

from kvlp.errors import ConfigError, ShapeError
from kvlp.eval.bench.coverage import clustered_coverage
from kvlp.eval.intervals import (
    FewPositivesWarning,
    auc_interval,
    auc_table,
    bootstrap,
    delong_test,
    mean_interval,
    paired_bootstrap,
    paired_table,
    point_intervals,
)
from kvlp.eval.metrics import auc, average_precision
from kvlp.eval.operating import f1, mcc, ppv, sensitivity
from kvlp.eval.resampling import Clusters

Y = [1, 1, 1, 1, 0, 0, 0, 0, 0]
S1 = [0.9, 0.8, 0.4, 0.35, 0.7, 0.4, 0.3, 0.2, 0.1]
S2 = [0.6, 0.7, 0.8, 0.2, 0.5, 0.6, 0.1, 0.3, 0.25]


def sample(seed=0, patients=120, images=3, ties=False):
    """Labels, two scores and patient ids: images of a patient share label and most of the score."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(patients), images)
    y = np.repeat((rng.random(patients) < 0.3).astype(float), images)
    level = np.repeat(rng.normal(size=patients), images) + y
    a, b = (level + rng.normal(0, 0.4, size=y.size) for _ in range(2))
    return y, np.round(a) if ties else a, b, np.array([f"p{g}" for g in group])


def reference(metric, y, s, groups, n, seed):
    """The bootstrap as one would write it first: draw patients, collect their rows, compute."""
    names, number = np.unique(groups, return_inverse=True)
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(n):
        drawn = rng.integers(0, len(names), size=len(names), dtype=np.int64)
        rows = np.concatenate([np.flatnonzero(number == g) for g in drawn])
        out.append(metric(y[rows], s[rows]))
    return np.quantile(out, [0.025, 0.975])


def test_delong_of_one_curve_twice_and_of_too_few_rows():
    same = delong_test(Y, S1, S1)
    assert (same.z, same.p, same.low, same.high) == (0.0, 1.0, 0.0, 0.0)
    few = delong_test([1, 0, 0], [3, 1, 2], [1, 2, 3])
    assert (few.auc_a, few.auc_b) == (1.0, 0.0)
    assert math.isnan(few.z)
    assert math.isnan(few.p)


def test_delong_is_antisymmetric_and_leaves_unknown_rows_out():
    y, a, b, _ = sample()
    one, other = delong_test(y, a, b), delong_test(y, b, a)
    assert one.z == pytest.approx(-other.z)
    assert one.p == pytest.approx(other.p)
    more = delong_test(np.r_[y, math.nan, -1], np.r_[a, 5, 5], np.r_[b, -5, 9])
    assert more == one


@pytest.mark.parametrize("metric", [auc, average_precision])
@pytest.mark.parametrize("ties", [False, True])
def test_fast_bootstrap_equals_the_slow_loop(metric, ties):
    y, s, _, groups = sample(3, patients=40, ties=ties)
    fast = bootstrap(metric, y, s, groups, n=60, seed=5)
    slow = reference(metric, y, s, groups, 60, 5)
    assert fast.value == metric(y, s)
    np.testing.assert_allclose([fast.low, fast.high], slow, atol=1e-12)
    # A function that is not known takes the loop inside, on the same resamples.
    loop = bootstrap(lambda t, p: metric(t, p), y, s, groups, n=60, seed=5)
    np.testing.assert_allclose([loop.low, loop.high], slow, atol=1e-12)


def test_bootstrap_counts_say_what_was_done():
    y, s, _, groups = sample(2)
    y[:6] = math.nan
    result = bootstrap("auc", y, s, groups, n=200)
    assert (result.n, result.n_groups, result.n_resamples) == (354, 118, 200)
    assert result.n_positive == int(np.nansum(y))
    assert "patients" in result.method
    assert result.low < result.value < result.high
    assert str(result) == f"{result.value:.3f} ({result.low:.3f} to {result.high:.3f})"


def test_bootstrap_is_stable_for_a_seed_and_for_the_order_of_rows():
    y, s, _, groups = sample(4)
    one = bootstrap("auc", y, s, groups, n=300, seed=7)
    order = np.random.default_rng(0).permutation(y.size)
    assert bootstrap("auc", y[order], s[order], groups[order], n=300, seed=7) == one
    assert bootstrap("auc", y, s, groups, n=300, seed=8).low != one.low


def test_more_resamples_only_append():
    clusters = Clusters.of(None, 50)
    few = np.concatenate(list(clusters.weights(300, 1)), axis=1)
    many = np.concatenate(list(clusters.weights(700, 1)), axis=1)
    assert np.array_equal(few, many[:, :300])
    assert (many.sum(axis=0) == 50).all()


def test_image_level_is_refused_while_patients_repeat():
    y, s, _, groups = sample()
    with pytest.raises(ConfigError, match="360 images of 120 patients"):
        bootstrap("auc", y, s, groups, unit="image")
    told = bootstrap("auc", y, s, groups, unit="image", force=True)
    assert told == bootstrap("auc", y, s)
    assert bootstrap("auc", y, s, np.arange(y.size), unit="image", n=50).n_groups == y.size
    clustered = bootstrap("auc", y, s, groups)
    assert clustered.high - clustered.low > 1.3 * (told.high - told.low)


def test_wrong_options_are_named():
    y, s, _, groups = sample()
    with pytest.raises(ConfigError, match="'rows'"):
        bootstrap("auc", y, s, groups, unit="rows")
    with pytest.raises(ConfigError, match="accuracy"):
        bootstrap("accuracy", y, s, groups)
    with pytest.raises(ConfigError, match="n is 0"):
        bootstrap("auc", y, s, groups, n=0)
    with pytest.raises(ShapeError, match=r"groups must have shape \(360,\)"):
        bootstrap("auc", y, s, groups[:5])


def test_degenerate_resamples_are_counted_and_few_positives_warned_of():
    y = np.r_[1.0, 1.0, np.zeros(28)]
    s = np.arange(30.0)
    with pytest.warns(FewPositivesWarning, match="only 2 positives"):
        result = bootstrap("auc", y, s, n=2000)
    # The chance that neither positive is drawn: (28 / 30) ** 30 = 0.126
    assert result.n_degenerate == pytest.approx(2000 * (28 / 30) ** 30, rel=0.15)
    assert result.notes
    assert "only 2 positives" in result.notes[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bootstrap("auc", np.r_[np.ones(10), np.zeros(20)], s, n=10).notes == ()


def test_an_undefined_metric_has_an_undefined_interval():
    result = bootstrap("auc", [1, 1, 1], [1, 2, 3], n=20)
    assert math.isnan(result.value)
    assert math.isnan(result.low)
    assert result.notes == ("undefined: 3 positives and 0 negatives",)
    assert math.isnan(bootstrap("auc", [], [], n=20).value)


def test_table_equals_the_single_classes_and_their_mean():
    y, a, b, groups = sample(6)
    labels = np.stack([y, 1 - y, np.full_like(y, math.nan)], axis=1)
    scores = np.stack([a, b, a], axis=1)
    table = auc_table(labels, scores, groups, names=["x", "y", "z"], n=150, seed=2)
    assert table.per_class["x"] == bootstrap("auc", y, a, groups, n=150, seed=2)
    assert table.undefined == ("z",)
    assert table.macro.value == pytest.approx((auc(y, a) + auc(1 - y, b)) / 2, abs=1e-14)
    means = (table.samples["x"] + table.samples["y"]) / 2
    np.testing.assert_allclose([table.macro.low, table.macro.high], np.quantile(means, [0.025, 0.975]), atol=1e-12)
    assert "z" in table.macro.notes[0]
    assert table.mean(["x"]).low == pytest.approx(table.per_class["x"].low)
    with pytest.raises(ConfigError, match="no class 'q'"):
        table.mean(["q"])


def test_paired_difference_uses_the_same_resamples():
    y, a, b, groups = sample(8)
    one = auc_table(y[:, None], a[:, None], groups, n=200, seed=3).samples["0"]
    two = auc_table(y[:, None], b[:, None], groups, n=200, seed=3).samples["0"]
    pair = paired_bootstrap("auc", y, a, b, groups, n=200, seed=3)
    assert pair.value == pytest.approx(auc(y, a) - auc(y, b), abs=1e-14)
    np.testing.assert_allclose([pair.low, pair.high], np.quantile(one - two, [0.025, 0.975]), atol=1e-12)
    nothing = paired_bootstrap("auc", y, a, a, groups, n=200, seed=3)
    assert (nothing.value, nothing.low, nothing.high, nothing.p) == (0.0, 0.0, 0.0, 1.0)
    better = paired_bootstrap("auc", y, a + 3 * y, a, groups, n=200)
    assert better.low > 0
    assert better.p == pytest.approx(2 / 201)


def test_paired_macro_difference_over_classes():
    y, a, b, groups = sample(9)
    labels = np.stack([y, 1 - y], axis=1)
    first, second = np.stack([a, -a], axis=1), np.stack([b, -b], axis=1)
    table = paired_table("auc", labels, first, second, groups, names=["x", "y"], n=100)
    assert table.macro.value == pytest.approx(auc(y, a) - auc(y, b), abs=1e-14)
    assert paired_bootstrap(auc, labels, first, second, groups, n=100) == table.macro
    assert table.per_class["x"] == paired_bootstrap(auc, y, a, b, groups, n=100)


def test_point_intervals_are_the_bootstrap_of_each_figure():
    y, s, _, groups = sample(11)
    s = np.round(s, 1)
    table = point_intervals(y, s, 0.7, groups, n=80, seed=4)
    assert set(table) == {"sensitivity", "specificity", "ppv", "npv", "f1", "mcc", "youden"}
    for name, function in [("mcc", mcc), ("f1", f1), ("sensitivity", sensitivity), ("ppv", ppv)]:
        slow = bootstrap(lambda t, p, f=function: f(t, p, 0.7), y, s, groups, n=80, seed=4)
        assert (table[name].value, table[name].low, table[name].high) == pytest.approx(
            (slow.value, slow.low, slow.high), abs=1e-12
        )
        assert (table[name].n, table[name].n_groups, table[name].method) == (slow.n, slow.n_groups, slow.method)


def test_a_share_of_one_or_zero_gets_an_exact_bound():
    y = np.r_[np.ones(24), np.zeros(30)]
    groups = np.r_[np.repeat(np.arange(12), 2), np.arange(100, 130)]
    table = point_intervals(y, y, 0.5, groups, n=50)
    assert (table["sensitivity"].low, table["sensitivity"].high) == (pytest.approx(0.025 ** (1 / 12)), 1.0)
    assert table["sensitivity"].method == "exact binomial bound over 12 patients"
    assert table["specificity"].low == pytest.approx(0.025 ** (1 / 30))
    none = point_intervals(y, y, 2)
    assert (none["sensitivity"].low, none["sensitivity"].high) == (0.0, pytest.approx(1 - 0.025 ** (1 / 24)))
    assert math.isnan(none["ppv"].value)
    with pytest.warns(FewPositivesWarning, match="only 3 positives"):
        few = point_intervals(np.r_[np.ones(3), np.zeros(20)], np.arange(23.0), 9, n=20)
    assert all("only 3 positives" in interval.notes[-1] for interval in few.values())
    assert math.isnan(point_intervals([], [], 0.5)["f1"].value)


def test_mean_interval_and_ratio():
    values = np.array([1.0, 0.0, math.nan, 1.0, 1.0])
    result = mean_interval(values, n=500)
    assert result.value == 0.75
    assert 0 <= result.low < 0.75 < result.high <= 1
    lift = mean_interval([0.4, 0.8], over=[0.1, 0.2], n=50)
    assert lift.value == pytest.approx(4.0)
    assert lift.low == pytest.approx(4.0)
    assert math.isnan(mean_interval([math.nan], n=10).value)


def test_analytic_interval_of_one_auc():
    result = auc_interval(np.r_[Y * 4], np.r_[S1 * 4])
    assert result.value == pytest.approx(33 / 40)
    assert result.low < result.value < result.high < 1
    plain = auc_interval(np.r_[Y * 4], np.r_[S1 * 4], logit=False)
    half = (plain.high - plain.low) / 2
    assert plain.value == pytest.approx((plain.low + plain.high) / 2)
    spread = math.sqrt(delong_test(Y * 4, S1 * 4, S2 * 4).var_a)
    assert half == pytest.approx(1.959963984540054 * spread, abs=1e-12)


def test_patient_level_intervals_cover_and_image_level_ones_do_not():
    """The truth is known; the slow tier does the same with thousands of trials, see test_bench_eval.py."""
    found = clustered_coverage(100, 60, 200, 0)
    assert found["bootstrap of patients"] / 60 >= 0.85
    assert found["logit DeLong of patients"] / 60 >= 0.85
    assert found["bootstrap of images"] / 60 <= 0.85


def test_one_group_has_no_interval():
    y, score = np.array([0, 1, 1, 0]), np.array([0.1, 0.9, 0.4, 0.6])
    with pytest.warns(FewPositivesWarning):
        alone = bootstrap(auc, y, score, groups=["a"] * 4, n=50)
    assert (alone.value, str(alone)) == (0.75, "0.750 (no interval)")
    assert alone.notes[0] == "no interval: a single group to resample"
    mean = mean_interval(np.array([1.0, 0.5]), groups=["q", "q"], n=50)
    assert str(mean) == "0.750 (no interval)"
    assert str(mean_interval(np.array([math.nan]))) == "undefined"
    assert math.isfinite(mean_interval(np.array([1.0, 0.5]), n=50).low)
