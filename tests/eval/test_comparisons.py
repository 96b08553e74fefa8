"""Permutation test against every swap there is, and Holm's correction by hand and under the null."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvlp.errors import ConfigError, DataError
from kvlp.eval.calibration import brier
from kvlp.eval.metrics import auc, average_precision
from kvlp.eval.multiplicity import holm
from kvlp.eval.permutation import permutation_test

NAN = math.nan


def ranks(values):
    """Middle ranks by counting."""
    return np.array([np.sum(values < v) + np.sum(values == v) / 2 for v in values])


def every_swap(metric, y, a, b, groups):
    """The p-value over all 2^G ways to swap groups."""
    names = sorted(set(groups))
    observed = abs(metric(y, a) - metric(y, b))
    as_large = 0
    for flips in itertools.product([False, True], repeat=len(names)):
        flip = np.array([flips[names.index(g)] for g in groups])
        one, other = np.where(flip, b, a), np.where(flip, a, b)
        as_large += abs(metric(y, one) - metric(y, other)) >= observed - 1e-12
    return as_large / 2 ** len(names)


@pytest.mark.slow
@pytest.mark.parametrize(("metric", "name"), [(auc, "auc"), (average_precision, "average_precision"), (brier, brier)])
def test_permutation_is_every_swap_but_for_chance(metric, name):
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(8), 2)
    y = np.r_[1, 0, rng.integers(0, 2, 14)].astype(float)
    a = np.clip(0.1 * y + 0.7 * rng.random(16), 0, 1)
    b = rng.random(16)
    first, second = (a, b) if metric is brier else (ranks(a), ranks(b))
    expected = every_swap(metric, y, first, second, groups.tolist())
    got = permutation_test(name, y, a, b, groups, n=3000, seed=1)
    assert got.p == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 3000))
    assert got.difference == pytest.approx(metric(y, a) - metric(y, b), abs=1e-14)
    assert (got.n, got.n_groups) == (3000, 8)
    alone = permutation_test(name, y, a, b, n=500, seed=1)
    assert alone.n_groups == 16
    assert alone.p != got.p


def test_scales_do_not_matter_for_ranks_and_unknown_rows_are_left_out():
    rng = np.random.default_rng(0)
    y = np.r_[np.ones(20), np.zeros(40)]
    a, b = rng.normal(size=60) + y, rng.normal(size=60) + 2 * y
    one = permutation_test("auc", y, a, b, n=200)
    assert permutation_test(auc, y, 1000 * a - 7, np.exp(b), n=200) == one
    groups = np.r_[np.arange(60), 3, 4]
    more = permutation_test("auc", np.r_[y, NAN, -1], np.r_[a, 9, 9], np.r_[b, -9, 9], groups, n=200)
    assert more == permutation_test("auc", y, a, b, np.arange(60), n=200)
    order = rng.permutation(60)
    assert permutation_test("auc", y[order], a[order], b[order], np.arange(60)[order], n=200) == permutation_test(
        "auc", y, a, b, np.arange(60), n=200
    )


def test_a_planted_difference_is_found_and_none_is_not():
    rng = np.random.default_rng(5)
    y = np.r_[np.ones(100), np.zeros(200)]
    a = rng.normal(size=300)
    far = permutation_test("auc", y, a + 1.5 * y, a + 0.2 * y, n=400)
    assert far.p == pytest.approx(1 / 401)
    assert far.difference > 0.2
    same = permutation_test("auc", y, a, a, n=50)
    assert (same.difference, same.p) == (0.0, 1.0)
    swapped = permutation_test("auc", y, a + 0.2 * y, a + 1.5 * y, n=400)
    assert (swapped.p, swapped.difference) == (far.p, -far.difference)


def test_permutation_says_what_is_wrong_or_undefined():
    none = permutation_test("auc", [1, 1], [1, 2], [2, 1])
    assert math.isnan(none.p)
    assert none.notes == ("undefined: 2 positives and 0 negatives",)
    assert "only 1 positives" in permutation_test("auc", [1, 0], [1, 2], [2, 1], n=5).notes[0]
    with pytest.raises(ConfigError, match="metric 'accuracy' is not known"):
        permutation_test("accuracy", [1, 0], [1, 2], [2, 1])
    with pytest.raises(ConfigError, match="n is 0"):
        permutation_test("auc", [1, 0], [1, 2], [2, 1], n=0)
    assert math.isnan(permutation_test("auc", [], [], []).p)


def test_holm_by_hand():
    table = holm({"edema": 0.01, "mass": 0.04, "effusion": 0.03, "hernia": NAN, "nodule": 0.005})
    # 4 x .005, 3 x .01, 2 x .03, then .04 is lifted to .06
    assert table.adjusted == pytest.approx({
        "edema": 0.03, "mass": 0.06, "effusion": 0.06, "hernia": NAN, "nodule": 0.02
    }, nan_ok=True)  # fmt: skip
    assert table.rejected == ("nodule", "edema")
    assert table.undefined == ("hernia",)
    assert holm([0.6, 0.7]).adjusted == {"0": 1.0, "1": 1.0}
    assert holm([]).rejected == ()
    assert holm([0.05]).rejected == ("0",)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_steps_down_as_defined(p_values):
    """Reject while the k-th smallest is at most level / (m - k); the corrected p-value is where that turns."""
    table = holm(p_values, 0.2)
    ranked = sorted(p_values)
    rejected = list(itertools.takewhile(lambda pair: pair[1] * (len(ranked) - pair[0]) <= 0.2, enumerate(ranked)))
    assert sorted(p_values[int(name)] for name in table.rejected) == [p for _, p in rejected]
    for name, adjusted in table.adjusted.items():
        assert adjusted >= p_values[int(name)]


def test_wrong_p_values_are_named():
    with pytest.raises(DataError, match=r"'edema' is 1\.2"):
        holm({"edema": 1.2})
    with pytest.raises(ConfigError, match="level is 5"):
        holm([0.1], 5)
