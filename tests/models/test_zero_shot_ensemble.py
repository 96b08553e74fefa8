"""Ensembles of checkpoints: means by hand, and a member that scores alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kvlp.checkpoints import load
from kvlp.errors import ConfigError, ShapeError
from kvlp.eval.metrics import auc
from kvlp.typing import Scorer
from kvlp.zero_shot import Ensemble, ZeroShotClassifier

pytestmark = pytest.mark.filterwarnings("ignore::kvlp.zero_shot.scoring.ImplausibleImageWarning")

CLASSES = ["effusion", "pneumothorax"]


class Brightness:
    """Only scores: the image's mean grey, turned round where a sentence denies."""

    logit_scale = 4.0

    def score(self, images: Any, prompts: Any) -> np.ndarray:
        said = np.array([-1.0 if "no " in p.lower() else 1.0 for p in prompts])
        return np.array([image.mean() / 255 for image in images])[:, None] * said


@pytest.fixture
def two(axes: Any) -> list[Any]:
    """A member with scale 1, and one with scale 3 that has the second class upside down."""
    return [axes("a", 1.0), axes("b", 3.0, (1.0, -1.0, 1.0))]


def grey(*first: int) -> np.ndarray:
    image = np.full((60, 60), 90, np.uint8)
    image[0, : len(first)] = first
    image[20:40, 20:40] = 160
    return image


PICTURES = [grey(255, 0, 128), grey(0, 200, 128), grey(180, 90, 30), grey(20, 30, 200)]


def test_scores_are_the_mean_of_logits(two: list[Any]) -> None:
    a, b = (ZeroShotClassifier(m, CLASSES, style="plain") for m in two)
    parts = [clf.decision_function(PICTURES) for clf in (a, b)]
    both = ZeroShotClassifier(two, CLASSES, style="plain").decision_function(PICTURES)
    np.testing.assert_allclose(both, np.mean(parts, axis=0), atol=1e-6)


def test_probabilities_are_the_mean_of_probabilities(two: list[Any]) -> None:
    parts = [ZeroShotClassifier(m, CLASSES, style="plain").predict_proba(PICTURES) for m in two]
    both = ZeroShotClassifier(two, CLASSES, style="plain", combine="probabilities").predict_proba(PICTURES)
    np.testing.assert_allclose(both, np.mean(parts, axis=0), atol=1e-6)


def test_the_contract_of_one_model(two: list[Any]) -> None:
    ensemble = Ensemble(two)
    assert isinstance(ensemble, Scorer)
    prompts = ["There is effusion.", "There is no pneumothorax."]
    table = ensemble.score(PICTURES, prompts)
    assert table.dtype == np.float32
    assert table.shape == (4, 2)
    logits = [m.logit_scale * m.encode_image(PICTURES) @ m.encode_text(prompts).T for m in two]
    np.testing.assert_allclose(ensemble.logit_scale * table, np.mean(logits, axis=0), atol=1e-5)
    images, texts = ensemble.encode_image(PICTURES), ensemble.encode_text(prompts)
    assert images.shape == (4, ensemble.dim)
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(images @ texts.T, table, atol=1e-6)
    for part, member in zip(ensemble.split(images), two, strict=True):
        np.testing.assert_allclose(part, member.encode_image(PICTURES), atol=1e-6)
    assert ensemble.hash != Ensemble(two[::-1]).hash
    assert ensemble.card == {"named_concepts": ["pleural_effusion"]}
    two[1].card = {}
    assert Ensemble(two).card == {}, "one that does not say makes the whole not known"


def test_embeddings_side_by_side_are_taken(two: list[Any]) -> None:
    vectors = Ensemble(two).encode_image(PICTURES)
    classifier = ZeroShotClassifier(two, CLASSES, style="plain")
    by_pictures = classifier.decision_function(PICTURES)
    np.testing.assert_allclose(classifier.decision_function(vectors), by_pictures, atol=1e-6)
    with pytest.raises(ShapeError, match=r"\(N, 8\)"):
        classifier.decision_function(vectors[:, :4])


def test_a_member_that_only_scores(two: list[Any]) -> None:
    mixed = ZeroShotClassifier([two[0], Brightness()], CLASSES, style="plain")
    a = ZeroShotClassifier(two[0], CLASSES, style="plain").decision_function(PICTURES)
    both = mixed.decision_function(PICTURES)
    means = np.array([image.mean() / 255 for image in PICTURES])
    np.testing.assert_allclose(both, (a + 4 * 2 * means[:, None]) / 2, atol=1e-6)
    with pytest.raises(ConfigError, match="Brightness only scores"):
        Ensemble([two[0], Brightness()]).encode_image(PICTURES)
    with pytest.raises(ShapeError, match="Brightness only scores images; expected images, got embeddings"):
        ZeroShotClassifier(Brightness(), CLASSES).predict(np.ones((2, 4)))


def test_fit_brings_members_to_equal_spread(axes: Any, labelled: Callable[..., Any]) -> None:
    """A member whose logits are a hundred times larger does not drown the other."""
    X, y = labelled(300, 0)
    noise = np.random.default_rng(1).normal(size=X.shape)
    quiet, loud = axes("a", 1.0), axes("b", 100.0)
    weights = np.sqrt(np.array([1.0, 100.0]) / 101)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    both = np.concatenate([weights[0] * X, weights[1] * noise], axis=1)  # what Ensemble.encode_image would give
    classifier = ZeroShotClassifier([quiet, loud], CLASSES, style="plain")
    before = auc(y[:, 0], classifier.decision_function(both)[:, 0])
    after = auc(y[:, 0], classifier.fit(both, y).decision_function(both)[:, 0])
    assert before < 0.65 < 0.75 < after
    spread = [a / b for a, b in zip(*(row.weights for row in classifier.calibration_.classes.values()), strict=True)]
    assert spread == pytest.approx([1, 1], rel=0.3)
    learned = classifier.calibration_
    assert classifier.fit(both, y).calibration_ == learned, "the weights of a first fit do not enter the second"
    mean = ZeroShotClassifier([quiet, loud], CLASSES, style="plain", combine="probabilities").fit(both, y)
    assert all(row.weights == (1.0, 1.0) for row in mean.calibration_.classes.values())


def test_a_list_of_one_is_that_model_and_nonsense_is_refused(axes: Any, labelled: Callable[..., Any]) -> None:
    X, _ = labelled(20, 0)
    one, alone = (ZeroShotClassifier(m, CLASSES, style="plain") for m in ([axes()], axes()))
    np.testing.assert_array_equal(one.predict_proba(X), alone.predict_proba(X))
    for model in (None, 3, "phantom-tiny"):
        with pytest.raises(ConfigError, match=r"model from kvlp\.load"):
            ZeroShotClassifier(model, CLASSES).predict(X)
    with pytest.raises(ConfigError, match="member 1 is str"):
        ZeroShotClassifier([axes(), "phantom-tiny"], CLASSES).predict(X)
    with pytest.raises(ConfigError, match="at least one model"):
        ZeroShotClassifier([], CLASSES).predict(X)


def test_real_checkpoints(tiny_folder: Path, labelled: Callable[..., Any]) -> None:
    tiny, phantom = load(tiny_folder), load("phantom-tiny")
    ensemble = Ensemble([tiny, phantom])
    assert ensemble.dim == tiny.dim + phantom.dim
    assert len(ensemble.hash) == 64
    both = ZeroShotClassifier([tiny, phantom], CLASSES).decision_function(PICTURES)
    parts = [ZeroShotClassifier(m, CLASSES).decision_function(PICTURES) for m in (tiny, phantom)]
    np.testing.assert_allclose(both, np.mean(parts, axis=0), atol=1e-3)
