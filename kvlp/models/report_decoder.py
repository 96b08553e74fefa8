"""A decoder of reports: words look at the words before them and at the places of an image; or, to match, at all words.

Reference: BLIP (Li et al. 2022), whose image-grounded decoder and encoder share all but their self-attention; MOTOR
(arXiv 2304.14204) writes reports with it. Deviation: norms stand before each block.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kvlp.errors import ShapeError
from kvlp.models.attention import Attention, FeedForward

__all__ = ["ReportDecoder"]


class ReportDecoder(nn.Module):
    """Text over image tokens.

    Attributes:
        words: (V, D) one vector for each token, coming in and going out; `bias` (V,).
        judge: D -> 2 logits, no match and match, on the first token of a text read as a whole.

    Args:
        vocab_size, context: tokens there are, and most tokens of a text.
        width: D; heads; layers.

    Shape: ids (B, L) int64, memory (B, T, D) -> (B, L, D). With `whole`, every word sees every word that is not
        padding; without, only those before it and itself.
    Raises: ShapeError for a text that is longer than `context`.
    """

    def __init__(
        self, vocab_size: int, context: int, *, width: int = 768, heads: int = 12, layers: int = 12, pad_id: int = 0
    ) -> None:
        super().__init__()
        self.pad_id = pad_id
        # of about unit length: words that come in and go out alike learn slowly from much smaller ones
        self.words = nn.Parameter(torch.randn(vocab_size, width) / width**0.5)
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        self.places = nn.Parameter(torch.randn(context, width) / width**0.5)
        self.layers = nn.ModuleList(_Layer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.judge = nn.Linear(width, 2)

    def forward(self, ids: Tensor, memory: Tensor, *, whole: bool = False) -> Tensor:
        length = ids.shape[1]
        if length > len(self.places) or len(memory) != len(ids):
            raise ShapeError(
                f"report decoder: expected texts of at most {len(self.places)} tokens and an image for each, got "
                f"{tuple(ids.shape)} and {len(memory)} images"
            )
        if whole:
            seen = (ids != self.pad_id)[:, None, None, :]
        else:
            seen = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()[None, None]
        x = self.words[ids] + self.places[:length]
        for layer in self.layers:
            x = layer(x, memory, seen, whole=whole)
        out: Tensor = self.norm(x)
        return out

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., D) -> (..., V), of the token that comes next."""
        return hidden.float() @ self.words.float().T + self.bias.float()


class _Layer(nn.Module):
    """Words look at words, then at the image; the way of looking at words depends on what is asked."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.before, self.all = Attention(width, heads), Attention(width, heads)
        self.cross = Attention(width, heads, source_dim=width)
        self.think = FeedForward(width, 4 * width)

    def forward(self, x: Tensor, memory: Tensor, seen: Tensor, *, whole: bool) -> Tensor:
        x = (self.all if whole else self.before)(x, mask=seen)
        out: Tensor = self.think(self.cross(x, memory))
        return out
