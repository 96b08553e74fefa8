"""Rates by tower and by depth, worked out by hand; frozen blocks stay as they are to the bit."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from kvlp.errors import ConfigError
from kvlp.models.depth import parameter_layers
from kvlp.models.dual_encoder import build_dual_encoder
from kvlp.models.towers import model_config
from kvlp.training.loop import train_steps
from kvlp.training.objectives import ClipPart, EntityPart, Losses
from kvlp.training.optimizer import build_optimizer, choose_trained, rate_scales
from kvlp.training.recipe import Stage
from kvlp.training.task import PretrainTask


def built(image: str, text: str):
    torch.manual_seed(0)
    sizes = {"vocab_size": 30, "eos_id": 3, "embed_dim": 16, "image_size": 24, "context_length": 6}
    return build_dual_encoder(model_config(image, text, **sizes))


@pytest.fixture(scope="module")
def vit_and_bert():
    return built("tiny-vit", "tiny-bert")


def task_of(model, **settings) -> tuple[PretrainTask, Stage]:
    stage = Stage(steps=1, losses=Losses(clip=ClipPart(), entity=EntityPart()), **settings)
    still = choose_trained(model, stage)
    task = PretrainTask(model, stage.losses)
    task.still = still
    return task, stage


def test_each_layer_learns_at_a_share_of_the_rate_of_the_one_above(vit_and_bert):
    task, stage = task_of(vit_and_bert, text_lr=0.2, image_layer_decay=0.5, text_layer_decay=0.1)
    rates = rate_scales(task, stage)
    by_hand = {
        "model.visual.proj": 1.0,
        "model.visual.ln_post.weight": 1.0,
        "model.visual.transformer.resblocks.3.mlp.c_fc.weight": 0.5,
        "model.visual.transformer.resblocks.2.ln_1.bias": 0.25,
        "model.visual.transformer.resblocks.1.attn.in_proj_weight": 0.125,
        "model.visual.transformer.resblocks.0.attn.out_proj.bias": 0.0625,
        "model.visual.conv1.weight": 0.03125,
        "model.visual.positional_embedding": 0.03125,
        "model.text.proj.weight": 0.2,
        "model.text.transformer.encoder.layer.1.output.dense.weight": 0.02,
        "model.text.transformer.encoder.layer.0.attention.self.query.weight": 0.002,
        "model.text.transformer.embeddings.word_embeddings.weight": 0.0002,
        "model.logit_scale": 1.0,
        "learned.entity.log_scale": 1.0,
    }
    assert {name: rates[name] for name in by_hand} == pytest.approx(by_hand)
    assert set(rates) == {name for name, _ in task.named_parameters()}
    groups = build_optimizer(task, stage).param_groups
    names = {id(parameter): name for name, parameter in task.named_parameters()}
    given = {names[id(p)]: (g["lr_scale"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert given == {n: (rates[n], 0.05 if p.ndim > 1 else 0.0) for n, p in task.named_parameters()}


@pytest.mark.parametrize(
    ("tower", "layers"),
    [
        ("tiny-cnn", {"trunk.stem.conv.weight": 0, "trunk.stages.0.": 1, "trunk.stages.3.": 4, "head.proj.weight": 5}),
        ("medium-cnn", {"trunk.conv1.": 0, "trunk.layer1.0.": 1, "trunk.layer4.0.": 4, "head.proj.weight": 5}),
        ("test_vit", {"trunk.pos_embed": 0, "trunk.blocks.0.": 1, "trunk.blocks.5.": 6, "head.": 7}),
    ],
)
def test_timm_divides_its_own_towers(tower: str, layers: dict[str, int]):
    found = parameter_layers(built(tower, "tiny-text").visual)
    for start, layer in layers.items():
        assert {found[name] for name in found if name.startswith(start)} == {layer}, start


def test_without_decay_the_rates_are_those_of_the_towers(vit_and_bert):
    task, stage = task_of(vit_and_bert, text_lr=0.3)
    rates = rate_scales(task, stage)
    assert {rate for name, rate in rates.items() if name.startswith("model.text.")} == {0.3}
    assert {rate for name, rate in rates.items() if not name.startswith("model.text.")} == {1.0}


def test_frozen_blocks_and_their_statistics_stay_as_they_are():
    task, stage = task_of(built("tiny-cnn", "tiny-text"), freeze_image_blocks=2, freeze_text_blocks=1)
    before = {name: value.clone() for name, value in task.model.state_dict().items()}
    batch = {
        "row": torch.arange(4),
        "image": torch.randn(4, 3, 24, 24),
        "text": torch.randint(4, 30, (4, 6)),
        "labels": torch.zeros(4, 0),
        "signature": torch.arange(4),
    }
    task.train()
    for _ in train_steps(task, [([batch], {})], build_optimizer(task, stage), lambda _: 0.1, autocast=nullcontext):
        pass
    changed = {n for n, value in task.model.state_dict().items() if not torch.equal(value, before[n])}
    frozen = ("visual.trunk.stem", "visual.trunk.stages.0", "visual.trunk.stages.1", "text.token_embedding",
              "text.positional_embedding", "text.transformer.resblocks.0")  # fmt: skip
    assert not {name for name in changed if name.startswith(frozen)}
    moved = ("visual.trunk.stages.2.0.conv1_kxk.bn.running_mean", "visual.trunk.stages.3.0.conv1_1x1.conv.weight",
             "text.transformer.resblocks.1.mlp.c_fc.weight", "text.text_projection")  # fmt: skip
    assert changed.issuperset(moved)


def test_more_frozen_blocks_than_there_are_is_an_error_that_says_what_to_set(vit_and_bert):
    with pytest.raises(ConfigError, match="freeze_image_blocks: the tower has 4 blocks, got 5; set lock_image to true"):
        choose_trained(vit_and_bert, Stage(steps=1, freeze_image_blocks=5))
    with pytest.raises(ConfigError, match="freeze_text_blocks: the tower has 2 blocks, got 9; set text_lr to 0"):
        choose_trained(vit_and_bert, Stage(steps=1, freeze_text_blocks=9))
    with pytest.raises(ConfigError, match="no blocks are known in a tower of the kind Linear"):
        parameter_layers(torch.nn.Linear(2, 2))
