"""Explanations: the map lies where the model looks, the words are those that were asked, nothing depends on chance."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kvlp.checkpoints import Model, load
from kvlp.datasets.phantom.drawing import render
from kvlp.datasets.phantom.generate import patient_cases
from kvlp.errors import ConfigError, ShapeError
from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.models.dual_encoder import build_dual_encoder
from kvlp.models.preprocess import Preprocess
from kvlp.models.towers import model_config
from kvlp.tokenizers import TextTokenizer
from kvlp.zero_shot import Ensemble, ZeroShotClassifier, overlay
from kvlp.zero_shot.heat import local_map, occlusion_map

pytestmark = pytest.mark.filterwarnings("ignore::kvlp.zero_shot.scoring.ImplausibleImageWarning")


@pytest.fixture(scope="module")
def graph() -> KnowledgeGraph:
    return KnowledgeGraph.load("chest")


@pytest.fixture(scope="module")
def phantom_model() -> Model:
    return load("phantom-tiny")


@pytest.fixture(scope="module")
def radiograph() -> np.ndarray:
    return render(patient_cases(0, 5000)[0], 128).image


class Corner:
    """Sees an effusion by how bright the lower left quarter is."""

    def score(self, images: Sequence[np.ndarray], prompts: Sequence[str]) -> np.ndarray:
        said = np.array([-1.0 if "no " in p.lower() else 1.0 for p in prompts])
        seen = [image[image.shape[0] // 2 :, : image.shape[1] // 2].mean() / 255 for image in images]
        return np.array(seen)[:, None] * said


@pytest.mark.parametrize("shape", [(96, 96), (120, 60), (500, 700)])
def test_occlusion_finds_where_a_model_looks(shape: tuple[int, int]) -> None:
    grey = np.full(shape, 40, np.uint8)
    grey[shape[0] // 2 :, : shape[1] // 2] = 220
    why = ZeroShotClassifier(Corner(), ["effusion"], style="plain").explain(grey, "effusion")
    heat = why.heat
    assert heat.method == "occlusion"
    assert heat.values.shape == shape
    assert (heat.values.min(), heat.values.max()) == (0, 1)
    assert heat.low == pytest.approx(0, abs=0.02)
    assert heat.high > 0.02
    quarter = np.zeros(shape, bool)
    quarter[shape[0] // 2 :, : shape[1] // 2] = True
    assert heat.values[quarter].mean() > 0.6 > 0.2 > heat.values[~quarter].mean()
    assert quarter[heat.peak]


def test_a_flat_map_is_zero_and_a_fall_has_its_sign() -> None:
    grey = np.full((60, 60), 90, np.uint8)
    flat = occlusion_map(lambda images: np.zeros(len(images)), grey)
    assert not flat.values.any()
    assert (flat.low, flat.high) == (0, 0)
    grey[10:20, 40:50] = 255
    bright = occlusion_map(lambda images: np.array([(image > 200).mean() for image in images]), grey)
    assert 5 <= bright.peak[0] <= 25
    assert 35 <= bright.peak[1] <= 55
    assert bright.high > 0, "covering what speaks for the class loses score"


def pixels_of(model: Model, grey: np.ndarray) -> Any:
    return model.preprocess(grey)[None]


@pytest.mark.parametrize("mode", ["longest", "shortest", "squash"])
def test_features_lie_where_the_pixels_do(tiny_folder: Path, mode: str) -> None:
    """A map of the tower's square lands on the image's own pixels, whatever the square padded or cut off."""
    model = load(tiny_folder)
    model.preprocess = Preprocess(size=64, resize_mode=mode)
    grey = np.full((80, 160), 20, np.uint8)
    grey[20:60, 100:140] = 240

    def brightness(images: Any, **_: Any) -> Any:
        return {"image_intermediates": [torch.nn.functional.avg_pool2d(images[:, :1], 4)]}

    class Tower:
        proj = None
        forward_intermediates = staticmethod(brightness)

    class Module:
        visual = Tower()
        parameters = staticmethod(lambda: iter([torch.zeros(1)]))

    model.module = Module()  # type: ignore[assignment]
    heat = local_map(model, grey, np.array([1.0]))
    assert heat is not None
    assert heat.values.shape == grey.shape
    assert grey[heat.peak] == 240
    seen = heat.values > 0.5
    inside = (grey == 240) & seen
    assert inside.sum() > 0.6 * (grey == 240).sum() or mode == "shortest"
    assert (seen & (grey == 20)).sum() < 0.35 * seen.sum()


@pytest.mark.parametrize(
    "tower", ["tiny-cnn", "small-cnn", "tiny-vit", "test_vit", "test_convnext", "test_efficientnet"]
)
def test_every_kind_of_tower_gives_a_map(tiny_tokenizer: Any, radiograph: np.ndarray, tower: str) -> None:
    torch.manual_seed(0)
    size = {"tiny-vit": 96, "test_vit": 160}.get(tower, 64)
    sizes = {"vocab_size": len(tiny_tokenizer), "eos_id": tiny_tokenizer.sep_token_id, "context_length": 24}
    cfg = model_config(tower, "tiny-text", embed_dim=32, image_size=size, **sizes)
    module = build_dual_encoder(cfg).eval()
    words = TextTokenizer.wrap(tiny_tokenizer, context_length=24)
    model = Model(module, words, Preprocess(size=size), model_cfg=cfg, source=tower)
    classifier = ZeroShotClassifier(model, ["pneumothorax"], style="plain")
    why, again = (classifier.explain(radiograph, "pneumothorax", heat="features") for _ in range(2))
    assert why.heat.method == "features"
    assert min(why.heat.cells) >= 2
    assert why.heat.values.shape == radiograph.shape
    assert (why.heat.values.min(), why.heat.values.max()) == (0, 1)
    np.testing.assert_array_equal(why.heat.values, again.heat.values)


def test_one_cell_is_the_image(phantom_model: Model, radiograph: np.ndarray) -> None:
    """Where the last map has equal cells, each cell's vector is the image's own."""
    flat = np.full_like(radiograph, 128)
    visual = phantom_model.module.visual
    with torch.inference_mode():
        features = visual.trunk.forward_features(pixels_of(phantom_model, flat))
        middle = features[..., 1:2, 1:2]
        whole = visual.head(visual.trunk.forward_head(middle.expand(-1, -1, 3, 3)))[0]
        alone = visual.head(visual.trunk.forward_head(middle))[0]
    torch.testing.assert_close(whole, alone)


def test_words_and_concepts(phantom_model: Model, radiograph: np.ndarray, graph: KnowledgeGraph) -> None:
    classifier = ZeroShotClassifier(phantom_model, ["pneumothorax", "left basal opacity"], graph=graph)
    why = classifier.explain(radiograph, "pneumothorax", heat="features")
    asked = classifier.prompts("pneumothorax")
    assert {p.text for p in why.prompts if p.kind == "present"} == set(asked["present"])
    assert {p.text for p in why.prompts if p.kind == "absent"} == set(asked["absent"])
    assert [p.score for p in why.prompts] == sorted((p.score for p in why.prompts), reverse=True)
    best, worst = why.best(), why.worst()
    assert len(best) == len(worst) == 3
    cosines = phantom_model.encode_image([radiograph]) @ phantom_model.encode_text(asked["present"]).T
    assert best[0].score == pytest.approx(cosines.max(), abs=1e-5)
    assert worst[0].score == pytest.approx(cosines.min(), abs=1e-5)
    assert why.worst("absent")[0].score <= why.best("absent")[-1].score
    assert why.probability == pytest.approx(classifier.predict_proba([radiograph])[0, 0], abs=1e-6)
    assert why.concept == "pneumothorax"
    assert why.synonyms == graph["pneumothorax"].synonyms
    assert why.related["parents"] == tuple(graph[i].name for i in graph.parents("pneumothorax"))
    out = [graph[r.head].name for r in graph.neighbours("pneumothorax", "rules_out", "in")]
    assert list(why.related.get("ruled out by", ())) == out
    assert not why.calibrated
    assert why.labels == ()
    free = classifier.explain(radiograph, "left basal opacity", heat="features")
    assert (free.concept, free.synonyms, free.related) == ("", (), {})
    text = json.dumps(why.to_dict(), allow_nan=False)
    assert json.loads(text)["prompts"]["present"]["count"] == len(asked["present"])


def test_what_was_learned_stands_in_the_explanation(axes: Any, labelled: Callable[..., Any], radiograph: Any) -> None:
    X, y = labelled(200, 0)
    classifier = ZeroShotClassifier(axes(), ["effusion", "pneumothorax"], style="plain").fit(X, y)
    before = classifier.calibration_
    why = classifier.explain(radiograph, "pneumothorax")
    assert why.calibrated
    assert why.threshold == classifier.thresholds_[1]
    assert why.probability == pytest.approx(classifier.predict_proba([radiograph])[0, 1])
    sets = classifier.predict_set([radiograph])[0, 1]
    assert why.labels == tuple(name for name, held in zip(("absent", "present"), sets, strict=True) if held)
    assert classifier.calibration_ is before
    both = ZeroShotClassifier([axes("a"), axes("b")], ["effusion"], style="plain").explain(radiograph, "effusion")
    assert both.heat.method == "occlusion", "an ensemble has no map of its own"
    assert isinstance(Ensemble([axes()]), Ensemble)


def test_wrong_calls(axes: Any, radiograph: np.ndarray) -> None:
    classifier = ZeroShotClassifier(axes(), ["effusion"], style="plain")
    with pytest.raises(ConfigError, match="no class 'mass'; the classes are effusion"):
        classifier.explain(radiograph, "mass")
    with pytest.raises(ConfigError, match="heat is 'cam'"):
        classifier.explain(radiograph, "effusion", heat="cam")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="expected one image, got 2"):
        classifier.explain([radiograph, radiograph], "effusion")
    with pytest.raises(ShapeError, match="map of the image's shape"):
        overlay(radiograph, np.zeros((3, 3)))
    photograph = np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)
    flag = classifier.explain(photograph, "effusion").flag
    assert flag is not None
    assert flag.kind == "implausible"


def test_overlay_by_hand() -> None:
    grey = np.array([[100, 100, 100]], np.uint8)
    colours = overlay(grey, np.array([[0.0, 0.5, 1.0]]), strength=1.0)
    assert colours[0, 0].tolist() == [100, 100, 100]
    assert colours[0, 2].tolist() == [255, 255, 0]
    red, green, blue = colours[0, 1].tolist()
    assert red > 100 > green == blue


@pytest.mark.slow
def test_maps_of_phantoms(phantom_model: Model, graph: KnowledgeGraph) -> None:
    """How often the peak lies in the drawn finding; `pytest -s -m slow -k maps_of_phantoms` prints the shares."""
    hits: dict[str, list[bool]] = {"occlusion": [], "features": []}
    chance = []
    for patient in range(5000, 5015):
        for case in patient_cases(0, patient):
            drawn = render(case, 96)
            for name, mask in drawn.masks.items():
                if name in graph and name in case.findings and mask.any():
                    classifier = ZeroShotClassifier(phantom_model, [name], graph=graph, style="plain", synonyms=False)
                    chance.append(mask.mean())
                    for kind, found in hits.items():
                        why = classifier.explain(drawn.image, name, heat=kind)  # type: ignore[arg-type]
                        found.append(bool(mask[why.heat.peak]))
    shares = {kind: float(np.mean(found)) for kind, found in hits.items()}
    print(f"\npeak in the finding: {shares}, by chance {np.mean(chance):.3f}, {len(chance)} findings")
    assert shares["occlusion"] > 3 * np.mean(chance)
    assert shares["features"] > np.mean(chance)
