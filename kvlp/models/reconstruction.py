"""Decoders of masked images: from the features of what was seen to the pixels of every patch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from kvlp.errors import ConfigError, ShapeError
from kvlp.models.attention import Attention, FeedForward

__all__ = ["MapDecoder", "PatchDecoder", "covered", "patches_of"]


class PatchDecoder(nn.Module):
    """Put a learned token where a patch was left out, add places, and let a few layers paint every patch.

    Shape: features (B, prefix + K, W) of the tokens that were seen, keep (B, K) int64, their patches -> (B, P, 3 p^2):
        every patch's pixels, row by row.
    Raises: ConfigError: `dim` that heads do not divide; ShapeError: other shapes.
    Reference: He et al. 2022 (MAE); ARL takes 384 numbers, 4 layers and 6 heads.
    """

    def __init__(
        self, width: int, patches: int, pixels: int, *, dim: int = 384, layers: int = 4, heads: int = 6, prefix: int = 1
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ConfigError(f"patch decoder: expected a dim that {heads} heads divide, got {dim}")
        self.patches, self.prefix = patches, prefix
        self.into = nn.Linear(width, dim)
        self.missing = nn.Parameter(torch.randn(dim) * 0.02)
        self.place = nn.Parameter(torch.randn(patches, dim) * 0.02)
        self.layers = nn.ModuleList(
            nn.Sequential(Attention(dim, heads), FeedForward(dim, 4 * dim)) for _ in range(layers)
        )
        self.norm, self.out = nn.LayerNorm(dim), nn.Linear(dim, pixels)

    def forward(self, features: Tensor, keep: Tensor) -> Tensor:
        if features.ndim != 3 or features.shape[:2] != (len(keep), self.prefix + keep.shape[1]):
            raise ShapeError(
                f"patch decoder: expected features ({len(keep)}, {self.prefix + keep.shape[1]}, W) of kept patches, "
                f"got {tuple(features.shape)}"
            )
        x = self.into(features)
        where = keep[..., None].expand(-1, -1, x.shape[2])
        empty = self.missing.to(x.dtype).expand(len(x), self.patches, -1)
        painted = empty.scatter(1, where, x[:, self.prefix :]) + self.place
        x = torch.cat([x[:, : self.prefix], painted.to(x.dtype)], dim=1)
        for layer in self.layers:
            x = layer(x)
        out: Tensor = self.out(self.norm(x[:, self.prefix :]))
        return out


class MapDecoder(nn.Module):
    """Paint the part of the image below each place of a map, from the features of that place alone.

    For towers that cannot leave patches out, as convolutions: they see the image with patches `covered`.

    Shape: features (B, P, W) of every place, keep (B, K), not asked for -> (B, P, 3 p^2): pixels, row by row.
    Raises: ShapeError: another number of places.
    Reference: Xie et al. 2022 (SimMIM), the one-layer head, behind a norm.
    """

    def __init__(self, width: int, patches: int, pixels: int) -> None:
        super().__init__()
        self.patches = patches
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, pixels)

    def forward(self, features: Tensor, keep: Tensor) -> Tensor:
        del keep
        if features.ndim != 3 or features.shape[1] != self.patches:
            raise ShapeError(f"map decoder: expected features (B, {self.patches}, W), got {tuple(features.shape)}")
        out: Tensor = self.out(self.norm(features))
        return out


def covered(pixels: Tensor, hidden: Tensor) -> Tensor:
    """The images with some patches at 0, the mean of normalised images.

    Args:
        pixels: (B, C, S, S) float.
        hidden: (B, P) 1 for a covered patch, 0 for one that is seen; P square patches, row by row.

    Raises:
        ShapeError: patches that do not fill the image.
    """
    side = math.isqrt(hidden.shape[1])
    if (
        pixels.ndim != 4
        or side * side != hidden.shape[1]
        or pixels.shape[2] != pixels.shape[3]
        or pixels.shape[2] % side
    ):
        raise ShapeError(
            f"covered: expected square images that a square number of patches fills, got {tuple(pixels.shape)} and "
            f"{hidden.shape[1]} patches"
        )
    size = pixels.shape[2] // side
    seen = (1 - hidden).reshape(-1, 1, side, side).repeat_interleave(size, 2).repeat_interleave(size, 3)
    return pixels * seen.to(pixels.dtype)


def patches_of(pixels: Tensor, size: int) -> Tensor:
    """Cut images into square patches, row by row.

    Args:
        pixels: (B, C, S, S).
        size: side p of a patch; divides S.

    Returns:
        (B, (S/p)^2, C p^2) float32.

    Raises:
        ShapeError: images that patches do not fill.
    """
    if pixels.ndim != 4 or pixels.shape[2] % size or pixels.shape[3] % size:
        raise ShapeError(
            f"patches: expected images (B, C, S, S) that patches of {size} fill, got {tuple(pixels.shape)}"
        )
    rows, channels, high, wide = pixels.shape
    cut = pixels.float().reshape(rows, channels, high // size, size, wide // size, size)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(rows, (high // size) * (wide // size), channels * size * size)
