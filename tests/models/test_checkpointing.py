"""Gradient checkpointing: the same gradient, each block computed twice, and a word where a tower cannot."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from kvlp.errors import ConfigError
from kvlp.models.checkpointing import checkpoint_blocks
from kvlp.models.dual_encoder import build_dual_encoder
from kvlp.models.towers import model_config


def gradient(image: str, text: str, *, again: bool) -> tuple[dict[str, torch.Tensor], dict[str, int]]:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 30, "eos_id": 3, "embed_dim": 16, "image_size": 24, "context_length": 6}
    model: Any = build_dual_encoder(model_config(image, text, **sizes)).train()
    calls = {"image": 0, "text": 0}
    for tower, name in ((model.visual, "image"), (model.text, "text")):
        if again:
            checkpoint_blocks(tower)
        block = next(m for n, m in tower.named_modules() if n.endswith((".0.conv1_1x1", ".mlp", ".0.output")))
        block.register_forward_pre_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
    pixels, tokens = torch.randn(4, 3, 24, 24), torch.randint(4, 30, (4, 6))
    logits = model.encode_image(pixels, normalize=True) @ model.encode_text(tokens, normalize=True).T
    F.cross_entropy(logits * model.logit_scale.exp(), torch.arange(4)).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}, calls


@pytest.mark.parametrize(("image", "text"), [("tiny-vit", "tiny-bert"), ("tiny-cnn", "tiny-text")])
def test_the_gradient_is_the_same_and_blocks_are_computed_again(image: str, text: str):
    kept, once = gradient(image, text, again=False)
    computed, twice = gradient(image, text, again=True)
    assert (once, twice) == ({"image": 1, "text": 1}, {"image": 2, "text": 2})
    assert kept.keys() == computed.keys()
    for name, value in kept.items():
        torch.testing.assert_close(computed[name], value, rtol=1e-6, atol=1e-7, msg=name)


def test_a_tower_that_cannot_is_named():
    with pytest.raises(ConfigError, match="a tower of the kind Linear cannot; name the other tower, or null"):
        checkpoint_blocks(torch.nn.Linear(2, 2))
