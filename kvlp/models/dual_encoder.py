"""The dual encoder: an open_clip model built from an open_clip model configuration, with random weights.

The module is open_clip's own class, so its state dict is open_clip's and a saved folder loads there as `local-dir:`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.model import CustomTextCLIP
from open_clip.transformer import TextTransformer
from torch import nn

from kvlp.errors import ConfigError
from kvlp.models.plain_attention import use_plain_attention

__all__ = ["build_dual_encoder", "padding_is_exact"]


def build_dual_encoder(model_cfg: Mapping[str, Any], *, pretrained_towers: bool = False) -> CustomTextCLIP:
    """Build an open_clip `CustomTextCLIP` from its configuration dict. Nothing is downloaded.

    Args:
        model_cfg: open_clip's `model_cfg`: embed_dim, vision_cfg, text_cfg and options. `hf_model_name` of the text
            tower must be a local folder with a `config.json`; `hf_config`, ours, is such a file as a mapping.
        pretrained_towers: also load the weights in the text tower's folder (never timm's, which are downloads).

    Returns:
        The module, with `encode_image`, `encode_text` and a learned `logit_scale` (log of the scale), all random unless
        `pretrained_towers`. Texts may be shorter than the context length.

    Raises:
        ConfigError: a key or value that open_clip, timm or transformers refuse.
    """
    cfg = deepcopy(dict(model_cfg))
    if "multimodal_cfg" in cfg:
        raise ConfigError("model configuration: CoCa (multimodal_cfg) is not supported; use a CLIP configuration")
    missing = {"embed_dim", "vision_cfg", "text_cfg"} - set(cfg)
    if missing:
        raise ConfigError(f"model configuration: missing {sorted(missing)}; expected open_clip's model_cfg")
    cfg.pop("custom_text", None)
    _forbid_downloads(cfg, pretrained_towers=pretrained_towers)
    try:
        with _config_folder(cfg["text_cfg"]):
            module = CustomTextCLIP(**cfg)
    except (TypeError, ValueError, RuntimeError, KeyError, AssertionError, OSError) as error:
        raise ConfigError(f"model configuration: {type(error).__name__}: {error}") from error
    if isinstance(module.text, TextTransformer):
        module.text.transformer.register_forward_pre_hook(_crop_mask, with_kwargs=True)
    use_plain_attention(module)
    return module


def _forbid_downloads(cfg: dict[str, Any], *, pretrained_towers: bool) -> None:
    vision, text = cfg["vision_cfg"], cfg["text_cfg"]
    if not isinstance(vision, dict) or not isinstance(text, dict):
        raise ConfigError("model configuration: expected vision_cfg and text_cfg to be mappings")
    name = vision.get("timm_model_name")
    if name:
        if ":" in str(name):
            raise ConfigError(f"model configuration: timm_model_name {name!r} names a hub; use a plain timm name")
        vision["timm_model_pretrained"] = False
    if text.get("hf_model_name"):
        text["hf_model_pretrained"] = pretrained_towers


@contextmanager
def _config_folder(text: dict[str, Any]) -> Iterator[None]:
    """open_clip reads a transformers configuration from a folder alone: write `hf_config` into one for as long."""
    config = text.pop("hf_config", None)
    if config is None:
        yield
        return
    with TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config), encoding="utf-8")
        text.update(hf_model_name=folder, hf_model_pretrained=False)
        yield


def _crop_mask(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Cut open_clip's causal mask, built for the whole context, to the length of this batch."""
    mask, length = kwargs.get("attn_mask"), args[0].shape[1]
    if isinstance(mask, torch.Tensor) and mask.ndim == 2 and mask.shape[0] > length:
        kwargs = {**kwargs, "attn_mask": mask[:length, :length]}
    return args, kwargs


def padding_is_exact(module: nn.Module) -> bool:
    """Whether padding a text less leaves its feature the same.

    True for a causal tower read at its end-of-text token, which never sees the padding after it, and for transformers'
    towers, which mask it.
    """
    text = getattr(module, "text", None)
    if isinstance(text, HFTextEncoder):
        return True
    return (
        isinstance(text, TextTransformer)
        and text.attn_mask is not None
        and text.cls_emb is None
        and text.pool_type in ("argmax", "eos")
    )
