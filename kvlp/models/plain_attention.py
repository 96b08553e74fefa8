"""torch's multi-head attention without its copies: what training spends on them goes to the next image."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["PlainAttention", "use_plain_attention"]


class PlainAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` that leaves rows where they lie while it trains, and is torch's own otherwise.

    torch turns (B, L, D) into (L, B, D) and back, and copies queries, keys and values apart; here they are views. The
    parameters, their names, what dropout draws and, without dropout, the output are torch's; gradients of weights are
    summed up in another order, so that they differ by rounding.
    """

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """As `nn.MultiheadAttention`; the short way is taken for batches of rows where no weights are asked for."""
        mask = kwargs.get("attn_mask")
        usual = not args and set(kwargs) <= {"need_weights", "attn_mask"} and kwargs.get("need_weights") is False
        # a mask of booleans means the opposite there: it goes torch's way
        usual = usual and (mask is None or (mask.ndim == 2 and mask.is_floating_point()))
        usual = usual and key is value and query.ndim == 3
        if not (usual and self.training and self._is_plain):
            return super().forward(query, key, value, *args, **kwargs)
        looked = F.scaled_dot_product_attention(*self._split(query, key), attn_mask=mask, dropout_p=self.dropout)
        return self.out_proj(looked.transpose(1, 2).flatten(2)), None

    @property
    def _is_plain(self) -> bool:
        return bool(
            self.batch_first
            and self._qkv_same_embed_dim
            and self.in_proj_bias is not None
            and self.bias_k is None
            and not self.add_zero_attn
        )

    def _split(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, heads, length, D / heads)."""
        weight, bias, width = self.in_proj_weight, self.in_proj_bias, self.embed_dim
        if query is key:
            parts = F.linear(query, weight, bias).chunk(3, 2)
        else:
            asked = F.linear(query, weight[:width], bias[:width])
            parts = (asked, *F.linear(key, weight[width:], bias[width:]).chunk(2, 2))
        q, k, v = (part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        return q, k, v


def use_plain_attention(model: nn.Module, *, plain: bool = True) -> None:
    """Let the attentions of a model that are torch's own take the short way, or, if not `plain`, be torch's again."""
    before, after = (nn.MultiheadAttention, PlainAttention) if plain else (PlainAttention, nn.MultiheadAttention)
    for module in model.modules():
        if type(module) is before:
            module.__class__ = after
