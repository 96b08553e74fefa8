"""DeLong against exact fractions, published constants of pROC's own tests, and SciPy's Student t."""

import csv
import math
import os
from fractions import Fraction

import numpy as np
import pytest

from kvlp.eval.delong import compare_aucs, delong_covariance, delong_test, delong_unpaired_test
from kvlp.eval.intervals import auc_interval

Y = [1, 1, 1, 1, 0, 0, 0, 0, 0]
S1 = [0.9, 0.8, 0.4, 0.35, 0.7, 0.4, 0.3, 0.2, 0.1]
S2 = [0.6, 0.7, 0.8, 0.2, 0.5, 0.6, 0.1, 0.3, 0.25]

# marker: AUC, DeLong variance, 95 % interval; from the tests of pROC 1.19.0.1 (113 patients, 41 of them positive)
MARKERS = {
    "wfns": (0.8236788617886179, 0.00146991470882363, 0.7485348878, 0.8988228358),
    "s100b": (0.7313685636856369, 0.00266868245717244, 0.6301182118, 0.8326189156),
    "ndka": (0.6119579945799458, 0.0031908105493913, 0.501244999271703, 0.722670989888189),
}
# pair: covariance, z, p; unpaired t, p
PAIRS = {
    ("wfns", "s100b"):
        (0.00119615567376754, 2.20898359144091, 0.0271757822291882, 1.43490640926908, 0.152825378808796),
    ("wfns", "ndka"):
        (-0.000532967856762438, 2.79777591868904, 0.00514557970691098, 3.10125096778969, 0.00220950791756457),
    ("ndka", "s100b"):
        (-0.000756164938056579, -1.39077002573558, 0.164295175223054, -1.55995743389685, 0.120192832430845),
}  # fmt: skip


def exact(y, s, t):
    """AUCs, variances and covariance by the definition, in fractions: pair by pair, no ranks."""
    places = []
    for scores in (s, t):
        f = [Fraction(str(v)) for v in scores]
        pos = [v for v, label in zip(f, y, strict=True) if label]
        neg = [v for v, label in zip(f, y, strict=True) if not label]
        wins = [[Fraction(int(p > n)) + Fraction(int(p == n), 2) for n in neg] for p in pos]
        places.append(([sum(r) / len(neg) for r in wins], [sum(c) / len(pos) for c in zip(*wins, strict=True)]))
    aucs = [sum(v10) / len(v10) for v10, _ in places]

    def cov(i, j):
        return sum(
            sum((a - aucs[i]) * (b - aucs[j]) for a, b in zip(places[i][k], places[j][k], strict=True))
            / (len(places[i][k]) - 1) / len(places[i][k])
            for k in (0, 1)
        )  # fmt: skip

    return aucs, cov(0, 0), cov(1, 1), cov(0, 1)


def test_the_exact_fixture():
    aucs, var_a, var_b, cov = exact(Y, S1, S2)
    assert (aucs, var_a, var_b, cov) == (
        [Fraction(33, 40), Fraction(31, 40)], Fraction(9, 400), Fraction(197, 4800), Fraction(163, 9600)
    )  # fmt: skip
    d = delong_test(Y, S1, S2)
    got = (d.auc_a, d.auc_b, d.var_a, d.var_b, d.cov)
    assert got == pytest.approx([float(v) for v in (*aucs, var_a, var_b, cov)], abs=1e-14)
    assert d.z == pytest.approx(0.29070094986690553, abs=1e-12)
    assert d.p == pytest.approx(0.7712800450706028, abs=1e-12)
    assert (d.df, d.difference) == (math.inf, pytest.approx(0.05))


def test_random_data_with_ties_equal_the_fractions():
    rng = np.random.default_rng(0)
    for _ in range(10):
        y = np.r_[1, 1, 0, 0, rng.integers(0, 2, 12)]
        a, b = rng.integers(0, 6, (2, y.size))
        aucs, var_a, var_b, cov = exact(y.tolist(), a.tolist(), b.tolist())
        ours, table = delong_covariance(y == 1, np.stack([a, b]).astype(float))
        np.testing.assert_allclose(ours, [float(v) for v in aucs], atol=1e-14)
        np.testing.assert_allclose(table, [[float(var_a), float(cov)], [float(cov), float(var_b)]], atol=1e-14)


@pytest.mark.parametrize("pair", PAIRS)
def test_published_pairs_follow_from_their_variances(pair):
    cov, z, p, t, p_unpaired = PAIRS[pair]
    (auc_a, var_a, *_), (auc_b, var_b, *_) = MARKERS[pair[0]], MARKERS[pair[1]]
    paired = compare_aucs(auc_a, auc_b, var_a, var_b, cov)
    assert (paired.z, paired.p) == pytest.approx((z, p), abs=1e-9)
    # Welch: both sets have 113 rows
    df = (var_a + var_b) ** 2 / ((var_a**2 + var_b**2) / 112)
    unpaired = compare_aucs(auc_a, auc_b, var_a, var_b, df=df)
    assert (unpaired.z, unpaired.p) == pytest.approx((t, p_unpaired), abs=1e-9)
    if pair == ("wfns", "s100b"):
        assert (paired.low, paired.high) == pytest.approx((0.0104061769564846, 0.174214419249478), abs=1e-9)


def test_groups_of_one_row_change_nothing_and_copies_add_nothing():
    rng = np.random.default_rng(4)
    y = np.r_[np.ones(9), np.zeros(15)]
    a, b = np.round(rng.normal(size=24) + y, 1), rng.normal(size=24)
    alone = delong_test(y, a, b)
    for numbered in (np.arange(24), [f"p{i}" for i in range(24)]):
        grouped = delong_test(y, a, b, numbered)
        assert (grouped.var_a, grouped.cov, grouped.p) == pytest.approx((alone.var_a, alone.cov, alone.p), abs=1e-15)
    # four copies of every row tell nothing new if they are known to be copies
    copies = delong_test(np.repeat(y, 4), np.repeat(a, 4), np.repeat(b, 4), np.repeat(np.arange(24), 4))
    assert (copies.var_a, copies.var_b, copies.cov, copies.z) == pytest.approx(
        (alone.var_a, alone.var_b, alone.cov, alone.z), abs=1e-14
    )
    unknown = delong_test(np.repeat(y, 4), np.repeat(a, 4), np.repeat(b, 4))
    assert unknown.var_a < alone.var_a / 3


def test_variance_of_groups_by_its_definition():
    """Obuchowski's sums written out, with patients who have both positive and negative images."""
    rng = np.random.default_rng(5)
    group, y = rng.integers(0, 8, 40), rng.integers(0, 2, 40)
    s = np.round(rng.normal(size=40) + y, 1)
    pos, neg = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
    beats = {i: np.mean([(s[i] > s[j]) + 0.5 * (s[i] == s[j]) for j in neg]) for i in pos}
    beaten = {j: np.mean([(s[i] > s[j]) + 0.5 * (s[i] == s[j]) for i in pos]) for j in neg}
    auc = np.mean(list(beats.values()))
    up = {g: sum(v - auc for i, v in beats.items() if group[i] == g) for g in range(8)}
    down = {g: sum(v - auc for j, v in beaten.items() if group[j] == g) for g in range(8)}
    n_up, n_down = len({*group[pos]}), len({*group[neg]})
    expected = (
        n_up / (n_up - 1) * sum(v**2 for v in up.values()) / len(pos) ** 2
        + n_down / (n_down - 1) * sum(v**2 for v in down.values()) / len(neg) ** 2
        + 2 * 8 / 7 * sum(up[g] * down[g] for g in range(8)) / (len(pos) * len(neg))
    )
    interval = auc_interval(y, s, group, logit=False)
    assert (interval.high - interval.low) / 2 == pytest.approx(1.959963984540054 * math.sqrt(expected), abs=1e-12)
    assert (interval.n_groups, interval.method) == (8, "DeLong, patients as groups")
    assert math.isnan(auc_interval([1] * 12 + [0] * 12, range(24), ["a"] * 12 + ["b"] * 12).low)


def test_one_curve_twice_and_one_that_is_perfect():
    same = delong_test(Y, S1, S1)
    assert (same.z, same.p) == (0.0, 1.0)
    perfect = delong_test([1, 1, 0, 0], [4, 3, 2, 1], [1, 2, 3, 4])
    assert (perfect.auc_a, perfect.auc_b, perfect.z, perfect.p) == (1.0, 0.0, math.inf, 0.0)


def test_few_positives_are_noted():
    assert "only 4 positives and 5 negatives" in delong_test(Y, S1, S2).notes[0]
    assert delong_test(Y * 3, S1 * 3, S2 * 3).notes == ()
    unpaired = delong_unpaired_test(Y * 3, S1 * 3, Y, S2)
    assert unpaired.notes == (
        "second set: only 4 positives and 5 negatives: the interval is not to be relied on",
    )  # fmt: skip


def test_unpaired_sets_have_no_covariance_and_welch_degrees_of_freedom():
    rng = np.random.default_rng(1)
    y_a, y_b = np.r_[np.ones(12), np.zeros(28)], np.r_[np.ones(30), np.zeros(15), math.nan, -1]
    a, b = rng.normal(size=40) + y_a, rng.normal(size=47)
    d = delong_unpaired_test(y_a, a, y_b, b)
    one, two = delong_test(y_a, a, a), delong_test(y_b, b, b)
    assert (d.auc_a, d.auc_b, d.cov) == (one.auc_a, two.auc_a, 0.0)
    assert (d.var_a, d.var_b) == pytest.approx((one.var_a, two.var_a), abs=1e-15)
    assert d.z == pytest.approx((d.auc_a - d.auc_b) / math.sqrt(d.var_a + d.var_b))
    assert d.df == pytest.approx((d.var_a + d.var_b) ** 2 / (d.var_a**2 / 39 + d.var_b**2 / 44))
    turned = delong_unpaired_test(y_b, b, y_a, a)
    assert (turned.z, turned.p, turned.low) == pytest.approx((-d.z, d.p, -d.high))
    assert math.isnan(delong_unpaired_test([1, 1], [1, 2], y_a, a).p)


@pytest.mark.parametrize("df", [1.5, 4.0, 30.7, 206.66, 1e4, 9e5, 2e6])
def test_student_t_is_scipys(df):
    stats = pytest.importorskip("scipy.stats")
    for t in (0.0, 0.3, 1.43, 3.1, 9.0):
        ours = compare_aucs(t, 0.0, 1.0, 0.0, df=df)
        assert ours.p == pytest.approx(2 * stats.t.sf(t, df), rel=2e-6 if df < 1e6 else 1e-4, abs=1e-14)
        assert ours.high - ours.difference == pytest.approx(stats.t.ppf(0.975, df), rel=1e-6)


def test_the_users_own_asah_file():
    """pROC's aSAH data are GPL and not ours to ship: set KVLP_ASAH to a CSV with outcome, gender, wfns, s100b, ndka."""
    file = os.environ.get("KVLP_ASAH", "")
    if not file:
        pytest.skip("no aSAH file: set KVLP_ASAH to it")
    with open(file, newline="") as lines:
        rows = list(csv.DictReader(lines))
    y = [float(row["outcome"] == "Poor") for row in rows]
    score = {name: [float(row[name]) for row in rows] for name in MARKERS}
    for name, (auc, variance, low, high) in MARKERS.items():
        interval = auc_interval(y, score[name], logit=False)
        assert delong_test(y, score[name], score[name]).var_a == pytest.approx(variance, abs=1e-8)
        assert (interval.value, interval.low, interval.high) == pytest.approx((auc, low, high), abs=1e-8)
    for (a, b), (cov, z, p, t, p_unpaired) in PAIRS.items():
        paired, unpaired = delong_test(y, score[a], score[b]), delong_unpaired_test(y, score[a], y, score[b])
        assert (paired.cov, paired.z, paired.p) == pytest.approx((cov, z, p), abs=1e-8)
        assert (unpaired.z, unpaired.p) == pytest.approx((t, p_unpaired), abs=1e-8)
    women = [i for i, row in enumerate(rows) if row["gender"] == "Female"]
    own = auc_interval([y[i] for i in women], [score["ndka"][i] for i in women], logit=False)
    assert (own.low, own.value, own.high) == pytest.approx((0.5261398281, 0.6671428571, 0.8081458862), abs=1e-8)
