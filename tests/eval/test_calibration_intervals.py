"""Intervals of Brier score and calibration error: the same as the loop over resamples of the functions."""

import numpy as np
import pytest

from kvlp.errors import DataError
from kvlp.eval.calibration import brier, ece
from kvlp.eval.calibration_intervals import calibration_intervals
from kvlp.eval.intervals import bootstrap


def forecasts(seed=0, patients=150, images=2):
    rng = np.random.default_rng(seed)
    prob = np.repeat(rng.random(patients), images)
    y = (rng.random(prob.size) < prob).astype(float)
    y[::17], y[::23] = np.nan, -1
    return y, prob, np.repeat(np.arange(patients), images).astype(str)


def test_intervals_equal_the_bootstrap_of_the_functions():
    y, prob, who = forecasts()
    found = calibration_intervals(y, prob, who, n=80, seed=2)
    for name, function in (("brier", brier), ("ece", ece)):
        slow = bootstrap(function, y, prob, who, n=80, seed=2)
        assert found[name].value == function(y, prob)
        assert (found[name].low, found[name].high) == pytest.approx((slow.low, slow.high), abs=1e-12)
        assert (found[name].n, found[name].n_groups) == (slow.n, slow.n_groups)
    assert "resampled calibration errors lean upwards" in found["ece"].notes


def test_few_rows_are_told_and_no_forecast_leaves_the_unit_interval():
    found = calibration_intervals([1, 0, 0], [0.9, 0.2, 0.1], n=20)
    assert found["brier"].notes[-1].startswith("only 1 positives and 2 negatives")
    with pytest.raises(DataError, match=r"y_prob\[1\] is 1.5"):
        calibration_intervals([1, 0], [0.5, 1.5])
