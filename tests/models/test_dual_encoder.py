"""The dual encoder is open_clip's, takes short texts, and builds from names without a download."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from kvlp.errors import ConfigError
from kvlp.models.dual_encoder import build_dual_encoder, padding_is_exact
from kvlp.models.towers import IMAGE_TOWERS, TEXT_TOWERS, model_config


def slow_if(towers: Iterable[str], large: str) -> list[Any]:
    """Every name; that of the large one belongs to the slow tier."""
    return [pytest.param(name, marks=pytest.mark.slow) if name == large else name for name in sorted(towers)]


def small(image: str = "tiny-cnn", text: str = "tiny-text", **options: int) -> dict[str, object]:
    return model_config(image, text, vocab_size=50, eos_id=3, embed_dim=32, context_length=20, **options)


@pytest.mark.parametrize("name", slow_if(IMAGE_TOWERS, "vit-b-16"))
def test_every_image_tower_takes_and_trains_on_96_px(name: str) -> None:
    module = build_dual_encoder(small(name)).train()
    features = module.encode_image(torch.randn(2, 3, 96, 96), normalize=True)
    assert features.shape == (2, 32)
    features.square().sum().backward()
    (features[0] * torch.arange(32)).sum()
    assert all(p.grad is not None for p in module.visual.parameters())


@pytest.mark.parametrize("name", slow_if(TEXT_TOWERS, "base-bert"))
def test_padding_to_the_longest_changes_no_feature(name: str) -> None:
    torch.manual_seed(0)
    module = build_dual_encoder(small(text=name)).eval()
    ids = torch.tensor([[2, 7, 8, 3, 0, 0, 0], [2, 9, 10, 11, 12, 13, 3]])
    full = torch.nn.functional.pad(ids, (0, 13))
    with torch.no_grad():
        torch.testing.assert_close(module.encode_text(ids), module.encode_text(full), rtol=0, atol=5e-6)
        if "hf_config" not in TEXT_TOWERS[name]:
            other = full.clone()
            other[0, 5:] = 17  # what stands behind the end of the text is never read
            torch.testing.assert_close(module.encode_text(other), module.encode_text(full), rtol=0, atol=5e-6)
        changed = full.clone()
        changed[0, 2] = 17
        assert (module.encode_text(changed) - module.encode_text(full))[0].abs().max() > 1e-3
    assert padding_is_exact(module)


def test_state_dict_is_open_clips() -> None:
    from open_clip.model import CustomTextCLIP

    cfg = small()
    ours = build_dual_encoder(cfg)
    cfg.pop("custom_text")
    assert list(ours.state_dict()) == list(CustomTextCLIP(**cfg).state_dict())


def test_a_bidirectional_tower_keeps_its_padding() -> None:
    cfg = small()
    cfg["text_cfg"]["no_causal_mask"] = True  # type: ignore[index]
    assert not padding_is_exact(build_dual_encoder(cfg))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vision_cfg": {"timm_model_name": "no_such_net"}}, "no_such_net"),
        ({"vision_cfg": {"timm_model_name": "hf-hub:org/net"}}, "names a hub"),
        ({"text_cfg": {"widht": 3}}, "widht"),
        ({"text_cfg": "tiny-text"}, "mappings"),
        ({"multimodal_cfg": {}}, "CoCa"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_a_wrong_configuration_is_one_error(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_dual_encoder({**small(), **change})


def test_a_text_tower_starts_from_its_folder_only_if_asked(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    torch.manual_seed(5)
    bert = BertModel(BertConfig(vocab_size=30, **shape), add_pooling_layer=False)
    bert.save_pretrained(tmp_path)
    text = {"hf_model_name": str(tmp_path), "hf_proj_type": "linear", "hf_pooler_type": "mean_pooler"}
    cfg = {**small(), "text_cfg": text}
    torch.manual_seed(6)
    words = "text.transformer.embeddings.word_embeddings.weight"
    expected = bert.embeddings.word_embeddings.weight
    warm = build_dual_encoder(cfg, pretrained_towers=True)
    torch.testing.assert_close(warm.state_dict()[words], expected.detach())
    assert not torch.equal(build_dual_encoder(cfg).state_dict()[words], expected)
    assert padding_is_exact(warm)


def test_missing_parts_are_named() -> None:
    with pytest.raises(ConfigError, match="vision_cfg"):
        build_dual_encoder({"embed_dim": 8, "text_cfg": {}})


def test_unknown_tower_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="small-cnn"):
        small("smal-cnn")
    with pytest.raises(ConfigError, match="tiny-text"):
        small(text="tinytext")


def test_a_timm_name_is_an_image_tower() -> None:
    assert small("test_vit")["vision_cfg"]["timm_model_name"] == "test_vit"  # type: ignore[index]
