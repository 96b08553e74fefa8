"""Masked image modelling with convolutions: what is covered tells nothing, running averages stay as they were."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from kvlp.errors import ConfigError
from kvlp.models.dual_encoder import build_dual_encoder
from kvlp.models.fusion_head import FusionHead, fusion_sizes
from kvlp.models.reconstruction import MapDecoder, patches_of
from kvlp.models.towers import model_config
from kvlp.training.joint_norm import batch_statistics
from kvlp.training.objectives.arl import ArlPart
from kvlp.training.objectives.arl_features import ArlFeatures

SIZES = {
    "width": 16, "heads": 2, "layers": 1, "tap": 1, "entity_width": 8, "entity_heads": 2, "entity_hidden": 8,
    "reason": False, "decoder_width": 8, "decoder_layers": 1, "decoder_heads": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    return build_dual_encoder(
        model_config("tiny-cnn", "tiny-text", vocab_size=20, eos_id=2, embed_dim=8, image_size=64, context_length=8)
    ).train()


def head_for(model: Any, image_size: int) -> FusionHead:
    torch.manual_seed(1)
    sizes = fusion_sizes(model, image_size, (), vocab_size=20, context=8, pad_id=0)
    return FusionHead({**sizes, **SIZES}, None)


def batch(pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    rows = len(pixels)
    return {
        "image": pixels,
        "arl_ids": torch.randint(3, 20, (rows, 6), generator=torch.Generator().manual_seed(2)),
        "arl_position": torch.zeros(rows, 0, 6),
        "arl_entities": torch.zeros(rows, 0, dtype=torch.int64),
        "arl_patches": torch.full((rows,), 7),
    }


def painted(model: Any, head: FusionHead, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    return ArlFeatures(ArlPart(patches=0.5), model, head, batch(pixels)).painted()


def test_the_places_of_the_map_are_its_patches(model: Any) -> None:
    head = head_for(model, 64)
    assert (head.settings["patches"], head.settings["patch"], head.settings["covered"]) == (4, 32, True)
    assert isinstance(head.decoder, MapDecoder)
    again = FusionHead.restored(head.settings, head.state_dict())
    torch.testing.assert_close(again.state_dict(), head.state_dict(), rtol=0, atol=0)


def test_what_is_covered_tells_nothing(model: Any) -> None:
    head, pixels = head_for(model, 64), torch.randn(3, 3, 64, 64)
    found = painted(model, head, pixels)
    assert found["arl_painted"].shape == found["arl_pixels"].shape == (3, 4, 3 * 32 * 32)
    assert found["arl_hidden"].sum(dim=1).tolist() == [2, 2, 2]
    assert torch.equal(found["arl_pixels"], patches_of(pixels, 32))
    hidden = found["arl_hidden"].reshape(3, 1, 2, 2).repeat_interleave(32, 2).repeat_interleave(32, 3)
    for where, same in ((hidden, True), (1 - hidden, False)):  # other pixels where it is covered, where it is seen
        other = painted(model, head, pixels + where * torch.randn(3, 3, 64, 64))
        assert torch.equal(other["arl_hidden"], found["arl_hidden"])
        assert torch.equal(other["arl_painted"], found["arl_painted"]) is same


def test_covered_images_leave_the_averages_and_teach_the_tower(model: Any) -> None:
    before = [value.clone() for value in batch_statistics(model.visual)]
    assert before
    found = painted(model, head_for(model, 64), torch.randn(3, 3, 64, 64))
    assert all(torch.equal(a, b) for a, b in zip(before, batch_statistics(model.visual), strict=True))
    model.zero_grad()
    found["arl_painted"].square().mean().backward()
    assert model.visual.trunk.stem.conv.weight.grad.abs().max() > 0


def test_a_map_that_does_not_fill_the_image_is_named(model: Any) -> None:
    head = head_for(model, 65)
    assert head.decoder is None
    with pytest.raises(ConfigError, match=r"places of the tower's last map divide; choose another model\.image_size"):
        painted(model, head, torch.randn(2, 3, 65, 65))
