"""Few labelled images: a probe, a cache and learned prompts learn what is planted, from those images alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kvlp.adaptation import CacheAdapter, LearnedPrompts, LinearProbe, base_to_new, draw_shots
from kvlp.adaptation.few_shot import FewShot
from kvlp.checkpoints import Model, load
from kvlp.errors import ConfigError, DataError, ShapeError
from kvlp.eval.metrics import auc
from kvlp.zero_shot import ZeroShotClassifier

CLASSES = ["left pleural effusion", "pneumothorax"]
TEMPLATES = {"present": ["There is {}."], "absent": ["There is no {}."]}


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> Model:
    return load(tiny_folder)


def planted(model: Model, n: int = 80, seed: int = 0, strength: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors in which each class has a direction of its own, and their labels."""
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(7).normal(size=(2, model.dim))
    labels = (rng.random((n, 2)) < 0.4).astype(float)
    vectors = rng.normal(size=(n, model.dim)) + strength * (labels - 0.5) @ directions
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), labels


def test_a_linear_probe_finds_the_planted_directions(model: Model) -> None:
    X, y = planted(model)
    probe = LinearProbe(model, CLASSES).fit(X, y)
    other, truth = planted(model, 300, seed=1)
    scores = probe.decision_function(other)
    assert min(auc(truth[:, c], scores[:, c]) for c in range(2)) > 0.95
    np.testing.assert_allclose(scores, other @ probe.weights_.T + probe.intercepts_)
    assert probe.predict_proba(other).min() >= 0


def test_unknown_labels_teach_nothing(model: Model) -> None:
    X, y = planted(model)
    y[:10, 0] = np.nan
    y[10:20, 0] = -1
    first = LinearProbe(model, CLASSES).fit(X, y).weights_
    changed = X.copy()
    changed[:20] = planted(model, 20, seed=3)[0]
    second = LinearProbe(model, CLASSES).fit(changed, y).weights_
    np.testing.assert_array_equal(first[0], second[0])
    assert not np.array_equal(first[1], second[1])


def test_the_penalty_is_chosen_on_patients_left_out(model: Model) -> None:
    """Labels are noise, but each patient has the same image four times: leaving images out would not notice."""
    rng = np.random.default_rng(0)
    X = np.repeat(rng.normal(size=(12, model.dim)), 4, axis=0)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    y = np.repeat(np.arange(12) % 2, 4)[:, None].astype(float)
    patients = np.repeat(np.arange(12), 4)
    fooled = LinearProbe(model, ["edema"]).fit(X, y).strengths_[0]
    careful = LinearProbe(model, ["edema"]).fit(X, y, groups=patients).strengths_[0]
    assert fooled > 100 * careful


def test_the_cache_by_hand(model: Model) -> None:
    keys = np.eye(model.dim)[:3]
    y = np.array([[1.0], [0.0], [0.0]])
    adapter = CacheAdapter(model, ["pneumothorax"], alpha=2.0, beta=1.0).fit(keys, y)
    asked = np.zeros((1, model.dim))
    asked[0, 0], asked[0, 1] = 0.6, 0.8  # cosines with the keys: 0.6, 0.8, 0
    shared = np.exp(-0.4) - (np.exp(-0.2) + np.exp(-1.0)) / 2
    words = ZeroShotClassifier(model, ["pneumothorax"]).decision_function(asked)
    np.testing.assert_allclose(adapter.decision_function(asked), words + 2 * shared, rtol=1e-9)


def test_the_cache_learns_what_is_planted(model: Model) -> None:
    X, y = planted(model)
    adapter = CacheAdapter(model, CLASSES).fit(X, y)
    other, truth = planted(model, 300, seed=1)
    assert adapter.alpha_ > 0
    assert min(auc(truth[:, c], adapter.decision_function(other)[:, c]) for c in range(2)) > 0.9


def test_images_of_a_patient_say_nothing_of_that_patient(model: Model) -> None:
    X, y = planted(model)
    assert CacheAdapter(model, CLASSES).fit(X, y, groups=np.zeros(len(X))).alpha_ == 0


def test_prompts_begin_as_the_words_that_they_are_learned_from(model: Model) -> None:
    X, y = planted(model, 12)
    words = ZeroShotClassifier(model, CLASSES, templates=TEMPLATES, synonyms=False).decision_function(X)
    for conditional in (False, True):
        learned = LearnedPrompts(model, CLASSES, epochs=1, lr=1e-12, conditional=conditional).fit(X, y)
        np.testing.assert_allclose(learned.decision_function(X), words, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("conditional", [False, True])
def test_prompts_learn_and_the_model_stays_as_it_was(model: Model, conditional: bool) -> None:
    X, y = planted(model, 40)
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    text = model.encode_text(["There is pneumothorax."])
    learned = LearnedPrompts(model, CLASSES, epochs=8, lr=2e-2, conditional=conditional).fit(X, y)
    assert learned.losses_[-1] < 0.8 * learned.losses_[0]
    again = LearnedPrompts(model, CLASSES, epochs=8, lr=2e-2, conditional=conditional).fit(X, y)
    np.testing.assert_array_equal(again.decision_function(X), learned.decision_function(X))
    assert all(torch.equal(before[name], value) for name, value in model.module.state_dict().items())
    assert all(p.grad is None for p in model.module.parameters())
    np.testing.assert_array_equal(model.encode_text(["There is pneumothorax."]), text)
    other = learned.with_classes(["cardiomegaly"])
    assert other.decision_function(X).shape == (40, 1)
    assert learned.classes_ == CLASSES


def test_an_anchor_keeps_the_classes_near_where_they_were(model: Model) -> None:
    X, y = planted(model, 40)

    def moved(anchor: float) -> float:
        learned = LearnedPrompts(model, CLASSES, epochs=6, lr=2e-2, anchor=anchor).fit(X, y)
        pairs = zip(learned._asked, learned._vectors, strict=True)
        return sum(float((one.class_vectors(v) - one.class_vectors()).detach().square().sum()) for one, v in pairs)

    assert moved(1000.0) < 0.5 * moved(0.0)


def test_balance_is_that_of_a_loop() -> None:
    from kvlp.adaptation.learned_prompts import _balance

    truth = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, float("nan")], [-1.0, 1.0]])
    expected = torch.zeros(4, 2)
    for c in range(2):
        for value in (0.0, 1.0):
            rows = [r for r in range(4) if truth[r, c] == value]
            for r in rows:
                expected[r, c] = 4 / (2 * 2 * len(rows))
    torch.testing.assert_close(_balance(truth), expected)


@pytest.mark.slow
def test_base_to_new_has_a_line_for_each_method(model: Model) -> None:
    X, y = planted(model, 60)
    other, truth = planted(model, 120, seed=1)
    lines = base_to_new(
        model, (X, y[:, :1]), (other, truth, np.arange(120)), CLASSES[:1], CLASSES[1:],
        resamples=20, prompt_settings={"epochs": 2},
    )  # fmt: skip
    found = {line.method: line for line in lines}
    assert list(found) == ["zero-shot", "linear probe", "cache adapter", "learned prompts", "conditional prompts"]
    assert found["linear probe"].base.value > found["zero-shot"].base.value
    assert np.isnan(found["linear probe"].new.value)
    assert found["cache adapter"].new.value == found["zero-shot"].new.value
    zero = found["zero-shot"]
    a, b = zero.base.value, zero.new.value
    assert zero.harmonic_mean == pytest.approx(2 / (1 / a + 1 / b))
    with pytest.raises(ConfigError, match="no method 'magic'"):
        base_to_new(model, (X, y[:, :1]), (other, truth, np.arange(120)), CLASSES[:1], CLASSES[1:], methods=["magic"])


def test_shots_are_as_many_as_asked_and_one_a_patient() -> None:
    y = np.array([[1, 0], [1, 0], [0, 1], [0, np.nan], [0, 0], [1, 1]], dtype=float)
    rows = draw_shots(y, 2, seed=3)
    assert list(rows) == sorted(set(rows.tolist()))
    assert all(min(2, int((y[:, c] == v).sum())) <= (y[rows, c] == v).sum() for c in range(2) for v in (0, 1))
    same = draw_shots(y[:, :1], 3, groups=np.array(["a", "a", "b", "b", "b", "a"]))
    assert len(same) == 2  # one patient has it, one has not


@pytest.mark.parametrize("kind", [LinearProbe, CacheAdapter, LearnedPrompts])
def test_what_cannot_be_learned_from_is_told(model: Model, kind: type[FewShot]) -> None:
    X, y = planted(model, 10)
    with pytest.raises(
        DataError, match=r"class 'pneumothorax': expected images with and without it, got 0 with and 10"
    ):
        kind(model, CLASSES).fit(X, np.column_stack([y[:, 0], np.zeros(10)]))
    with pytest.raises(ShapeError, match=r"expected labels of shape \(10, 2\), got \(9, 2\)"):
        kind(model, CLASSES).fit(X, y[:9])
    with pytest.raises(ConfigError, match="nothing was learned yet"):
        kind(model, CLASSES).decision_function(X)
    with pytest.raises(ConfigError, match="different names"):
        kind(model, ["edema", "edema"])


def test_images_are_read_and_bad_ones_flagged(model: Model, pictures: list[Any]) -> None:
    y = np.array([[1.0], [0.0], [1.0]])
    probe = LinearProbe(model, ["edema"], errors="flag").fit(pictures, y)
    scores = probe.decision_function([*pictures, Path("nowhere.png")])
    assert np.isfinite(scores[:3]).all()
    assert np.isnan(scores[3]).all()
    assert probe.flags_[3].kind == "unreadable"


def test_settings_out_of_range_are_refused(model: Model) -> None:
    with pytest.raises(ConfigError, match="epochs >= 1"):
        LearnedPrompts(model, CLASSES, epochs=0)
