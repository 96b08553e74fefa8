"""What `fit` learns: on validation images alone, class by class, kept in a file that fits no other model."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kvlp.errors import CheckpointError, ConfigError, ShapeError
from kvlp.eval.metrics import known_rows
from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.zero_shot import ZeroShotClassifier

CLASSES = ["effusion", "pneumothorax"]
METHODS = ["platt", "temperature", "isotonic", "none"]
RULES: list[Any] = ["youden", "mcc", "f1", ("sensitivity", 0.9), ("specificity", 0.9), 0.3]
Draw = Callable[[int, int], tuple[np.ndarray, np.ndarray]]


@pytest.fixture
def make(axes: Any) -> Callable[..., ZeroShotClassifier]:
    return lambda classes=CLASSES, **more: ZeroShotClassifier(axes(), classes, style="plain", **more)


def rates(y: np.ndarray, said: np.ndarray) -> tuple[float, float]:
    return float(said[y == 1].mean()), float(1 - said[y == 0].mean())


@pytest.mark.parametrize("rule", RULES, ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_and_rule(make: Any, labelled: Draw, method: str, rule: Any) -> None:
    X, y = labelled(300, 0)
    classifier = make().fit(X, y, calibration=method, threshold=rule)
    said, p = classifier.predict(X), classifier.predict_proba(X)
    np.testing.assert_array_equal(said, p >= classifier.thresholds_)
    sensitivity, specificity = rates(y[:, 0], said[:, 0])
    if isinstance(rule, tuple):
        reached = {"sensitivity": sensitivity, "specificity": specificity}[rule[0]]
        other = {"sensitivity": specificity, "specificity": sensitivity}[rule[0]]
        assert reached >= 0.9
        assert other > 0.6, "no further than asked"
    elif rule == 0.3:
        assert classifier.thresholds_.tolist() == [0.3, 0.3]
    else:
        best = {"youden": youden, "mcc": mcc, "f1": f1}[rule]
        values = [best(y[:, 0], p[:, 0] >= t) for t in p[:, 0]]
        assert best(y[:, 0], said[:, 0] == 1) == pytest.approx(max(values))
    if method in ("platt", "isotonic"):
        assert p.mean(axis=0) == pytest.approx(y.mean(axis=0), abs=0.02)


def youden(y: np.ndarray, said: np.ndarray) -> float:
    return sum(rates(y, said.astype(float)))


def f1(y: np.ndarray, said: np.ndarray) -> float:
    return 2 * (said & (y == 1)).sum() / max(said.sum() + (y == 1).sum(), 1)


def mcc(y: np.ndarray, said: np.ndarray) -> float:
    return 0.0 if said.all() or not said.any() else float(np.corrcoef(y, said)[0, 1])


def learned(classifier: ZeroShotClassifier) -> dict[str, Any]:
    """All that `fit` learned and all that is asked."""
    rows = {name: row.to_dict() for name, row in classifier.calibration_.classes.items()}
    return {"rows": rows, "prompts": {name: classifier.prompts(name) for name in CLASSES}}


def test_test_labels_move_nothing(make: Any, labelled: Draw) -> None:
    """The whole use with true and with permuted test labels: thresholds, temperatures and prompts are the same."""
    (X, y), (X_test, y_test) = labelled(200, 0), labelled(300, 1)
    permuted = np.random.default_rng(0).permutation(y_test)
    after, measured = [], []
    for labels in (y_test, permuted):
        classifier = make().fit(X, y, calibration="temperature")
        scores = classifier.predict_proba(X_test)
        measured.append(classifier.risk_coverage(X_test, labels)["effusion"].area)
        classifier.set_coverage(X_test, labels)
        known_rows(labels[:, 0], scores[:, 0])
        after.append((learned(classifier), classifier.predict(X_test).tolist()))
    assert after[0] == after[1]
    assert measured[0] < measured[1] - 0.05, "the labels did count where they may"
    for name in ("predict", "predict_proba", "decision_function", "predict_set", "confidence", "explain"):
        assert not {"y", "labels", "y_true"} & set(inspect.signature(getattr(ZeroShotClassifier, name)).parameters)


@pytest.mark.parametrize("method", METHODS[:3])
@pytest.mark.filterwarnings("ignore:fit. class .* no better than chance")
def test_validation_labels_move_everything_that_is_learned(make: Any, labelled: Draw, method: str) -> None:
    X, y = labelled(200, 0)
    true = make().fit(X, y, calibration=method)
    moved = make().fit(X, np.random.default_rng(3).permutation(y), calibration=method)
    assert (true.thresholds_ != moved.thresholds_).all()
    for name in CLASSES:
        a, b = true.calibration_.classes[name], moved.calibration_.classes[name]
        assert a.calibrator != b.calibrator
        assert a.limits != b.limits


def test_unknown_labels_and_unread_images_are_left_out(make: Any, labelled: Draw) -> None:
    X, y = labelled(120, 0)
    plain = make().fit(X, y)
    more = np.concatenate([y, np.full((20, 2), -1.0), np.full((20, 2), np.nan)])
    wide = make().fit(np.concatenate([X, X[:40]]), more)
    assert learned(wide) == learned(plain)
    again = wide.fit(X, y)
    assert learned(again) == learned(plain), "a second fit forgets the first"


def test_a_class_without_both_labels_keeps_its_prior(make: Any, labelled: Draw) -> None:
    X, y = labelled(120, 0)
    before = make().predict_proba(X)
    y[:, 1] = np.where(y[:, 1] == 1, np.nan, 0)
    with pytest.warns(UserWarning, match="'pneumothorax' has no validation image labelled present; its prior scores"):
        classifier = make().fit(X, y)
    np.testing.assert_allclose(classifier.predict_proba(X)[:, 1], before[:, 1])
    assert classifier.thresholds_[1] == 0.5
    assert not classifier.calibration_.classes["pneumothorax"].learned
    assert classifier.predict_set(X)[:, 1].all(), "nothing learned, nothing left out"


def test_wrong_calls(make: Any, labelled: Draw) -> None:
    X, y = labelled(30, 0)
    classifier = make()
    for arguments, message in (
        ({"calibration": "sigmoid"}, "calibration is 'sigmoid'"),
        ({"threshold": "best"}, "rule 'best' is not known"),
        ({"threshold": 1.5}, r"a probability in \[0, 1\]"),
        ({"threshold": ("sensitivity", 0.9, 1)}, r"expected \('sensitivity', 0.95\)"),
        ({"coverage": 1.0}, "above 0 and below 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            classifier.fit(X, y, **arguments)
    assert not hasattr(classifier, "calibration_"), "a fit that failed leaves nothing behind"
    with pytest.raises(ShapeError, match=r"labels of shape \(30, 2\), got \(30, 1\)"):
        classifier.fit(X, y[:, 0])
    with pytest.raises(ShapeError, match=r"groups of shape \(30,\), got \(29,\)"):
        classifier.fit(X, y, groups=["a"] * 29)
    for call in (classifier.predict_set, lambda X: classifier.predict(X, abstain="conformal")):
        with pytest.raises(ConfigError, match="call fit on validation images"):
            call(X)
    with pytest.raises(ConfigError, match="call fit on validation images"):
        classifier.save_calibration("nowhere.json")
    for abstain in (1.5, "unsure", math.nan):
        with pytest.raises(ConfigError, match="abstain: expected a confidence"):
            classifier.predict(X, abstain=abstain)


def test_abstaining_by_hand(make: Any, labelled: Draw) -> None:
    X, y = labelled(200, 0)
    classifier = make().fit(X, y, threshold=0.25)
    p, sure = classifier.predict_proba(X), classifier.confidence(X)
    np.testing.assert_allclose(sure, np.where(p >= 0.25, (p - 0.25) / 0.75, (0.25 - p) / 0.25))
    plain, careful = classifier.predict(X), classifier.predict(X, abstain=0.4)
    np.testing.assert_array_equal(careful, np.where(sure < 0.4, -1, plain))
    curve = classifier.risk_coverage(X, y)["effusion"]
    at = curve.confidence_for(0.02)
    answered = classifier.predict(X, abstain=at)[:, 0] >= 0
    assert (plain[answered, 0] != y[answered, 0]).mean() <= 0.02 < (plain[:, 0] != y[:, 0]).mean()
    assert curve.area < curve.area_random
    assert curve.area_ideal <= curve.area


def test_sets_and_their_coverage(make: Any, labelled: Draw) -> None:
    (X, y), (X_test, y_test) = labelled(1600, 0), labelled(2000, 1)
    classifier = make().fit(X, y, coverage=0.95)
    sets, said = classifier.predict_set(X_test), classifier.predict(X_test, abstain="conformal")
    assert sets.shape == (2000, 2, 2)
    alone = sets.sum(axis=-1) == 1
    np.testing.assert_array_equal(said, np.where(alone, sets[..., 1], -1))
    for name, found in classifier.set_coverage(X_test, y_test, groups=np.arange(2000)).items():
        assert found.asked == 0.95
        for interval in (found.present, found.absent, found.marginal):
            assert interval.value == pytest.approx(0.95, abs=0.035), name
            assert interval.low < interval.value < interval.high
    grouped = make().fit(X, y, groups=np.arange(1600) // 4)
    assert grouped.calibration_.classes["effusion"].n_patients == 400
    assert grouped.calibration_.classes["effusion"].limits.n_present < y[:, 0].sum()


# ---- scikit-learn's checks that apply -----------------------------------------------------------------------------


def test_fit_is_idempotent_and_changes_no_parameter(make: Any, labelled: Draw) -> None:
    X, y = labelled(100, 0)
    classifier = make()
    before, kept = classifier.get_params(), (X.copy(), y.copy())
    first = learned(classifier.fit(X, y))
    assert learned(classifier.fit(X, y)) == first
    assert classifier.get_params() == before
    np.testing.assert_array_equal(X, kept[0])
    np.testing.assert_array_equal(y, kept[1])
    order = np.random.default_rng(0).permutation(100)
    other = learned(make().fit(X[order], y[order]))
    for name in CLASSES:
        assert other["rows"][name]["threshold"] == pytest.approx(first["rows"][name]["threshold"])
    np.testing.assert_allclose(classifier.predict_proba(X)[order], classifier.predict_proba(X[order]), atol=1e-12)
    one = np.concatenate([classifier.predict_proba(X[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(one, classifier.predict_proba(X)[:5], atol=1e-12)
    assert classifier.fit(X, y.tolist()) is classifier


def test_clone_parameters_and_repr(make: Any, labelled: Draw) -> None:
    base = pytest.importorskip("sklearn.base", exc_type=ImportError)
    validation = pytest.importorskip("sklearn.utils.validation", exc_type=ImportError)
    X, y = labelled(100, 0)
    classifier = make().fit(X, y)
    copy = base.clone(classifier)
    assert copy.get_params() == classifier.get_params()
    assert not hasattr(copy, "calibration_")
    validation.check_is_fitted(copy)  # it predicts without `fit`, and says so in its tags
    assert base.is_classifier(classifier)
    assert classifier.n_features_in_ == X.shape[1]
    with pytest.raises(ShapeError, match=r"\(N, 4\) of this model, got \(100, 3\)"):
        classifier.predict(X[:, :3])
    assert copy.set_params(**classifier.get_params()) is copy
    parameters = inspect.signature(ZeroShotClassifier.__init__).parameters
    assert set(classifier.get_params()) == set(parameters) - {"self"}
    assert repr(classifier).startswith("ZeroShotClassifier(")
    assert "effusion" in repr(classifier)
    assert classifier.predict_proba(X).shape == (100, 2)
    assert copy.predict(X).dtype == np.int8, "what was never fitted predicts all the same"


# ---- the file -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_saved_and_loaded(make: Any, labelled: Draw, tmp_path: Path, method: str) -> None:
    X, y = labelled(150, 0)
    classifier = make().fit(X, y, calibration=method, threshold=("sensitivity", 0.9), coverage=0.8)
    path = classifier.save_calibration(tmp_path)
    assert path == tmp_path / "calibration.json"
    other = make().load_calibration(tmp_path)
    assert other.calibration_ == classifier.calibration_
    np.testing.assert_array_equal(other.predict_proba(X), classifier.predict_proba(X))
    np.testing.assert_array_equal(other.predict_set(X), classifier.predict_set(X))
    alone = make(["pneumothorax"]).load_calibration(path)
    np.testing.assert_array_equal(alone.predict(X)[:, 0], classifier.predict(X)[:, 1])


class ScoresAlone:
    """A query network as far as a classifier sees it: it answers sentences about images, and encodes nothing."""

    hash = "query"

    def score(self, images: Any, prompts: Any) -> np.ndarray:
        return np.array([[float(image[0]) * len(prompt) for prompt in prompts] for image in images])


def test_a_scorer_beside_the_encoders_keeps_a_file_of_its_own(make: Any, labelled: Draw, tmp_path: Path) -> None:
    X, y = labelled(60, 0)
    encoders = make().fit(X, y)
    encoders.save_calibration(tmp_path)
    scorer = make()
    scorer.model = ScoresAlone()
    scorer.calibration_ = encoders.calibration_
    assert scorer.save_calibration(tmp_path) == tmp_path / "calibration.query.json"
    assert make().load_calibration(tmp_path).calibration_ == encoders.calibration_
    assert scorer.load_calibration(tmp_path).calibration_ == encoders.calibration_


def test_a_foreign_calibration_is_refused_in_one_line(make: Any, axes: Any, labelled: Draw, tmp_path: Path) -> None:
    X, y = labelled(150, 0)
    path = make().fit(X, y).save_calibration(tmp_path / "c.json")
    graph = KnowledgeGraph.load("chest")
    strangers = [
        (ZeroShotClassifier(axes("other"), CLASSES, style="plain"), "made for another model hash"),
        (make(score="positive"), "made for another score"),
        (make(combine="probabilities"), "made for another combine"),
        (make(["effusion", "mass"]), "holds no class 'mass'"),
        (ZeroShotClassifier(axes(), CLASSES, graph=graph), "'effusion' was calibrated with other prompts"),
    ]
    for stranger, message in strangers:
        with pytest.raises(CheckpointError, match=message) as caught:
            stranger.load_calibration(path)
        assert "\n" not in str(caught.value)
        assert not hasattr(stranger, "calibration_")
    nameless = make().fit(X, y)
    nameless.model.hash = ""
    with pytest.raises(CheckpointError, match="has no hash"):
        nameless.save_calibration(tmp_path / "d.json")


def test_a_damaged_calibration_is_refused_in_one_line(make: Any, labelled: Draw, tmp_path: Path) -> None:
    X, y = labelled(60, 0)
    path = make().fit(X, y).save_calibration(tmp_path / "c.json")
    whole = path.read_text()
    good = json.loads(whole)
    effusion = good["classes"]["effusion"]
    broken: list[Any] = [whole[:-40], "", "[]", "null", "{", json.dumps({**good, "format": 9}), "\x00"]
    broken.append(json.dumps({**good, "classes": []}))
    for change in (
        {"threshold": 7}, {"threshold": "x"}, {"weights": []}, {"weights": [0]}, {"calibrator": {}},
        {"n_present": None}, {"calibrator": {**effusion["calibrator"], "slope": -1}},
    ):  # fmt: skip
        row = {**effusion, **change}
        broken.append(json.dumps({**good, "classes": {**good["classes"], "effusion": row}}))
    broken.append(whole.replace('"threshold": ', '"threshhold": '))
    for text in broken:
        path.write_text(text)
        with pytest.raises(CheckpointError, match="fit again") as caught:
            make().load_calibration(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="not readable as a calibration"):
        make().load_calibration(tmp_path / "none.json")
