"""Calibration by hand, by loops over bins, by scikit-learn, and of forecasters made to be right."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvlp.errors import ConfigError, DataError
from kvlp.eval.calibration import brier, brier_parts, calibration_line, ece, reliability

NAN = math.nan
forecasts = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 20)), min_size=1, max_size=60)


def sample(n=4000, seed=0):
    """Forecasts with the logit's slope and intercept known: the truth is 0.5 + 0.8 times the logit."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(-1, 1.5, n)
    y = rng.random(n) < 1 / (1 + np.exp(-(0.5 + 0.8 * logit)))
    return y.astype(float), 1 / (1 + np.exp(-logit))


def test_ece_by_hand():
    y = [1, 0, 1, 0, 0, 1, NAN, -1]
    p = [0.95, 0.85, 0.55, 0.15, 0.05, 0.1, 0.5, 0.5]
    # two bins of equal width: (.05 .1 .15 | said .1, came 1/3) and (.55 .85 .95 | said .7833, came 2/3)
    table = reliability(y, p, bins=2)
    assert table.count.tolist() == [3, 3]
    assert table.forecast.tolist() == pytest.approx([0.1, 2.35 / 3])
    assert table.observed.tolist() == pytest.approx([1 / 3, 2 / 3])
    assert ece(y, p, bins=2) == pytest.approx(0.5 * (1 / 3 - 0.1) + 0.5 * (2.35 / 3 - 2 / 3))
    assert table.worst == pytest.approx(1 / 3 - 0.1)
    # equal mass in three bins: (.05 .1) (.15 .55) (.85 .95)
    mass = reliability(y, p, bins=3, binning="mass")
    assert mass.count.tolist() == [2, 2, 2]
    assert mass.ece == pytest.approx((abs(0.075 - 0.5) + abs(0.35 - 0.5) + abs(0.9 - 0.5)) / 3)
    assert str(mass) == f"ECE {mass.ece:.4f} (3 bins of equal mass)"


def test_edges_of_the_bins():
    assert reliability([0, 1], [0.0, 1.0], bins=10).forecast.tolist() == [0.0, 1.0]
    assert reliability([0, 1, 1], [0.1, 0.2, 0.3], bins=10).count.tolist() == [1, 1, 1]
    tied = reliability([0, 1, 0, 1, 0], [0.3, 0.3, 0.3, 0.3, 0.9], bins=4, binning="mass")
    assert tied.count.tolist() == [4, 1]  # equal forecasts stay together
    middle = reliability([0, 1, 1, 0], [0.1, 0.5, 0.5, 0.9], bins=2, binning="mass")
    assert middle.count.tolist() == [1, 3]  # in the bin where the middle of their ranks lies
    assert reliability([1, 0], [0.5, 0.5], bins=4, binning="mass").observed.tolist() == [0.5]


@given(forecasts, st.integers(1, 12))
def test_bins_of_equal_width_are_those_of_a_loop(rows, bins):
    y, p = np.array([r[0] for r in rows]), np.array([r[1] for r in rows]) / 20
    total = 0.0
    for b in range(bins):
        inside = [i for i in range(len(p)) if b == min(int(p[i] * bins), bins - 1)]
        if inside:
            total += len(inside) / len(p) * abs(p[inside].mean() - y[inside].mean())
    assert ece(y, p, bins) == pytest.approx(total, abs=1e-12)


def test_a_right_forecaster_has_little_error_and_a_wrong_one_much():
    rng = np.random.default_rng(0)
    p = rng.random(100_000)
    y = rng.random(100_000) < p
    assert ece(y, p) <= 0.01
    assert ece(y, p, binning="mass") <= 0.01
    assert ece(y, np.clip(p + 0.1, 0, 1)) == pytest.approx(0.095, abs=0.01)
    assert ece(~y, p) > 0.3


def where(p, i, bins, binning):
    """The bin of one forecast: by its value, or by the middle of the ranks that share it."""
    if binning == "width":
        return min(int(p[i] * bins), bins - 1)
    return math.floor((np.sum(p < p[i]) + np.sum(p <= p[i])) / 2 / p.size * bins + 1e-9)


@given(forecasts, st.integers(1, 12), st.sampled_from(["width", "mass"]))
def test_brier_of_binned_forecasts_is_the_sum_of_its_parts(rows, bins, binning):
    y, p = np.array([r[0] for r in rows]), np.array([r[1] for r in rows]) / 20
    parts = brier_parts(y, p, bins, binning)
    whole = brier_parts(y, p, binning="distinct")
    assert whole.within == pytest.approx(0, abs=1e-10)
    assert whole.brier == pytest.approx(whole.reliability - whole.resolution + whole.uncertainty, abs=1e-10)
    # forecasts replaced by the mean of their bin: the score is the three parts, to the last digits
    mean = {b: p[[i for i in range(p.size) if where(p, i, bins, binning) == b]].mean() for b in range(bins)
            if any(where(p, i, bins, binning) == b for i in range(p.size))}  # fmt: skip
    binned = [mean[where(p, i, bins, binning)] for i in range(p.size)]
    assert brier(y, binned) == pytest.approx(parts.reliability - parts.resolution + parts.uncertainty, abs=1e-10)
    assert parts.brier == pytest.approx(np.mean((p - y) ** 2), abs=1e-12)
    assert parts.uncertainty == pytest.approx(y.mean() * (1 - y.mean()), abs=1e-12)


def test_brier_by_hand():
    y, p = [1, 0, 1, 0], [0.8, 0.8, 0.2, 0.2]
    parts = brier_parts(y, p)
    assert brier(y, p) == parts.brier == pytest.approx((0.04 + 0.64 + 0.64 + 0.04) / 4)
    assert (parts.reliability, parts.resolution, parts.uncertainty) == pytest.approx((0.09, 0.0, 0.25))
    sharp = brier_parts([1, 1, 0, 0], [1, 1, 0, 0])
    assert (sharp.brier, sharp.reliability, sharp.resolution) == (0, 0, 0.25)
    spread = brier_parts([1, 0], [0.51, 0.59], bins=10)
    assert spread.within == pytest.approx(spread.brier - spread.reliability + spread.resolution - 0.25)
    assert spread.within != 0


def test_brier_is_scikit_learns():
    from sklearn.metrics import brier_score_loss

    y, p = sample(500)
    assert brier(y, p) == pytest.approx(brier_score_loss(y, p), abs=1e-12)


def test_slope_and_intercept_are_those_of_logistic_regression():
    from sklearn.linear_model import LogisticRegression

    y, p = sample()
    line = calibration_line(y, p)
    fit = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(np.log(p / (1 - p))[:, None], y)
    assert line.slope == pytest.approx(fit.coef_[0, 0], abs=1e-5)
    assert line.intercept == pytest.approx(fit.intercept_[0], abs=1e-5)
    assert line.slope_low < 0.8 < line.slope_high
    assert line.intercept_low < 0.5 < line.intercept_high
    assert (line.n, line.n_positive, line.notes) == (4000, int(y.sum()), ())


def test_the_line_solves_its_own_equations():
    y, p = sample(300, 3)
    line = calibration_line(y, p)
    x = np.log(p / (1 - p))
    off = y - 1 / (1 + np.exp(-(line.intercept + line.slope * x)))
    assert np.abs([off.sum(), off @ x]).max() < 1e-8
    large = y - 1 / (1 + np.exp(-(line.in_the_large + x)))
    assert abs(large.sum()) < 1e-8
    # Wald: the spread is that of the inverse Fisher information
    q = 1 / (1 + np.exp(-(line.intercept + line.slope * x)))
    w = q * (1 - q)
    information = np.array([[w.sum(), w @ x], [w @ x, w @ x**2]])
    assert line.slope_high - line.slope == pytest.approx(
        1.959963984540054 * math.sqrt(np.linalg.inv(information)[1, 1])
    )


def test_forecasts_that_are_too_extreme_have_a_slope_below_one():
    rng = np.random.default_rng(2)
    logit = rng.normal(0, 1, 5000)
    y = rng.random(5000) < 1 / (1 + np.exp(-logit))
    right, bold, shy = (calibration_line(y, 1 / (1 + np.exp(-k * logit))).slope for k in (1, 2, 0.5))
    assert right == pytest.approx(1, abs=0.1)
    assert bold == pytest.approx(right / 2, abs=1e-6)
    assert shy == pytest.approx(right * 2, abs=1e-6)
    low = calibration_line(y, 1 / (1 + np.exp(-(logit - 1))))
    assert low.in_the_large == pytest.approx(calibration_line(y, 1 / (1 + np.exp(-logit))).in_the_large + 1, abs=1e-6)


def test_what_has_no_line_says_why():
    one = calibration_line([1, 1, NAN], [0.2, 0.6, 0.1])
    assert math.isnan(one.slope)
    assert math.isnan(one.in_the_large)
    assert one.notes == ("undefined: 2 positives and 0 negatives",)
    flat = calibration_line([1, 0, 0, 0], [0.5] * 4)
    assert math.isnan(flat.slope)
    assert flat.in_the_large == pytest.approx(math.log(1 / 3))
    assert flat.notes == ("no slope: one forecast for all rows",)
    for y in ([0, 0, 1, 1], [1, 1, 0, 0]):
        assert calibration_line(y, [0.1, 0.3, 0.3, 0.9]).notes == ("no line: a threshold parts the labels wholly",)
    hard = calibration_line([0, 1, 1, 0, 1], [0.0, 1.0, 0.0, 1.0, 1.0])
    assert math.isfinite(hard.slope)
    assert hard.notes == ("5 forecasts of 0 or 1 taken as 1e-09 from it",)


def test_no_row_is_undefined():
    assert math.isnan(brier([NAN], [0.5]))
    assert math.isnan(ece([], []))
    assert math.isnan(reliability([], [], binning="mass").worst)
    assert math.isnan(brier_parts([-1], [0.5]).uncertainty)
    assert calibration_line([], []).n == 0


def test_wrong_input_is_named():
    with pytest.raises(DataError, match=r"y_prob\[2\] is 1\.5; expected a probability"):
        brier([1, NAN, 0], [0.5, 7, 1.5])
    with pytest.raises(ConfigError, match="bins is 0"):
        ece([1], [0.5], 0)
    with pytest.raises(ConfigError, match="'equal'"):
        ece([1], [0.5], 5, "equal")
