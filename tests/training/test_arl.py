"""ARL in a run: no entity tells what is asked for, micro-batches count as one, resume is exact, fusion comes back."""

from __future__ import annotations

import json
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_small import SMALL, WEIGHTS

import kvlp
from kvlp.datasets.manifest import Manifest
from kvlp.errors import ConfigError
from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.models.fusion_head import FusionHead
from kvlp.training.data import Batches
from kvlp.training.loop import _forward_backward, train_steps
from kvlp.training.masking import units_of
from kvlp.training.mentions import MentionReader
from kvlp.training.objectives.arl_features import ArlFeatures
from kvlp.training.recipe import Recipe, load_recipe
from kvlp.training.run import run_recipe
from kvlp.training.setup import Prepared, prepare
from kvlp.training.task import PretrainTask

SETTINGS = [
    *SMALL, "model.image=tiny-vit", "model.text=tiny-bert", "tokenizer.vocab_size=700", "tokenizer.context_length=32",
    "concept_vectors={method: text, dim: 8}",
    "fusion.width=32", "fusion.heads=2", "fusion.entity_width=16", "fusion.entity_hidden=16",
    "fusion.entity_heads=2", "fusion.decoder_width=32", "fusion.decoder_heads=2",
    "stages.0.steps=1", "stages.0.losses.knowledge.pairs=8", "stages.1.epochs=0", "stages.1.steps=14",
    "stages.1.batch_size=12", "stages.1.lr=0.003", "stages.1.text_lr=1", "stages.1.losses.knowledge.pairs=8",
    "stages.1.warmup=0", "stages.2.steps=1", "stages.2.losses.knowledge.pairs=8", "stages.1.head_lr=1",
    "stages.1.losses.arl.every=1", "save_every=5",
]  # fmt: skip


def recipe(*more: str) -> Recipe:
    return load_recipe("arl-phantom", [*SETTINGS, *more])


@pytest.fixture(scope="module")
def run(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    run_recipe(recipe(), manifest, out)
    return out


@pytest.fixture(scope="module")
def prepared(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(recipe(), manifest, tmp_path_factory.mktemp("prepared"), lambda *_: None)


def rows(out: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [row for row in found if row["stage"] == 1]


def batch_of(prepared: Prepared, indices: list[int], seed: int = 0, **changed: object) -> dict[str, torch.Tensor]:
    part = recipe().stages[1].losses.arl.model_copy(update=changed)  # type: ignore[union-attr]
    numbers = np.array(indices)
    drawn = part.samplers(prepared.sources).rows(numbers, np.random.default_rng(seed))  # type: ignore[misc]
    texts = prepared.rows.texts
    return {
        "row": torch.from_numpy(numbers),
        "image": prepared.normalise(torch.from_numpy(np.array(prepared.rows.pixels[numbers]))),
        "text": prepared.tokenize([texts.sample(i, np.random.default_rng(i), 0) for i in indices]),
        "labels": torch.from_numpy(texts.labels[numbers]),
        "signature": torch.from_numpy(texts.signature[numbers]),
        **{name: torch.from_numpy(np.asarray(value)) for name, value in drawn.items()},
    }


# ---- the recipe ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["fusion=null"], "stage 'learn' has the loss arl; say how fusion is built"),
        (["concept_vectors=null", "stages.1.losses.concept_align=null"], "fusion.reason needs concept vectors"),
        (["stages.1.lock_image=true"], "stage 'learn': the loss arl needs images; set lock_image to false"),
        (["stages.1.losses.arl.mask=0.2"], "unknown key 'stages.1.losses.arl.mask'"),
        (["fusion.layer=3"], "unknown key 'fusion.layer'; did you mean 'layers'"),
    ],
)
def test_wrong_recipes_are_named(settings: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe(*settings)


def test_the_published_settings_by_one_switch() -> None:
    ours, theirs = load_recipe("arl"), load_recipe("arl", ["as_published=true"])
    assert ours.stages[0].losses.clip is not None
    assert theirs.stages[0].losses.clip is None
    assert theirs.stages[0].losses.arl.negatives == "random"  # type: ignore[union-attr]
    assert theirs.stages[0].losses.concept_align.unmentioned == 1  # type: ignore[union-attr]
    learn = theirs.stages[0]
    assert (learn.lr, learn.head_lr, learn.weight_decay, learn.batch_size * learn.accumulate) == (1e-5, 5, 0.01, 256)


# ---- what is asked for -----------------------------------------------------------------------------------------------


def test_mentions_are_found_at_their_tokens(prepared: Prepared) -> None:
    arl = recipe().stages[1].losses.arl
    assert arl is not None
    from kvlp.knowledge.linking import EntityLinker

    numbers = {c.id: i for i, c in enumerate(prepared.taught.concepts)}
    reader = MentionReader(prepared.tokenize, EntityLinker(prepared.graph), numbers)
    text = "There is a left  pleural effusion. No pneumothorax."
    read = reader(text)
    assert (prepared.tokenize([text])[0].numpy() == read.ids).all()
    places = {prepared.taught.concepts[e].id: p for e, p in zip(read.entities, read.position, strict=True)}
    words = {c: prepared.tokenizer.decode(read.ids[p]) for c, p in places.items()}
    assert words["pleural_effusion"] == "pleural effusion"
    assert words["pneumothorax"] == "pneumothorax"
    found = units_of(read.ids, read.position, reader.vocabulary.special)
    assert all(np.array_equal(a, b) for a, b in zip(found, read.units, strict=True))
    few = MentionReader(prepared.tokenize, EntityLinker(prepared.graph), numbers, most=1)(text)
    assert few.position.shape == (1, len(read.ids))


def test_an_entity_never_tells_the_answer(prepared: Prepared) -> None:
    part, head = recipe().stages[1].losses.arl, prepared.heads["fusion"]
    assert part is not None
    assert isinstance(head, FusionHead)
    batch = batch_of(prepared, list(range(12)), words=0.4)
    gone = (batch["arl_entities"] >= 0) & (batch["arl_left"] < 0)
    assert gone.any()
    asked = batch["arl_told"] > 0
    named = (batch["arl_position"] > 0) & (batch["arl_entities"] >= 0)[..., None]
    assert ((named & asked[:, None]).any(dim=2) == gone).all()
    row = int(gone.any(dim=1).nonzero()[0])
    hidden = {int(e) for e in batch["arl_entities"][row][gone[row]]} - {int(e) for e in batch["arl_left"][row]}
    with torch.no_grad():
        before = ArlFeatures(part, prepared.model, head, batch).told()["arl_words"][row]
        kept = head.fusion.concepts.clone()
        head.fusion.concepts[list(hidden)] = torch.randn(len(hidden), kept.shape[1])
        after = ArlFeatures(part, prepared.model, head, batch).told()["arl_words"][row]
        seen = ArlFeatures(part, prepared.model, head, {**batch, "arl_left": batch["arl_entities"]})
        assert not torch.equal(seen.told()["arl_words"][row], before)  # it would have told, had it stayed
        head.fusion.concepts.copy_(kept)
    assert hidden
    assert torch.equal(before, after)


def test_a_mismatched_image_has_other_findings(prepared: Prepared) -> None:
    batch = batch_of(prepared, [0, 4, 8, 12])  # all with the same report
    task = PretrainTask(prepared.model, recipe().stages[1].losses, pad_id=0, heads=prepared.heads)
    with torch.no_grad():
        same = task.encode(batch)
        other = task.encode(batch_of(prepared, [0, 1, 4, 5]))
    assert not same["arl_apart"].any()
    assert other["arl_apart"].all()
    output = task.loss(same, {k: v for k, v in batch.items() if v.ndim == 1 or k == "labels"}, {})
    assert output.parts["arl.itm"] == 0


def test_half_precision_features_are_finite(prepared: Prepared) -> None:
    task = PretrainTask(prepared.model, recipe().stages[1].losses, heads=prepared.heads)
    batch = batch_of(prepared, [0, 1, 2, 3])
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        features = task.encode(batch)
        whole = {k: v for k, v in batch.items() if v.ndim == 1 or k == "labels"}
        output = task.loss(features, whole, {})
    assert torch.isfinite(output.total)
    assert output.total.dtype == torch.float32


def gradient(prepared: Prepared, parts: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    losses = recipe("stages.1.losses.arl.itm=0", "stages.1.losses.arl.mim=0").stages[1].losses
    losses = losses.model_copy(update={"entity": None, "knowledge": None})
    task = PretrainTask(prepared.model, losses, heads=prepared.heads)
    task.zero_grad()
    _forward_backward(task, parts, {}, nullcontext)
    return {name: p.grad.clone() for name, p in task.named_parameters() if p.grad is not None}


def test_micro_batches_give_the_gradient_of_the_whole_batch(prepared: Prepared) -> None:
    whole = batch_of(prepared, list(range(8)))
    parts = [{name: value[part] for name, value in whole.items()} for part in (slice(0, 3), slice(3, 8))]
    parts[0] = {name: _shorter(name, value, whole) for name, value in parts[0].items()}
    together, apart = gradient(prepared, [whole]), gradient(prepared, parts)
    assert together.keys() == apart.keys()
    assert "heads.fusion.fusion.entity_layers.0.say.weight" in together
    for name, value in together.items():
        largest = value.abs().max().item()
        assert (apart[name] - value).abs().max().item() <= 3e-6 * largest + 1e-8, name


def _shorter(name: str, value: torch.Tensor, whole: dict[str, torch.Tensor]) -> torch.Tensor:
    """Cut padding that the first rows do not need, as their own batch would."""
    used = int((whole["arl_ids"][:3] != 0).sum(dim=1).max())
    return value[..., :used] if name in ("arl_ids", "arl_covered", "arl_told", "arl_position") else value


def test_the_loss_takes_its_own_steps_alone(prepared: Prepared) -> None:
    def made(every: int, step: int) -> dict[str, torch.Tensor]:
        part = recipe(f"stages.1.losses.arl.every={every}").stages[1].losses.arl
        assert part is not None
        batches = Batches(
            rows=prepared.rows, tokenize=prepared.tokenize, normalise=prepared.normalise, batch_size=4, accumulate=1,
            seed=(0, 0), max_sentences=3, augmented=False, samplers=[part.samplers(prepared.sources)],
        )  # fmt: skip
        return batches[step][0][0]

    task = PretrainTask(prepared.model, recipe().stages[1].losses, heads=prepared.heads)
    for step in (0, 1, 3):
        always, now = made(1, step), made(3, step)
        torch.testing.assert_close(now, {name: always[name] for name in now}, rtol=0, atol=0, equal_nan=True)
        assert (now.keys() == always.keys()) == (step in (0, 3))
        whole = {name: value for name, value in now.items() if value.ndim == 1 or name == "labels"}
        with torch.no_grad():
            parts = task.loss(task.encode(now), whole, {}).parts
        assert ("arl" in parts) == (step in (0, 3))
        assert "entity" not in parts
        assert "clip" in parts


# ---- the run ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_loss_falls_and_is_told_by_name(prepared: Prepared) -> None:
    losses = recipe().stages[1].losses
    losses = losses.model_copy(update={"entity": None, "knowledge": None, "clip": None})
    task = PretrainTask(deepcopy(prepared.model), losses, heads=deepcopy(dict(prepared.heads)))
    optimizer = torch.optim.AdamW(task.parameters(), lr=3e-3)
    steps = [([batch_of(prepared, list(range(12)))], {})] * 8
    told = [info.parts for info in train_steps(task, steps, optimizer, lambda _: 3e-3, autocast=nullcontext)]
    assert {"arl.mlm", "arl.mim", "arl.itm", "concept_align", "arl.mlm_accuracy", "arl.itm_accuracy"} <= set(told[0])
    for name in ("arl.mlm", "arl.mim", "concept_align"):  # matching is not learned from four kinds of noise
        assert told[-1][name] < 0.97 * told[0][name], name


@pytest.mark.slow
def test_the_checkpoint_holds_fusion_and_gives_it_back(run: Path) -> None:
    model = kvlp.load(run / "checkpoint")
    settings = model.card["fusion"]
    tensors = {k.removeprefix("fusion."): v for k, v in model.extra.items() if k.startswith("fusion.")}
    head = FusionHead.restored(settings, tensors)
    assert head.fusion.reason
    assert all(torch.equal(value, tensors[name]) for name, value in head.state_dict().items())
    assert len(settings["concepts"]) == len(head.fusion.concepts)
    with pytest.raises(ConfigError, match="its tensors do not fit its settings"):
        FusionHead.restored({**settings, "width": 64}, tensors)
    assert model.score([np.full((48, 48), 90, np.uint8)], ["no pleural effusion"]).shape == (1, 1)


class Stop(Exception):
    """Stands for a crash of the process."""


@pytest.mark.slow
def test_a_crashed_run_resumes_to_the_same_bits_fusion_included(run: Path, manifest: Manifest, tmp_path: Path) -> None:
    def crash(progress: Any) -> None:
        if progress.phase == "train learn" and progress.done == 8:
            raise Stop

    with pytest.raises(Stop):
        run_recipe(recipe(), manifest, tmp_path / "run", progress=crash)
    run_recipe(recipe(), manifest, tmp_path / "run", resume=True)
    for name in WEIGHTS:
        assert (tmp_path / "run" / "checkpoint" / name).read_bytes() == (run / "checkpoint" / name).read_bytes()


@pytest.mark.slow
def test_without_reason_and_without_covered_patches(manifest: Manifest, tmp_path: Path) -> None:
    bare = recipe(
        "fusion.reason=false", "concept_vectors=null", "stages.1.losses.concept_align=null", "stages.1.steps=2",
        "stages.1.losses.arl.mim=0", "model.image=tiny-cnn", "stages.1.losses.arl.negatives=random",
    )  # fmt: skip
    run_recipe(bare, manifest, tmp_path / "run")
    parts = rows(tmp_path / "run")[-1]["parts"]
    assert "arl.mlm" in parts
    assert "arl.mim" not in parts
    assert not [k for k in kvlp.load(tmp_path / "run" / "checkpoint").extra if "concepts" in k]


@pytest.mark.slow
def test_without_a_graph_the_vectors_say_nothing(manifest: Manifest, tmp_path: Path) -> None:
    bare = recipe("knowledge.use=false", "stages.1.steps=1", "concept_vectors={method: gat, dim: 8, epochs: 2}")
    run_recipe(bare, manifest, tmp_path / "run")
    assert kvlp.load(tmp_path / "run" / "checkpoint").card["concept_vectors"]["method"] == "random"


@pytest.mark.slow
def test_the_recipe_runs_on_the_phantom_and_its_losses_fall(tmp_path: Path) -> None:
    from kvlp.datasets.phantom import generate_phantom

    manifest = generate_phantom(tmp_path / "data", patients=24, seed=0, size=64, jobs=1)
    small = ["threads=1", "model.image_size=64", "knowledge.min_patients=3", "stages.0.steps=2", "stages.1.epochs=0"]
    small += ["stages.0.losses.knowledge.pairs=16", "stages.1.losses.knowledge.pairs=16", "stages.1.warmup=0"]
    small += ["stages.1.steps=16", "stages.1.batch_size=12", "concept_vectors={method: gat, dim: 16, epochs: 5}"]
    small += ["stages.1.losses.arl.every=1", "stages.2.steps=1", "stages.2.batch_size=12"]
    folder = run_recipe(load_recipe("arl-phantom", small), manifest, tmp_path / "run")
    found = rows(tmp_path / "run")
    for name in ("arl.mlm", "arl.mim", "arl.itm", "concept_align", "clip"):
        values = [row["parts"][name] for row in found]
        assert np.mean(values[-5:]) < np.mean(values[:5]), name
    model = kvlp.load(folder)
    scorer = kvlp.ZeroShotClassifier(model, ["pneumothorax", "pleural effusion"], graph=KnowledgeGraph.load("chest"))
    assert scorer.decision_function([manifest.path_of(manifest[0])]).shape == (1, 2)
