"""Attention with key masks and pre-norm residual blocks: the pieces that fusion and decoders are made of."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Attention", "FeedForward"]


class Attention(nn.Module):
    """Multi-head attention of queries over keys, normalised before (pre-norm), with its residual added.

    Shape: x (B, Q, D), source (B, K, S) or None for x itself, mask broadcastable to (B, 1, Q, K), bool, True where a
        query may look, or float, added to the logits -> (B, Q, D). A query must be allowed to look somewhere.
    """

    def __init__(self, dim: int, heads: int, *, source_dim: int | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.query, self.out = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.key, self.value = (nn.Linear(source_dim or dim, dim) for _ in range(2))
        self.source_norm = nn.LayerNorm(source_dim) if source_dim else None

    def forward(self, x: Tensor, source: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        queries = self.norm(x)
        if source is None:
            keys = queries
        else:
            keys = source if self.source_norm is None else self.source_norm(source)
        q, k, v = (self._split(part) for part in (self.query(queries), self.key(keys), self.value(keys)))
        if mask is not None and mask.is_floating_point():
            mask = mask.to(q.dtype)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = x + self.out(seen.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, heads, n, D / heads)


class FeedForward(nn.Module):
    """Pre-norm two-layer network with its residual added. Shape: (..., D) -> (..., D)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.rise, self.fall = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.fall(F.gelu(self.rise(self.norm(x))))
        return out
