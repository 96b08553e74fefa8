"""Small towers by name: fragments of an open_clip model configuration that train from scratch on two cores.

Image towers are timm's (or open_clip's own vision transformer), text towers open_clip's own transformer or one of
transformers, so that a checkpoint of any pair of them loads in plain open_clip.
"""

from __future__ import annotations

from copy import deepcopy
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from kvlp.errors import ConfigError

__all__ = ["IMAGE_TOWERS", "TEXT_TOWERS", "TOWERS", "has_weights", "model_config"]


def _timm(name: str, pool: str = "avgmax") -> dict[str, Any]:
    return {"timm_model_name": name, "timm_model_pretrained": False, "timm_pool": pool, "timm_proj": "linear"}


def _text(width: int, heads: int, layers: int) -> dict[str, Any]:
    return {"width": width, "heads": heads, "layers": layers, "pool_type": "eos"}


#: name -> open_clip `vision_cfg`. Average plus maximum pooling: a small finding fills few cells of the last map.
IMAGE_TOWERS: dict[str, dict[str, Any]] = {
    "tiny-cnn": _timm("test_byobnet"),
    "small-cnn": _timm("test_resnet"),
    "medium-cnn": _timm("resnet10t"),
    "vit-b-16": {"layers": 12, "width": 768, "patch_size": 16},
    "tiny-vit": {"layers": 4, "width": 128, "head_width": 32, "patch_size": 12, "pool_type": "avg"},
}


def _bert(width: int, heads: int, layers: int) -> dict[str, Any]:
    config = {
        "model_type": "bert", "hidden_size": width, "num_attention_heads": heads, "num_hidden_layers": layers,
        "intermediate_size": 4 * width, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
    }  # fmt: skip
    return {"hf_config": config, "hf_pooler_type": "mean_pooler", "hf_proj_type": "linear"}


#: name -> open_clip `text_cfg`. open_clip's own are causal and read at the end-of-text token, transformers' mask the
#: padding: in both it never changes a feature. `hf_config` is a transformers configuration (`build_dual_encoder`).
TEXT_TOWERS: dict[str, dict[str, Any]] = {
    "tiny-text": _text(width=128, heads=4, layers=2),
    "small-text": _text(width=256, heads=4, layers=4),
    "tiny-bert": _bert(width=128, heads=4, layers=2),
    "base-bert": _bert(width=768, heads=12, layers=12),
}

TOWERS: dict[str, dict[str, Any]] = {**IMAGE_TOWERS, **TEXT_TOWERS}


def model_config(
    image: str,
    text: str,
    *,
    vocab_size: int,
    eos_id: int,
    pad_id: int = 0,
    embed_dim: int = 128,
    image_size: int = 96,
    context_length: int = 48,
) -> dict[str, Any]:
    """Return the open_clip `model_cfg` of a pair of small towers.

    Args:
        image: a name in IMAGE_TOWERS, or any timm model name.
        text: a name in TEXT_TOWERS, or a folder with the config.json of a transformers encoder.
        vocab_size: length of the tokenizer.
        eos_id: the tokenizer's end-of-text id ([SEP] of a WordPiece tokenizer).
        pad_id: the tokenizer's padding id.
        embed_dim: length of the shared embedding.
        image_size: side of the square input, in pixels.
        context_length: most tokens of a text.

    Raises:
        ConfigError: an unknown tower, with the nearest names.
    """
    tower = _text_tower(text)
    if "hf_config" in tower:
        sizes = {"vocab_size": vocab_size, "pad_token_id": pad_id, "max_position_embeddings": context_length}
        tower["hf_config"].update(sizes)
    return {
        "embed_dim": embed_dim,
        "vision_cfg": {**_image_tower(image), "image_size": image_size},
        "text_cfg": {
            **tower,
            "context_length": context_length,
            "vocab_size": vocab_size,
            "eos_id": eos_id,
            "pad_id": pad_id,
            "hf_tokenizer_name": "tokenizer",  # any name: open_clip then reads the tokenizer from the folder
        },
        "custom_text": True,
    }


def _image_tower(name: str) -> dict[str, Any]:
    if name not in IMAGE_TOWERS:
        import timm

        if timm.is_model(name):
            return _timm(name, pool="avg")
    return _lookup(name, IMAGE_TOWERS, "image tower")


def has_weights(name: str) -> bool:
    """Whether a text tower is a folder of transformers with trained weights; then its tokenizer belongs to it."""
    return any((Path(name) / file).is_file() for file in ("model.safetensors", "pytorch_model.bin"))


def _text_tower(name: str) -> dict[str, Any]:
    if (Path(name) / "config.json").is_file():
        return {"hf_model_name": str(Path(name).absolute()), "hf_pooler_type": "mean_pooler", "hf_proj_type": "linear"}
    return _lookup(name, TEXT_TOWERS, "text tower")


def _lookup(name: str, family: dict[str, dict[str, Any]], kind: str) -> dict[str, Any]:
    if name in family:
        return deepcopy(family[name])
    near = get_close_matches(name, family, n=3) or sorted(family)
    also = ", or any timm model name" if kind == "image tower" else ", or a folder with a config.json of transformers"
    raise ConfigError(f"unknown {kind} {name!r}; did you mean {', '.join(near)}{also}?")
