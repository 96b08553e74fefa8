"""The benchmarks `eval` and `coverage`, small; and, slowly, that intervals hold the truth as often as they say."""

import math
import os

import pytest

from kvlp.errors import ConfigError
from kvlp.eval.bench import BenchOptions, run_bench
from kvlp.eval.bench.coverage import clustered_coverage, false_alarms, independent_coverage
from kvlp.eval.intervals import FewPositivesWarning

SHARE = min(1.0, float(os.environ.get("KVLP_SLOW_SHARE", "1")))


def allowed(low, high, trials):
    """The bounds asked for at 4,000 trials, wider for the chance of fewer."""
    spread = 3 * math.sqrt(0.05 * 0.95 / trials) * (trials < 4000)
    return low - spread, high + spread


def test_eval_gives_seconds_the_ratio_and_equal_values():
    said = []
    settings = {"resamples": "20", "loop": "2"}
    with pytest.warns(FewPositivesWarning):
        measures = run_bench("eval", BenchOptions(size=0.02, repeats=1, settings=settings, say=said.append))
    found = {(m.name, m.subject): m for m in measures}
    ours, loop = found["AUC intervals", "kvlp"], found["AUC intervals", "loop over scikit-learn"]
    assert found["AUC intervals, times faster", "kvlp / loop over scikit-learn"].value == pytest.approx(
        loop.value / ours.value
    )
    assert "its time scaled by 10" in loop.notes
    assert found["largest difference of an AUC", "kvlp - scikit-learn"].value < 1e-12
    assert said[0].startswith("20 resamples of patients, 14 classes, 500 rows of ")


def test_coverage_has_a_row_for_each_cell():
    said = []
    measures = run_bench("coverage", BenchOptions(size=0.0025, settings={"resamples": "20"}, say=said.append))
    assert len(measures) == 6 * 3 + 2 * 3 + 2
    assert {m.n for m in measures} == {10}
    assert all(0 <= m.low <= m.value <= m.high <= 1 for m in measures)
    assert said[0].startswith("5 positives of 50 rows: DeLong 0.")


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("eval", {"loops": "2"}, "has no setting 'loops'; it has resamples, loop"),
        ("eval", {"loop": "few"}, "loop=few: expected a count such as 10"),
        ("coverage", {"n": "2"}, "has no setting 'n'; it has resamples"),
        ("coverage", {"resamples": "0"}, "resamples=0: expected a count"),
    ],
)
def test_settings_are_checked(name, settings, message):
    with pytest.raises(ConfigError, match=message):
        run_bench(name, BenchOptions(settings=settings))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_intervals_hold_the_truth_from_a_hundred_positives_on():
    trials = max(400, int(4000 * SHARE))
    low, high = allowed(0.935, 0.965, trials)
    for method, hits in independent_coverage(100, trials, 1000, 1).items():
        assert low <= hits / trials <= high, method


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_patients_must_be_drawn_not_images():
    trials = max(400, int(4000 * SHARE))
    low, high = allowed(0.92, 0.98, trials)
    found = clustered_coverage(150, trials, 1000, 1)
    assert low <= found["bootstrap of patients"] / trials <= high
    assert low <= found["logit DeLong of patients"] / trials <= high
    assert found["bootstrap of images"] / trials < 0.85


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_few_positives_are_where_intervals_fail():
    trials = max(400, int(4000 * SHARE))
    found = independent_coverage(5, trials, 1000, 1)
    assert found["percentile bootstrap"] / trials < 0.93
    assert found["logit DeLong"] > found["DeLong"]


@pytest.mark.slow
def test_holm_keeps_false_alarms_at_the_level():
    runs = max(200, int(1000 * SHARE))
    called = false_alarms(runs, 3)
    assert called["Holm"] / runs <= 0.059 + 3 * math.sqrt(0.05 * 0.95 / runs) * (runs < 1000)
    assert called["no correction"] / runs > 0.3
