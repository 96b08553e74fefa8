"""Conformal sets: the rank by hand, and the promised coverage by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kvlp.errors import ConfigError, ShapeError
from kvlp.eval.conformal import ConformalLimits, conformal_limits, set_coverage


@pytest.mark.parametrize(
    ("n", "coverage", "rank"),
    [(9, 0.9, 9), (9, 0.95, None), (19, 0.9, 18), (20, 0.9, 19), (99, 0.95, 95), (1, 0.5, 1), (1, 0.51, None)],
)
def test_the_rank_is_that_of_the_finite_sample(n: int, coverage: float, rank: int | None) -> None:
    """ceil((n + 1) coverage)-th conforming score: 10 x 0.9 = 9 of 9, 9.5 -> 10 of 9 does not exist."""
    scores = np.random.default_rng(n).permutation(n) + 1.0  # 1 .. n, of either label
    limits = conformal_limits(np.r_[np.ones(n), np.zeros(n)], np.r_[scores, scores], coverage)
    assert limits.present_from == (-math.inf if rank is None else n + 1 - rank)
    assert limits.absent_to == (math.inf if rank is None else rank)
    assert (limits.n_present, limits.n_absent) == (n, n)


def test_the_four_sets() -> None:
    apart, crossed = ConformalLimits(2.0, 1.0), ConformalLimits(1.0, 2.0)
    assert apart.sets([0.5, 1.0, 1.5, 2.0, np.nan]).tolist() == [
        [True, False], [True, False], [False, False], [False, True], [True, True],
    ]  # fmt: skip
    assert crossed.sets([0.5, 1.5, 2.5]).tolist() == [[True, False], [True, True], [False, True]]
    assert ConformalLimits().sets([-1e9, 1e9]).all()


def test_uncertain_rows_and_other_images_of_a_patient_do_not_count() -> None:
    labels = np.r_[np.ones(30), np.zeros(30), -1, np.nan]
    scores = np.r_[np.arange(60.0), 1e6, -1e6]
    plain = conformal_limits(labels[:60], scores[:60], 0.8)
    assert conformal_limits(labels, scores, 0.8) == plain
    patients = np.r_[np.repeat(np.arange(10), 3), np.repeat(np.arange(5, 20), 2), 7, 7]
    limits = conformal_limits(labels, scores, 0.8, patients)
    assert (limits.n_present, limits.n_absent) == (10, 15)
    assert limits == conformal_limits(labels, scores, 0.8, patients)
    order = np.random.default_rng(0).permutation(62)
    other = conformal_limits(labels[order], scores[order], 0.8, patients[order])
    assert (other.n_present, other.n_absent) == (10, 15)


def test_wrong_calls() -> None:
    for coverage in (0.0, 1.0, 90, math.nan):
        with pytest.raises(ConfigError, match="above 0 and below 1"):
            conformal_limits([0, 1], [0.0, 1.0], coverage)
    with pytest.raises(ShapeError, match=r"groups must have shape \(2,\)"):
        conformal_limits([0, 1], [0.0, 1.0], 0.9, ["a"])
    with pytest.raises(ShapeError, match=r"sets of shape \(2, 2\), got \(3, 2\)"):
        set_coverage([0, 1], np.zeros((3, 2), bool), 0.9)


def test_measured_coverage_by_hand() -> None:
    labels = [1, 1, 1, 1, 0, 0, -1, np.nan]
    sets = np.array([[0, 1], [1, 1], [0, 1], [1, 0], [1, 0], [0, 0], [0, 0], [0, 0]], dtype=bool)
    found = set_coverage(labels, sets, 0.9, groups=list("aabbccdd"), n=50)
    assert found.present.value == 0.75
    assert found.absent.value == 0.5
    assert found.marginal.value == pytest.approx(4 / 6)
    assert found.marginal.n_groups == 3
    assert found.shares == pytest.approx({"absent": 2 / 6, "present": 2 / 6, "both": 1 / 6, "none": 1 / 6})
    nothing = set_coverage([np.nan], sets[:1], 0.9, n=5)
    assert math.isnan(nothing.marginal.value)
    assert math.isnan(nothing.shares["both"])


@pytest.mark.slow
@pytest.mark.parametrize("images", [1, 4])
@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_coverage_by_simulation(images: int, coverage: float) -> None:
    """600 calibrations on 60 patients: each label is covered at least as often as asked, and hardly more often.

    With four images of a patient that share most of their score, the draw of one a patient keeps the promise.
    """
    rng, trials, patients = np.random.default_rng(7), 600, 60
    hits: dict[str, list[float]] = {"present": [], "absent": [], "marginal": []}
    most: list[float] = []

    def draw(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        labels = np.repeat((rng.random(count) < 0.3).astype(float), images)
        shared = np.repeat(rng.normal(size=count), images)
        return labels, 1.2 * labels + shared + 0.3 * rng.normal(size=labels.size), np.repeat(np.arange(count), images)

    for _ in range(trials):
        labels, scores, groups = draw(patients)
        limits = conformal_limits(labels, scores, coverage, groups)
        most.append(1 / (1 + min(limits.n_present, limits.n_absent)))
        truth, new, who = draw(60)
        first = np.unique(who, return_index=True)[1]
        sets = limits.sets(new[first])
        held = np.where(truth[first] == 1, sets[:, 1], sets[:, 0])
        hits["marginal"].append(held.mean())
        for name, at in (("present", truth[first] == 1), ("absent", truth[first] == 0)):
            if at.any():
                hits[name].append(held[at].mean())
    for values in hits.values():
        error = np.std(values) / math.sqrt(len(values))
        assert coverage - 4 * error <= np.mean(values) <= coverage + np.mean(most) + 4 * error
