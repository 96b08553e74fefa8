"""Concept vectors by name in a recipe: its checks, the training, the checkpoint, resume, the shuffled control."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training_small import WEIGHTS

from kvlp.datasets.manifest import Manifest
from kvlp.errors import ConfigError, ShapeError
from kvlp.knowledge.embedding import ConceptVectors
from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.models.concept_head import ConceptHead
from kvlp.training.recipe import Recipe, load_recipe
from kvlp.training.run import run_recipe

SETTINGS = [
    "save_every=3", "stages.0.steps=8", "threads=1", "precision=fp32", "data.augment=false", "stages.0.lr=0.01",
    "stages.0.losses={concept_align: {weight: 1.0}}",
]  # fmt: skip


def recipe_with(vectors: str, *more: str) -> Recipe:
    return load_recipe("smoke-cpu", [*SETTINGS, f"concept_vectors={vectors}", *more])


GAT = "{method: gat, dim: 16, epochs: 5}"


@pytest.fixture(scope="module")
def run(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    run_recipe(recipe_with(GAT), manifest, out)
    return out


def rows(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def losses(out: Path) -> list[float]:
    return [row["parts"]["concept_align"] for row in rows(out)]  # type: ignore[index]


# ---- the recipe ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([SETTINGS[-1]], "has the loss concept_align; name its vectors: concept_vectors: {method: transe"),
        (["concept_vectors={method: transee}"], "concept_vectors.method: input should be 'transe'"),
        (["concept_vectors={method: transe, dims: 64}"], "unknown key 'concept_vectors.dims'; did you mean 'dim'"),
        (["concept_vectors={method: text, epochs: 5}"], "method 'text' has no setting 'epochs'"),
        (["concept_vectors={method: complex, dim: 7}"], "expected an even dim"),
        (["stages.0.losses={concept_align: {unmentioned: no}}"], "stages.0.losses.concept_align.unmentioned"),
        (["stages.0.losses={}"], "has no loss; give one of clip, entity, knowledge, concept_align"),
    ],
)
def test_wrong_recipes_are_named(settings: list[str], message: str):
    with pytest.raises(ConfigError, match=message):
        load_recipe("smoke-cpu", settings)


def test_vectors_without_their_loss_are_no_error():
    assert load_recipe("smoke-cpu", ["concept_vectors={method: rotate}"]).concept_vectors is not None


# ---- the head --------------------------------------------------------------------------------------------------------


def test_the_head_gives_unit_vectors_and_keeps_the_concepts():
    torch.manual_seed(0)
    head = ConceptHead(6, torch.tensor([[3.0, 4.0], [0.0, 2.0]]))
    torch.testing.assert_close(head.concepts, torch.tensor([[0.6, 0.8], [0.0, 1.0]]))
    assert "concepts" not in dict(head.named_parameters())
    image, text = (head(torch.randn(5, 6), side) for side in ("image", "text"))  # type: ignore[arg-type]
    torch.testing.assert_close(image.norm(dim=1), torch.ones(5))
    assert image.shape == text.shape == (5, 2)
    with pytest.raises(ShapeError, match=r"concept vectors \(C, W\)"):
        ConceptHead(6, torch.zeros(3))


# ---- the run ---------------------------------------------------------------------------------------------------------


def test_the_loss_falls_and_the_checkpoint_holds_the_projections(run: Path):
    fall = losses(run)
    assert np.mean(fall[-3:]) < 0.8 * np.mean(fall[:3])
    assert {"concept_align.image", "concept_align.text"} <= set(rows(run)[0]["parts"])  # type: ignore[call-overload]
    import kvlp

    model = kvlp.load(run / "checkpoint")
    card = model.card
    assert card["concept_vectors"]["method"] == "gat"
    assert card["concept_vectors"]["settings"]["epochs"] == 5
    assert card["concept_vectors"]["graph"]["hash"] == KnowledgeGraph.load("chest").content_hash
    concepts = model.extra["concept_align.concepts"]
    assert concepts.shape == (len(card["trained_classes"]), 16)
    (place,) = (run / "cache" / "vectors").iterdir()
    made = torch.from_numpy(ConceptVectors.load(place).rows(card["trained_classes"]))
    torch.testing.assert_close(concepts, torch.nn.functional.normalize(made, dim=1))
    assert model.extra["concept_align.image.0.weight"].shape == (32, 32)


class Stop(Exception):
    """Stands for a crash of the process."""


@pytest.mark.slow
def test_a_crashed_run_resumes_to_the_same_bits_projections_included(run: Path, manifest: Manifest, tmp_path: Path):
    def crash(progress: object) -> None:
        if progress.phase.startswith("train") and progress.done == 5:  # type: ignore[attr-defined]
            raise Stop

    with pytest.raises(Stop):
        run_recipe(recipe_with(GAT), manifest, tmp_path / "run", progress=crash)
    run_recipe(recipe_with(GAT), manifest, tmp_path / "run", resume=True)
    for name in WEIGHTS:
        assert (tmp_path / "run" / "checkpoint" / name).read_bytes() == (run / "checkpoint" / name).read_bytes()


@pytest.mark.slow
def test_the_shuffled_control_has_vectors_of_the_shuffled_graph(run: Path, manifest: Manifest, tmp_path: Path):
    out = tmp_path / "run"
    run_recipe(recipe_with(GAT, "knowledge.shuffled=0", "stages.0.steps=1"), manifest, out)
    made = json.loads((out / "checkpoint" / "kvlp.json").read_text())["card"]["concept_vectors"]
    assert made["graph"]["hash"] == KnowledgeGraph.load("chest").shuffled(0).content_hash
    ours, theirs = (load_file(o / "checkpoint" / WEIGHTS[1])["concept_align.concepts"] for o in (run, out))
    assert ours.shape == theirs.shape
    assert not torch.allclose(ours, theirs)


@pytest.mark.slow
def test_the_projections_last_over_stages_that_do_not_use_them(manifest: Manifest, tmp_path: Path):
    one = recipe_with(GAT, "stages.0.steps=1")
    clip = load_recipe("smoke-cpu", ["stages.0.losses={clip: {}}", "stages.0.steps=1"]).stages[0]
    two = one.model_copy(update={"stages": (*one.stages, clip.model_copy(update={"name": "after"}))})
    run_recipe(two, manifest, tmp_path / "run")
    states = sorted((tmp_path / "run" / "states").iterdir())
    assert [p.name[:7] for p in states] == ["step-00", "step-01"]
    first, second = (load_file(p / "weights.safetensors") for p in states)
    head = [name for name in first if name.startswith("heads.concept_align.")]
    assert len(head) == 11
    assert all(torch.equal(first[name], second[name]) for name in head)
    assert not torch.equal(first["model.logit_scale"], second["model.logit_scale"])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["transe", "gat"])
def test_both_methods_by_name_on_the_phantom(method: str, tmp_path: Path):
    """Real TransE (PyKEEN) and the GAT, on drawn radiographs with reports."""
    from kvlp.datasets.phantom import generate_phantom

    generate_phantom(tmp_path / "data", patients=24, seed=0, size=64)
    recipe = recipe_with(f"{{method: {method}, dim: 32, epochs: 20}}", "knowledge.min_patients=2", "stages.0.steps=20")
    run_recipe(recipe, Manifest.load(tmp_path / "data" / "manifest.csv"), tmp_path / "run")
    fall = losses(tmp_path / "run")
    assert np.mean(fall[-5:]) < np.mean(fall[:5])
