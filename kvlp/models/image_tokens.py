"""The places of an image tower's last map as vectors of the joint space, beside the image's own."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from torch import Tensor, nn

from kvlp.errors import ConfigError
from kvlp.models.tower_tokens import channels_last, places_of

__all__ = ["ImageTokens", "encode_with_tokens"]


class ImageTokens(NamedTuple):
    """What a tower says of images and of their places.

    Attributes:
        pooled: (B, D), what the tower alone returns.
        tokens: (B, T, D), each place of the last map through the same pooling and projection, as if it were the image.
        grid: rows and columns of the map; T is their product.
    """

    pooled: Tensor
    tokens: Tensor
    grid: tuple[int, int]


def encode_with_tokens(visual: nn.Module, pixels: Tensor) -> ImageTokens:
    """Run an image tower once and return the image's feature and those of its places; nothing is normalised.

    Args:
        visual: `model.visual`: a timm tower or open_clip's vision transformer.
        pixels: (B, 3, S, S).

    Raises:
        ConfigError: the tower pools by attention or has no map.
    """
    tower: Any = visual
    if hasattr(tower, "trunk"):
        found = _timm(tower, pixels)
    elif hasattr(tower, "forward_intermediates") and getattr(tower, "attn_pool", None) is None:
        found = _open_clip(tower, pixels)
    else:
        found = None
    if found is None:
        raise ConfigError(
            f"the image tower {type(visual).__name__} gives no map of places; use a timm tower that pools by averages, "
            "or a vision transformer"
        )
    return found


def _timm(tower: Any, pixels: Tensor) -> ImageTokens | None:
    features = tower.trunk.forward_features(pixels)
    pooled = tower.head(tower.trunk.forward_head(features))
    if features.ndim == 4:
        last, places = channels_last(features, tower.trunk.num_features), places_of(features, tower.trunk.num_features)
        grid = tuple(features.shape[1:3] if last else features.shape[2:])
        alone = places.flatten(0, 1)[:, None, None] if last else places.flatten(0, 1)[:, :, None, None]
    elif features.ndim == 3:
        prefix = int(getattr(tower.trunk, "num_prefix_tokens", 0))
        places = features[:, prefix:]
        grid = _square(places.shape[1])
        alone = places.flatten(0, 1)[:, None].expand(-1, prefix + 1, -1)  # whichever token it pools
    else:
        return None
    tokens = tower.head(tower.trunk.forward_head(alone))
    return ImageTokens(pooled, tokens.unflatten(0, places.shape[:2]), (int(grid[0]), int(grid[1])))


def _open_clip(tower: Any, pixels: Tensor) -> ImageTokens:
    found = tower.forward_intermediates(pixels, indices=1, normalize_intermediates=True)
    cells = found["image_intermediates"][0]  # (B, C, h, w)
    tokens = cells.flatten(2).transpose(1, 2)
    return ImageTokens(
        found["image_features"],
        tokens if tower.proj is None else tokens @ tower.proj,
        (cells.shape[2], cells.shape[3]),
    )


def _square(count: int) -> tuple[int, int]:
    side = math.isqrt(count)
    return (side, side) if side * side == count else (1, count)
