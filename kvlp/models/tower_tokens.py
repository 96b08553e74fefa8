"""Token features of the two towers as they are, in the width of each tower, before they are pooled and projected."""

from __future__ import annotations

from typing import Any

import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.timm_model import TimmModel
from open_clip.transformer import TextTransformer, VisionTransformer
from torch import Tensor, nn

from kvlp.errors import ConfigError

__all__ = [
    "channels_last", "image_tokens", "image_width", "map_size", "patch_size", "places_of", "text_tokens", "text_width",
]  # fmt: skip


def image_tokens(visual: nn.Module, pixels: Tensor, *, keep: Tensor | None = None) -> Tensor:
    """Features of every place of an image, after the tower's last layer and norm, before pooling.

    Args:
        visual: the image tower of an open_clip model.
        pixels: (B, 3, S, S) float.
        keep: (B, K) int64, the patches that the tower sees (row by row from the top left); None for all. Only a vision
            transformer can leave patches out.

    Returns:
        (B, T, W): a class token first where the tower has one, then the patches in the order of `keep`.

    Raises:
        ConfigError: a tower of another kind, or `keep` for one that is no vision transformer.
    """
    if isinstance(visual, VisionTransformer):
        if visual.attn_pool is not None:
            raise ConfigError("image_tokens: a tower with attentional pooling has no token features")
        tower: Any = visual
        x = _kept(tower._embeds(pixels), keep, 1)
        out: Tensor = tower.ln_post(tower.transformer(x))
        return out
    trunk: Any = getattr(visual, "trunk", None)
    if not isinstance(visual, TimmModel) or trunk is None:
        raise ConfigError(f"image_tokens: expected a tower of open_clip or timm, got {type(visual).__name__}")
    if keep is None:
        features: Tensor = trunk.forward_features(pixels)
        if features.ndim != 4:
            return features
        return places_of(features, trunk.num_features)
    if not hasattr(trunk, "blocks") or not hasattr(trunk, "_pos_embed"):
        raise ConfigError("patches can be left out of a vision transformer alone; choose one, as tiny-vit")
    x = trunk._pos_embed(trunk.patch_embed(pixels))
    x = trunk.norm_pre(_kept(x, keep, trunk.num_prefix_tokens))
    out = trunk.norm(trunk.blocks(x))
    return out


def channels_last(features: Tensor, width: int) -> bool:
    """Whether a map of that many channels, four axes, has them as its last axis."""
    return features.shape[3] == width != features.shape[1]


def places_of(features: Tensor, width: int) -> Tensor:
    """The places of a map, row by row: (B, width, h, w), or channels last, -> (B, h w, width)."""
    return features.flatten(1, 2) if channels_last(features, width) else features.flatten(2).transpose(1, 2)


def _kept(x: Tensor, keep: Tensor | None, prefix: int) -> Tensor:
    if keep is None:
        return x
    patches = x[:, prefix:].gather(1, keep[..., None].expand(-1, -1, x.shape[2]))
    return torch.cat([x[:, :prefix], patches], dim=1)


def text_tokens(text: nn.Module, ids: Tensor) -> Tensor:
    """Features of every token of a text, after the tower's last layer and norm.

    Args:
        text: the text tower of an open_clip model.
        ids: (B, L) token ids with padding.

    Returns:
        (B, L, W); those of padding mean nothing.

    Raises:
        ConfigError: a tower of another kind.
    """
    tower: Any = text
    if isinstance(text, HFTextEncoder):
        mask = (ids != tower.config.pad_token_id).long()
        hidden: Tensor = tower.transformer(input_ids=ids, attention_mask=mask).last_hidden_state
        return hidden
    if not isinstance(text, TextTransformer):
        raise ConfigError(f"text_tokens: expected a tower of open_clip or transformers, got {type(text).__name__}")
    x, mask = tower._embeds(ids)
    x = tower.transformer(x, attn_mask=mask)
    out: Tensor = tower.ln_final(x[:, : ids.shape[1]])
    return out


def image_width(visual: nn.Module) -> int:
    """Width W of `image_tokens`."""
    tower: Any = visual
    return int(tower.trunk.num_features if hasattr(tower, "trunk") else tower.ln_post.normalized_shape[0])


def text_width(text: nn.Module) -> int:
    """Width W of `text_tokens`."""
    tower: Any = text
    return int(tower.config.hidden_size if isinstance(text, HFTextEncoder) else tower.width)


def patch_size(visual: nn.Module) -> int:
    """Side of a patch of a vision transformer, in pixels.

    Raises:
        ConfigError: the tower has no patches.
    """
    tower: Any = visual
    if isinstance(visual, VisionTransformer):
        return int(tower.patch_size[0])
    embed: Any = getattr(getattr(tower, "trunk", None), "patch_embed", None)
    if not hasattr(embed, "patch_size"):
        raise ConfigError(f"expected a vision transformer as image tower, as tiny-vit, got {type(visual).__name__}")
    return int(embed.patch_size[0])


def map_size(visual: nn.Module, image_size: int) -> int:
    """How many places the last map of a tower without patches has, for square images of that side.

    Raises:
        ConfigError: the tower has no token features.
    """
    training, device = visual.training, next(visual.parameters()).device
    visual.eval()
    with torch.no_grad():
        places = image_tokens(visual, torch.zeros(1, 3, image_size, image_size, device=device)).shape[1]
    visual.train(training)
    return int(places)
