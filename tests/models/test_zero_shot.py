"""Zero-shot scores mean what they say, alone or among others, whatever form the images have."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from kvlp.checkpoints import Model, load
from kvlp.datasets.phantom import generate_phantom
from kvlp.errors import ConfigError, DataError, ImageError, ShapeError
from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.knowledge.prompts import AttributePrompts
from kvlp.zero_shot import ImplausibleImageWarning, ZeroShotClassifier

WORDS = ["effusion", "pneumothorax", "abnormal", "normal"]


class Toy:
    """Understands four words and "no": its vectors can be worked out by hand."""

    dim = 5
    logit_scale = 10.0
    card = {"named_concepts": ["pleural_effusion", "tension_pneumothorax"]}

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        rows = np.zeros((len(texts), 5))
        for row, text in zip(rows, texts):
            denied = bool(re.search(r"\bno\b", text.lower()))
            said = re.findall("|".join(WORDS), text.lower().replace("abnormality", "abnormal"))
            for word in said:
                row[WORDS.index(word)] = -1 if denied else 1
            row[4] = 0 if said else 1
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def encode_image(self, images: Sequence[np.ndarray], *, batch_size: int = 64) -> np.ndarray:
        vectors = [[image.mean() / 255, image.std() / 255, 0.1, 0.2, 0.3] for image in images]
        rows = np.array(vectors).reshape(len(images), 5)
        return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)).astype(np.float32)


EMBEDDINGS = np.array([[1.0, 0, 0, 0, 0], [-2.0, 0, 0, 0, 0], [0.6, 0.8, 0, 0, 0]])


@pytest.fixture(scope="module")
def graph() -> KnowledgeGraph:
    return KnowledgeGraph.load("chest")


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return generate_phantom(tmp_path_factory.mktemp("phantom"), patients=3, seed=0, size=128, jobs=1)


def test_pair_by_hand() -> None:
    classifier = ZeroShotClassifier(Toy(), ["effusion", "pneumothorax"])
    decision = classifier.decision_function(EMBEDDINGS)
    # cosines with "effusion": 1, -1, .6 and with "no effusion" the same negated; times the scale of 10
    np.testing.assert_allclose(decision, [[20, 0], [-20, 0], [12, 16]], atol=1e-9)
    np.testing.assert_allclose(classifier.predict_proba(EMBEDDINGS), 1 / (1 + np.exp(-decision)), atol=1e-12)
    np.testing.assert_array_equal(classifier.predict(EMBEDDINGS), [[1, 1], [0, 1], [1, 1]])


def test_the_pair_is_a_softmax_over_present_and_absent() -> None:
    classifier = ZeroShotClassifier(Toy(), ["effusion"])
    present = ZeroShotClassifier(Toy(), ["effusion"], score="positive").decision_function(EMBEDDINGS)[:, 0]
    logits = np.stack([present, -present], axis=1)
    softmax = np.exp(logits)[:, 0] / np.exp(logits).sum(axis=1)
    np.testing.assert_allclose(classifier.predict_proba(EMBEDDINGS)[:, 0], softmax, atol=1e-12)


def test_a_class_scores_the_same_alone_or_among_others(tiny_folder: Path, graph: KnowledgeGraph) -> None:
    model = load(tiny_folder)
    X = np.random.default_rng(0).normal(size=(7, model.dim))
    names = ["pneumothorax", "No Finding", "pleural effusion", "left basal opacity"]
    among = ZeroShotClassifier(model, names, graph=graph).predict_proba(X)
    for column, name in enumerate(names):
        alone = ZeroShotClassifier(model, [name], graph=graph).predict_proba(X)
        np.testing.assert_allclose(alone[:, 0], among[:, column], atol=1e-5)


def test_no_finding_is_not_turned_round() -> None:
    classifier = ZeroShotClassifier(Toy(), ["No Finding"], style="plain")
    assert classifier.prompts("No Finding")["present"] == ["No acute cardiopulmonary abnormality."]
    sick, well = [0, 0, 1.0, 0, 0], [0, 0, -1.0, 0, 0]
    decision = classifier.decision_function(np.array([sick, well]))[:, 0]
    assert decision[0] < 0 < decision[1]


def test_synonyms_of_the_graph_are_used(graph: KnowledgeGraph) -> None:
    classifier = ZeroShotClassifier(Toy(), ["pleural effusion"], graph=graph)
    wide = classifier.prompts("pleural effusion")["present"]
    narrow = classifier.set_params(synonyms=False).prompts("pleural effusion")["present"]
    assert set(narrow) < set(wide)
    assert all("pleural effusion" in sentence.lower() for sentence in narrow)
    assert any(
        s in sentence.lower() for s in graph["pleural_effusion"].synonyms for sentence in set(wide) - set(narrow)
    )


def test_own_templates(graph: KnowledgeGraph) -> None:
    templates = {"present": ["{} seen"], "absent": ["no {}"]}
    classifier = ZeroShotClassifier(Toy(), ["effusion"], templates=templates)
    assert classifier.prompts("effusion") == {"present": ["effusion seen"], "absent": ["no effusion"]}
    np.testing.assert_allclose(classifier.decision_function(EMBEDDINGS[:1]), [[20]])
    named = ZeroShotClassifier(Toy(), ["pleural_effusion"], templates=templates, graph=graph, synonyms=False)
    assert named.prompts("pleural_effusion")["present"] == ["pleural effusion seen"]
    with pytest.raises(ConfigError, match="'present' and 'absent'"):
        ZeroShotClassifier(Toy(), ["effusion"], templates={"present": ["{} seen"]}).predict(EMBEDDINGS)
    ZeroShotClassifier(Toy(), ["effusion"], templates={"present": ["{}"]}, score="positive").predict(EMBEDDINGS)


def test_a_class_scores_the_same_alone_or_among_others_by_its_attributes(
    graph: KnowledgeGraph, radiographs: Any
) -> None:
    model = load("phantom-tiny")
    X = [radiographs.path_of(record) for record in radiographs]
    names = ["pneumothorax", "No Finding", "pleural effusion", "left basal opacity"]
    whole = ZeroShotClassifier(model, names, graph=graph, style="attributes", synonyms=False)
    assert "There is a pneumothorax in the pleural space." in whole.prompts("pneumothorax")["present"]
    assert "There is no pneumothorax on either side." in whole.prompts("pneumothorax")["absent"]
    among = whole.predict_proba(X)
    assert np.isfinite(among).all()
    for column, name in enumerate(names):
        alone = ZeroShotClassifier(model, [name], graph=graph, style="attributes", synonyms=False).predict_proba(X)
        np.testing.assert_allclose(alone[:, 0], among[:, column], atol=1e-5)
    plain = ZeroShotClassifier(model, names, graph=graph, style="plain", synonyms=False).predict_proba(X)
    np.testing.assert_allclose(plain[:, [1, 3]], among[:, [1, 3]], atol=1e-5)  # these have no attributes
    assert np.abs(plain[:, [0, 2]] - among[:, [0, 2]]).max() > 1e-3


def test_a_writer_of_prompts_may_be_given(graph: KnowledgeGraph) -> None:
    writer = AttributePrompts(graph, backend="definition")
    classifier = ZeroShotClassifier(Toy(), ["pleural effusion"], graph=graph, style="color", templates=writer)
    assert classifier.prompts("pleural effusion")["absent"][:2] == [
        "There is no pleural effusion.",
        "There is no pleural effusion, which would be white in color.",
    ]
    assert classifier.predict(EMBEDDINGS).shape == (3, 1)
    with pytest.raises(ConfigError, match="style 'colour' is unknown; did you mean 'color'"):
        classifier.set_params(style="colour").predict(EMBEDDINGS)


def test_all_forms_of_an_image_score_alike(radiographs: Any, graph: KnowledgeGraph) -> None:
    path = radiographs.path_of(radiographs[0])
    pixels = np.asarray(Image.open(path).convert("L"))
    forms = [
        path,
        str(path),
        path.read_bytes(),
        Image.open(path),
        pixels,
        pixels / 255.0,
        torch.from_numpy(pixels.copy()),
    ]
    classifier = ZeroShotClassifier(Toy(), ["effusion", "pneumothorax"], graph=graph)
    scores = classifier.predict_proba(forms)
    np.testing.assert_allclose(scores, np.repeat(scores[:1], len(forms), axis=0), atol=1e-6)
    np.testing.assert_allclose(classifier.predict_proba(path), scores[:1], atol=1e-6)
    np.testing.assert_allclose(classifier.predict_proba(Toy().encode_image([pixels])), scores[:1], atol=1e-6)
    whole = classifier.predict_proba(radiographs)
    assert whole.shape == (len(radiographs), 2)
    np.testing.assert_allclose(whole[0], scores[0], atol=1e-6)
    assert classifier.set_params(batch_size=1).predict_proba(radiographs) == pytest.approx(whole, abs=1e-6)


def test_what_is_no_radiograph_is_flagged(radiographs: Any) -> None:
    photograph = np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)
    classifier = ZeroShotClassifier(Toy(), ["effusion"])
    with pytest.warns(ImplausibleImageWarning, match="the first at position 1"):
        scores = classifier.predict_proba([radiographs.path_of(radiographs[0]), photograph])
    assert np.isfinite(scores).all()
    assert list(classifier.flags_) == [1]
    assert classifier.flags_[1].kind == "implausible"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classifier.predict_proba(radiographs)
    assert classifier.flags_ == {}


def test_bad_images_leave_good_neighbours_alone(radiographs: Any, tmp_path: Path) -> None:
    good = radiographs.path_of(radiographs[0])
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:400])
    bad = [tmp_path / "cut.png", tmp_path / "none.png", tmp_path, np.full((80, 80), 7.0)]
    with pytest.raises(ImageError, match=r"cut\.png"):
        ZeroShotClassifier(Toy(), ["effusion"]).predict_proba([good, *bad])
    with pytest.raises(ImageError, match="image 1:"):
        ZeroShotClassifier(Toy(), ["effusion"]).predict_proba([good, bad[-1]])
    classifier = ZeroShotClassifier(Toy(), ["effusion"], errors="flag", batch_size=2)
    scores = classifier.predict_proba([good, *bad, good])
    assert np.isnan(scores[1:5]).all()
    assert scores[0] == scores[5]
    assert {p: f.kind for p, f in classifier.flags_.items()} == dict.fromkeys([1, 2, 3, 4], "unreadable")
    assert classifier.predict([good, bad[0]])[:, 0].tolist() == [int(scores[0, 0] >= 0.5), -1]


def test_a_model_that_only_scores_is_enough(radiographs: Any) -> None:
    class Query:
        def score(self, images: Sequence[np.ndarray], prompts: Sequence[str]) -> np.ndarray:
            said = np.array([-0.5 if re.search(r"\bno\b", p.lower()) else 1.0 for p in prompts])
            return np.array([image.mean() / 255 for image in images])[:, None] * said

    paths = [radiographs.path_of(record) for record in radiographs]
    classifier = ZeroShotClassifier(Query(), ["effusion"], errors="flag")
    decision = classifier.decision_function([*paths, "none.png"])[:, 0]
    means = [np.asarray(Image.open(path).convert("L")).mean() / 255 for path in paths]
    np.testing.assert_allclose(decision[:-1], np.multiply(1.5, means), atol=1e-6)
    assert np.isnan(decision[-1])


def test_scikit_learns_habits(tiny_folder: Path) -> None:
    from sklearn.base import clone

    model = load(tiny_folder)
    classifier = ZeroShotClassifier(model, ["effusion", "mass"], score="positive")
    assert classifier.get_params()["score"] == "positive"
    copy = clone(classifier)
    assert copy is not classifier
    assert copy.get_params() == classifier.get_params()
    assert copy.model is model
    assert copy.classes_.tolist() == ["effusion", "mass"]
    assert copy.set_params(score="pair") is copy
    with pytest.raises(ConfigError, match="no parameter 'temprature'"):
        copy.set_params(temprature=3)
    names = ["effusion"]
    assert ZeroShotClassifier(model, names).classes is names, "the constructor only stores"
    ZeroShotClassifier()


def test_fit_recovers_a_logistic_law() -> None:
    rng = np.random.default_rng(0)
    cosines = rng.uniform(-1, 1, 4000)
    X = np.zeros((4000, 5))
    X[:, 0], X[:, 4] = cosines, np.sqrt(1 - cosines**2)
    truth = rng.random(4000) < 1 / (1 + np.exp(-(0.3 * 20 * cosines - 1.5)))
    labels = np.stack([truth, np.full(4000, np.nan)], axis=1)
    labels[:50, 0] = np.nan
    labels[50:90, 0] = -1
    classifier = ZeroShotClassifier(Toy(), ["effusion", "pneumothorax"])
    before = classifier.decision_function(X)
    with pytest.warns(UserWarning, match="'pneumothorax' has no validation image labelled present or absent"):
        assert classifier.fit(X, labels) is classifier
    learned = classifier.calibration_.classes["effusion"].calibrator
    assert learned.slope == pytest.approx(0.3, rel=0.1)
    assert learned.offset == pytest.approx(-1.5, abs=0.15)
    np.testing.assert_array_equal(classifier.decision_function(X), before)
    probability = classifier.predict_proba(X)[:, 0]
    assert probability[90:].mean() == pytest.approx(truth[90:].mean(), abs=0.01)
    np.testing.assert_allclose(classifier.predict_proba(X)[:, 1], 1 / (1 + np.exp(-before[:, 1])))
    assert not hasattr(classifier.set_params(batch_size=8), "calibration_"), "new settings forget the fit"


def test_fit_on_separable_labels_stays_finite_and_separates() -> None:
    X = np.zeros((8, 5))
    X[:, 0] = [-0.9, -0.5, -0.4, -0.1, 0.3, 0.5, 0.6, 0.9]
    X[:, 4] = np.sqrt(1 - X[:, 0] ** 2)
    classifier = ZeroShotClassifier(Toy(), ["effusion"]).fit(X, [0, 0, 0, 0, 1, 1, 1, 1])
    learned = classifier.calibration_.classes["effusion"].calibrator
    assert np.isfinite([learned.slope, learned.offset]).all()
    assert classifier.predict(X)[:, 0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    proba = classifier.predict_proba(X)[:, 0]
    assert proba[3] < classifier.thresholds_[0] < proba[4]
    assert 0.05 < proba[0] < proba[-1] < 0.95, "four of each kind are no proof of certainty"


def test_fit_never_turns_a_ranking_round() -> None:
    X = np.zeros((6, 5))
    X[:, 0] = [-0.9, -0.5, -0.2, 0.2, 0.5, 0.9]
    X[:, 4] = np.sqrt(1 - X[:, 0] ** 2)
    classifier = ZeroShotClassifier(Toy(), ["effusion"])
    with pytest.warns(UserWarning, match="no better than chance"):
        classifier.fit(X, [1, 1, 1, 0, 0, 0])
    assert (np.diff(classifier.predict_proba(X)[:, 0]) > 0).all()
    assert classifier.predict_proba(X).mean() == pytest.approx(0.5, abs=0.01)


def test_naming_is_honest(graph: KnowledgeGraph) -> None:
    classifier = ZeroShotClassifier(Toy(), ["effusion"], graph=graph)
    assert classifier.naming("pleural effusion") == "prompted classification"
    assert classifier.naming(graph["pleural_effusion"].synonyms[0]) == "prompted classification"
    child = next(iter(graph.descendants("pneumothorax")))
    classifier.model.card = {"named_concepts": [child]}
    assert classifier.naming("pneumothorax") == "prompted classification", "a more specific finding was named"
    assert classifier.naming("pleural effusion") == "zero-shot"
    classifier.model.card = {}
    assert classifier.naming("pneumothorax") == "not known"
    plain = ZeroShotClassifier(Toy(), ["effusion"])
    plain.model.card = {"named_concepts": ["Pleural_Effusion"]}
    assert plain.naming("pleural effusion") == "prompted classification"
    assert plain.naming("hydrothorax") == "not known", "without a graph it may be a synonym"


@pytest.mark.parametrize(
    ("classes", "message"),
    [((), "at least one name"), (["a", ""], "none of them empty"), (["a", "b", "a"], "'a' is named twice")],
)
def test_classes_are_checked(classes: Sequence[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ZeroShotClassifier(Toy(), classes).predict(EMBEDDINGS)


def test_wrong_inputs_are_named(tiny_folder: Path) -> None:
    classifier = ZeroShotClassifier(load(tiny_folder), ["effusion"])
    with pytest.raises(ShapeError, match=r"\(N, 32\).*\(3, 5\)"):
        classifier.predict(EMBEDDINGS)
    with pytest.raises(ShapeError, match="put it into a list"):
        classifier.predict(torch.zeros(9, 9))
    with pytest.raises(ShapeError, match="got dict"):
        classifier.predict({"a": 1})
    with pytest.raises(DataError, match="finite rows"):
        classifier.predict(np.zeros((2, 32)))
    with pytest.raises(ShapeError, match=r"labels of shape \(2, 1\), got \(3, 1\)"):
        classifier.fit(np.ones((2, 32)), [0, 1, 1])
    with pytest.raises(ConfigError, match="'pair' or 'positive'"):
        ZeroShotClassifier(Toy(), ["effusion"], score="both").predict(EMBEDDINGS)  # type: ignore[arg-type]
    assert classifier.predict_proba([]).shape == (0, 1)
    assert isinstance(classifier.model, Model)
