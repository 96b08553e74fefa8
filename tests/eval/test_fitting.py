"""Maps from scores to probabilities: equal to scikit-learn's, rising, and honest where nothing can be learned."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from kvlp.errors import ConfigError, DataError
from kvlp.eval.fitting import METHODS, Calibrator, fit_calibrator, sigmoid
from kvlp.eval.metrics import auc

LEARNING = [name for name in METHODS if name != "none"]


def sample(n: int = 400, seed: int = 0, slope: float = 0.7, offset: float = -1.0) -> tuple[Any, Any]:
    """Labels that follow a logistic law of the scores; some scores are tied."""
    rng = np.random.default_rng(seed)
    scores = np.round(rng.normal(size=n) * 3, 1)
    return (rng.random(n) < sigmoid(slope * scores + offset)).astype(float), scores


def smoothed(labels: Any) -> Any:
    """Platt's targets."""
    positives, negatives = labels.sum(), (1 - labels).sum()
    return np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))


def test_platt_is_a_logistic_regression_on_smoothed_targets() -> None:
    linear = pytest.importorskip("sklearn.linear_model", exc_type=ImportError)
    labels, scores = sample()
    target = smoothed(labels)
    twice = np.r_[scores, scores][:, None]
    model = linear.LogisticRegression(C=1e12, tol=1e-10, max_iter=1000)
    model.fit(twice, np.repeat([1, 0], len(scores)), sample_weight=np.r_[target, 1 - target])
    found = fit_calibrator(labels, scores, "platt")
    assert found.slope == pytest.approx(model.coef_[0, 0], abs=1e-5)
    assert found.offset == pytest.approx(model.intercept_[0], abs=1e-5)
    assert found(scores).sum() == pytest.approx(target.sum()), "an optimum keeps the mean"


def test_a_temperature_is_the_best_one() -> None:
    labels, scores = sample(offset=0.0)
    target = smoothed(labels)

    def loss(slope: float) -> float:
        p = sigmoid(slope * (scores + 0.5))
        return -float(np.mean(target * np.log(p) + (1 - target) * np.log(1 - p)))

    found = fit_calibrator(labels, scores, "temperature", bias=0.5)
    assert loss(found.slope) < min(loss(found.slope * 1.01), loss(found.slope * 0.99))
    assert found.offset == pytest.approx(0.5 * found.slope), "a temperature leaves a logit of 0 at one half"
    hotter = fit_calibrator(labels, 2 * scores, "temperature", bias=1.0)
    assert hotter.slope == pytest.approx(found.slope / 2)


def test_isotonic_is_scikit_learns_on_smoothed_targets() -> None:
    isotonic = pytest.importorskip("sklearn.isotonic", exc_type=ImportError)
    labels, scores = sample()
    model = isotonic.IsotonicRegression(out_of_bounds="clip").fit(scores, smoothed(labels))
    found = fit_calibrator(labels, scores, "isotonic")
    new = np.linspace(scores.min() - 1, scores.max() + 1, 501)
    np.testing.assert_allclose(found(new), model.predict(new), atol=1e-12)


@pytest.mark.parametrize("method", LEARNING)
def test_a_map_rises_and_stays_inside(method: str) -> None:
    labels, scores = sample(n=60, seed=3)
    found = fit_calibrator(labels, scores, method)
    p = found(np.linspace(-40, 40, 999))
    assert (np.diff(p) >= 0).all()
    assert p.min() >= 0
    assert p.max() <= 1
    assert 0 < found(scores).min() < found(scores).max() < 1
    if method != "isotonic":
        assert auc(labels, found(scores)) == auc(labels, scores)
    assert np.isnan(found([np.nan, 1.0])).tolist() == [True, False]


@pytest.mark.parametrize("method", LEARNING)
def test_separable_labels_are_no_proof_of_certainty(method: str) -> None:
    p = fit_calibrator([0, 0, 0, 1, 1, 1], [-3.0, -2, -1, 1, 2, 3], method)([-3.0, 3.0])
    assert 0.1 < p[0] < 0.3
    assert 0.7 < p[1] < 0.9


@pytest.mark.parametrize("method", METHODS)
def test_uncertain_and_unmentioned_rows_count_for_nothing(method: str) -> None:
    labels, scores = sample(n=80, seed=1)
    more_labels = np.r_[labels, np.full(30, -1.0), np.full(30, np.nan)]
    more_scores = np.r_[scores, np.full(60, 99.0)]
    assert fit_calibrator(more_labels, more_scores, method) == fit_calibrator(labels, scores, method)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("labels", [[1, 1, np.nan], [0, 0, -1], [np.nan] * 3])
def test_one_kind_of_label_teaches_nothing(method: str, labels: list[float]) -> None:
    found = fit_calibrator(labels, [1.0, 2.0, 3.0], method, bias=-2.0)
    assert found.note == "no labels of both kinds"
    np.testing.assert_allclose(found([2.0]), [0.5])


@pytest.mark.parametrize("method", LEARNING)
def test_a_ranking_is_never_turned_round(method: str) -> None:
    found = fit_calibrator([1, 1, 1, 0, 0, 0], [-3.0, -2, -1, 1, 2, 3], method)
    assert found.note == "scores no better than chance"
    assert (np.diff(found([-3.0, -1, 1, 3])) >= 0).all()
    same = fit_calibrator([1, 0, 1, 0], [2.0] * 4, method)
    assert same.note == "scores no better than chance"
    assert np.isfinite(same([2.0])).all()


@pytest.mark.parametrize("method", METHODS)
def test_a_map_survives_json(method: str) -> None:
    labels, scores = sample(n=50)
    found = fit_calibrator(labels, scores, method, bias=0.25)
    assert Calibrator.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False))) == found


@pytest.mark.parametrize(
    "change",
    [
        {"slope": -1.0}, {"slope": math.nan}, {"offset": math.inf}, {"slope": "x"}, {"method": "magic"}, {"more": 1},
        {"scores": [1.0, 0.0], "probabilities": [0.1, 0.2]}, {"scores": [0.0, 1.0], "probabilities": [0.2, 0.1]},
        {"scores": [0.0], "probabilities": [1.5]}, {"scores": [0.0], "probabilities": []},
    ],
)  # fmt: skip
def test_a_map_that_does_not_rise_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="calibrator: expected"):
        Calibrator.from_dict({**Calibrator().to_dict(), **change})


def test_wrong_calls() -> None:
    with pytest.raises(ConfigError, match="calibration is 'sigmoid'; expected 'platt', 'temperature'"):
        fit_calibrator([0, 1], [0.0, 1.0], "sigmoid")
    with pytest.raises(DataError, match="infinite"):
        fit_calibrator([0, 1], [0.0, np.inf])
    with pytest.raises(DataError, match="is NaN where the label is known"):
        fit_calibrator([0, 1], [0.0, np.nan])
