"""KAD: its text pairs as published, the query network and its loss in a run, and the checkpoint that scores with it."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from training_small import SENTENCES, SMALL

import kvlp
from kvlp.datasets.manifest import Manifest
from kvlp.errors import CheckpointError, ConfigError, KnowledgeError, ShapeError
from kvlp.knowledge.graph import Concept, KnowledgeGraph, Relation
from kvlp.losses import KnowledgeAlignLoss
from kvlp.models.dual_encoder import build_dual_encoder
from kvlp.models.image_tokens import encode_with_tokens
from kvlp.models.query_network import QueryNetwork
from kvlp.models.towers import model_config
from kvlp.training.knowledge_texts import MASK, PublishedPairs, mask_words
from kvlp.training.objectives.part import Inputs
from kvlp.training.objectives.query import QueryPart
from kvlp.training.recipe import load_recipe
from kvlp.training.run import run_recipe
from kvlp.training.texts import read_texts
from kvlp.zero_shot import ZeroShotClassifier
from kvlp.zero_shot.scoring import ImplausibleImageWarning

DOUBTFUL = (*SENTENCES[:3], "Possible pleural effusion. No pneumothorax. Heart size is normal.")
SETTINGS = [
    *SMALL, "model.image=tiny-cnn", "model.text=tiny-text", "model.projection=linear", "tokenizer.vocab_size=800",
    "query_network.ffn=32", "query_network.layers=2", "query_network.dropout=0", "data.augment=false",
    "stages.0.steps=2", "stages.0.losses.knowledge.pairs=16", "stages.1.epochs=0", "stages.1.steps=14",
    "stages.1.batch_size=16", "stages.1.lr=0.005", "save_every=5",
]  # fmt: skip


@pytest.fixture(scope="module")
def manifest(noise_manifest: Callable[[Sequence[str]], Manifest]) -> Manifest:
    return noise_manifest(DOUBTFUL)


@pytest.fixture(scope="module")
def run(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    run_recipe(load_recipe("kad", SETTINGS), manifest, out)
    return out


@pytest.fixture(scope="module")
def model(run: Path) -> kvlp.Model:
    return kvlp.load(run / "checkpoint")


# ---- the first stage -------------------------------------------------------------------------------------------------

TINY = KnowledgeGraph(
    [
        Concept(id="a", name="alpha", definition="The first.", synonyms=("one",)),
        Concept(id="b", name="beta"),
        Concept(id="c", name="gamma", definition="The third."),
    ],
    [Relation("a", "may_cause", "b")],
    name="tiny",
)


def test_published_pairs_are_definitions_and_halves_of_triples_by_their_number():
    first, second, about = PublishedPairs(TINY).sample(np.random.default_rng(0), 600)
    found = Counter(zip(first, second, about.tolist(), strict=True))
    assert set(found) == {
        ("alpha", "The first.", 0),
        ("gamma", "The third.", 2),
        ("alpha may cause", "beta", 1),
        ("may cause beta", "alpha", 0),
    }
    shares = {pair: count / 600 for pair, count in found.items()}
    assert shares["alpha", "The first.", 0] == pytest.approx(1 / 3, abs=0.06)
    assert shares["may cause beta", "alpha", 0] == pytest.approx(1 / 6, abs=0.05)


def test_a_graph_of_names_alone_has_no_published_pairs():
    bare = KnowledgeGraph([Concept(id="a", name="alpha")], [], name="bare")
    with pytest.raises(KnowledgeError, match="definitions or relations"):
        PublishedPairs(bare)


def test_so_many_words_are_hidden():
    hidden = " ".join(mask_words(["one two three four five"] * 400, 0.15, np.random.default_rng(0))).split()
    assert hidden.count(MASK) / len(hidden) == pytest.approx(0.15, abs=0.02)


def test_targets_of_the_published_code_have_length_one_by_hand():
    eye = torch.eye(2)
    # one concept: each row's targets are 1 / sqrt(2) instead of 1 / 2 at logits 2 and 0
    cost = 2 * math.log(1 + math.exp(-2)) + 2
    loss = KnowledgeAlignLoss(targets="l2")(eye, eye, torch.tensor([3, 3]), torch.tensor(2.0)).total
    assert loss.item() == pytest.approx(cost / math.sqrt(2), rel=1e-5)


def test_findings_as_texts(manifest: Manifest):
    graph = KnowledgeGraph.load("chest")
    said = read_texts(manifest, graph, source="entities").slots
    assert said[0] == (("There is a pleural effusion.",), ("There is no pneumothorax.",))
    tagged = read_texts(manifest, graph, source="tags").slots
    assert tagged[2][0] == ("cardiomegaly observation definitely present ;",)
    assert tagged[2][1] == ("pleural effusion observation definitely absent ;",)
    assert tagged[3][0] == ("pleural effusion observation uncertain ;",)


# ---- the network -----------------------------------------------------------------------------------------------------


def network(**settings: object) -> QueryNetwork:
    torch.manual_seed(0)
    return QueryNetwork(8, layers=2, heads=2, ffn=16, **settings).eval()  # type: ignore[arg-type]


def test_an_answer_does_not_depend_on_what_else_is_asked_unless_queries_are_mixed():
    queries, memory = torch.randn(3, 8), torch.randn(2, 5, 8)
    alone, together = network(), network(mix_queries=True)
    torch.testing.assert_close(alone(queries, memory)[:, :1], alone(queries[:1], memory))
    assert not torch.allclose(together(queries, memory)[:, :1], together(queries[:1], memory))
    assert alone(queries, memory).shape == (2, 3, 3)


def test_the_order_of_places_does_not_matter_and_attention_follows_it():
    net, queries, memory, order = network(), torch.randn(3, 8), torch.randn(2, 5, 8), torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(net(queries, memory[:, order]), net(queries, memory))
    looked = net.attention(queries, memory)
    torch.testing.assert_close(looked.sum(dim=2), torch.ones(2, 3))
    torch.testing.assert_close(net.attention(queries, memory[:, order]), looked[:, :, order])


def test_one_place_gets_all_attention():
    torch.testing.assert_close(network().attention(torch.randn(3, 8), torch.randn(2, 1, 8)), torch.ones(2, 3, 1))


def test_widths_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match=r"queries \(C, 8\) and memory \(B, T, 8\)"):
        network()(torch.randn(3, 7), torch.randn(2, 5, 8))
    with pytest.raises(ShapeError, match="width that 3 heads divide"):
        QueryNetwork(8, heads=3)


class Answers(nn.Module):
    """A query network that gives these answers whatever is asked."""

    settings: ClassVar[dict[str, int]] = {"states": 2}

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, queries: torch.Tensor, memory: torch.Tensor, asked: torch.Tensor) -> torch.Tensor:
        return self.logits


@pytest.mark.parametrize(("label", "states_it", "denies_it"), [(1, 20, -20), (0, -20, 20), (math.nan, -20, 20)])
def test_a_denial_is_true_of_what_is_denied_or_not_mentioned(label: float, states_it: float, denies_it: float):
    """One finding, one image: the logits of "true" for the sentence that states it and for the one that denies it."""
    part = QueryPart(balanced=False, unmentioned=0.5)
    right = torch.tensor([[[0, states_it], [0, denies_it]]], dtype=torch.float32)
    features = {"queries": torch.zeros(2, 4), "image_tokens": torch.zeros(1, 1, 4)}
    costs = []
    for logits in (right, -right):
        x = Inputs(features, {"labels": torch.tensor([[label]])}, {}, {}, {"query": Answers(logits)}, torch.ones(()))
        costs.append(float(part.compute(part.loss(), x).total))
    assert costs[0] < 1e-6 < costs[1]


# ---- places of the image ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tower", "grid"), [("tiny-cnn", (2, 2)), ("tiny-vit", (4, 4)), ("test_vit", (3, 3)), ("test_convnext", (1, 1))]
)
def test_places_come_with_the_feature_that_the_tower_alone_gives(tower: str, grid: tuple[int, int]):
    size = {"test_vit": 48}.get(tower, 48)
    cfg = model_config(tower, "tiny-text", vocab_size=30, eos_id=3, embed_dim=16, image_size=size)
    model = build_dual_encoder(cfg).eval()
    if tower == "test_vit":
        model.visual.set_input_size(48)
    pixels = torch.randn(3, 3, size, size)
    with torch.no_grad():
        found = encode_with_tokens(model.visual, pixels)
        torch.testing.assert_close(found.pooled, model.encode_image(pixels), rtol=1e-4, atol=1e-5)
    assert found.grid == grid
    assert found.tokens.shape == (3, grid[0] * grid[1], 16)


def test_places_of_a_tower_that_pools_by_mean_have_the_feature_as_their_mean():
    cfg = model_config("resnet10t", "tiny-text", vocab_size=30, eos_id=3, embed_dim=16, image_size=64)
    model = build_dual_encoder(cfg).eval()
    with torch.no_grad():
        found = encode_with_tokens(model.visual, torch.randn(2, 3, 64, 64))
    torch.testing.assert_close(found.tokens.mean(dim=1), found.pooled, rtol=1e-4, atol=1e-5)


# ---- the run ---------------------------------------------------------------------------------------------------------


def test_the_second_stage_learns_and_leaves_the_text_tower_as_it_was(run: Path):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    fall = [row["parts"]["query"] for row in rows if row["name"] == "align"]
    assert np.mean(fall[-3:]) < np.mean(fall[:3])
    assert {"clip", "query", "query.accuracy", "query.texts"} <= set(rows[-1]["parts"])
    from safetensors.torch import load_file

    states = sorted((run / "states").iterdir())
    assert all(path.name.startswith("step-01") for path in states)
    first, last = (load_file(path / "weights.safetensors") for path in states)
    texts = [name for name in first if name.startswith("model.text.")]
    assert texts
    assert all(torch.equal(first[name], last[name]) for name in texts)
    assert not torch.equal(first["heads.query.head.weight"], last["heads.query.head.weight"])


def test_the_query_network_scores_by_the_one_contract(model: kvlp.Model, manifest: Manifest):
    images = [np.asarray(Image.open(manifest.path_of(record))) for record in manifest][:8]
    said = ["There is a pneumothorax.", "There is no pneumothorax."]
    scores = model.query.score(images, said)
    assert scores.shape == (8, 2)
    np.testing.assert_allclose(model.query.score(images[3:5], said[:1]), scores[3:5, :1], rtol=0, atol=1e-4)
    states = model.query.states(images, said)
    np.testing.assert_allclose(states.sum(axis=2), 1, atol=1e-5)
    np.testing.assert_allclose(np.log(states[..., 1] / states[..., 0]), scores, atol=1e-3)
    looked = model.query.attention(images, said)
    assert looked.shape == (8, 2, 2, 2)
    np.testing.assert_allclose(looked.sum(axis=(2, 3)), 1, atol=1e-5)
    classifier = ZeroShotClassifier(model.query, ["pneumothorax"], synonyms=False, style="wordings")
    with pytest.warns(ImplausibleImageWarning):  # noise
        decision = classifier.decision_function(images)
    assert decision.shape == (8, 1)
    assert np.isfinite(decision).all()
    assert model.query.hash != model.hash


def test_the_network_comes_back_as_it_was_trained(run: Path, model: kvlp.Model):
    from safetensors.torch import load_file

    saved = load_file(run / "checkpoint" / "kvlp_extra.safetensors")
    kept = model.query.network.state_dict()
    assert {f"query.{name}" for name in kept} == set(saved)
    assert all(torch.equal(saved[f"query.{name}"], value) for name, value in kept.items())
    assert model.card["query_network"]["layers"] == 2


def test_a_model_without_a_query_network_says_so(model: kvlp.Model):
    bare = kvlp.Model(model.module, model.tokenizer, model.preprocess, source="bare")
    with pytest.raises(CheckpointError, match="bare has no query network; train one"):
        _ = bare.query
    broken = kvlp.Model(
        model.module, model.tokenizer, model.preprocess, source="broken",
        card={"query_network": {**model.card["query_network"], "ffn": 7}}, extra=model.extra,
    )  # fmt: skip
    with pytest.raises(CheckpointError, match="does not fit its settings"):
        _ = broken.query


def test_as_published_sets_every_named_difference_below_what_the_user_sets():
    ours, theirs = load_recipe("kad"), load_recipe("kad", ["as_published=true", "query_network.states=3"])
    assert (ours.stages[1].losses.clip.normalised, theirs.stages[1].losses.clip.normalised) == (True, False)  # type: ignore[union-attr]
    assert (ours.query_network.mix_queries, theirs.query_network.mix_queries) == (False, True)  # type: ignore[union-attr]
    assert theirs.query_network.states == 3  # type: ignore[union-attr]
    assert all(one.why and one.applied for one in theirs.differences)
    assert not any(one.applied for one in ours.differences)


def test_a_resolved_recipe_as_published_loads_as_it_is(tmp_path: Path):
    theirs = load_recipe("kad-phantom", ["as_published=true", "stages.1.text_lr=0.5"])
    (tmp_path / "r.yaml").write_text(theirs.to_yaml())
    assert load_recipe(tmp_path / "r.yaml") == theirs


@pytest.mark.slow
def test_as_published_trains(manifest: Manifest, tmp_path: Path):
    out = tmp_path / "run"
    run_recipe(load_recipe("kad", [*SETTINGS, "as_published=true", "stages.1.steps=2"]), manifest, out)
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["query_network=null"], "has the loss query; say how its network is built: query_network"),
        (["query_network.head=4"], "unknown key 'query_network.head'; did you mean 'heads'"),
        (["as_published=true", "differences.0.key=stages.0.losses.knowledge.sorce"], "knowledge.sorce'; did you mean"),
    ],
)
def test_wrong_recipes_are_named(settings: list[str], message: str):
    with pytest.raises(ConfigError, match=message):
        load_recipe("kad", settings)
