"""Places of an image that have looked at general knowledge (one tree for all) and at specific knowledge (retrieved).

Reference: MOTOR (arXiv 2304.14204), general and specific knowledge.
Deviations: names are told by the mean of their tokens whatever the tokenizer; norms stand before each block; a token
that stands for nothing is always there, so that an empty store is a state like any other.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kvlp.errors import ShapeError
from kvlp.models.attention import Attention, FeedForward

__all__ = ["KnowledgeFusion", "KnowledgeTree"]


class KnowledgeTree(nn.Module):
    """Encodes the nodes of a tree: each is told by its name, its depth and its branch, and sees what the mask allows.

    Args:
        names: (N, L) int64 token ids of the nodes' names; what equals `pad_id` does not count.
        depth, branch: (N,) int64, as of `kvlp.knowledge.branches.BranchTree`.
        mask: (N, N) bool, True where a node may look.
        width: D; heads; layers; pad_id.

    Shape: words (V, D), one vector for each token -> (N, D).
    """

    def __init__(
        self,
        names: Tensor,
        depth: Tensor,
        branch: Tensor,
        mask: Tensor,
        *,
        width: int,
        heads: int = 6,
        layers: int = 2,
        pad_id: int = 0,
    ) -> None:
        super().__init__()
        self.names: Tensor
        self.known: Tensor
        self.depth: Tensor
        self.branch: Tensor
        self.mask: Tensor
        for name, value in (("names", names), ("depth", depth), ("branch", branch), ("mask", mask)):
            self.register_buffer(name, value.clone())
        self.register_buffer("known", (names != pad_id)[..., None].float())
        self.depths = nn.Embedding(int(depth.max()) + 1, width)
        self.branches = nn.Embedding(int(branch.max()) + 1, width)
        self.see = nn.ModuleList(Attention(width, heads) for _ in range(layers))
        self.think = nn.ModuleList(FeedForward(width, 4 * width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, words: Tensor) -> Tensor:
        told = (words[self.names] * self.known).sum(dim=1) / self.known.sum(dim=1).clamp(min=1)
        x = (told + self.depths(self.depth) + self.branches(self.branch))[None]
        for see, think in zip(self.see, self.think, strict=True):
            x = think(see(x, mask=self.mask[None, None]))
        out: Tensor = self.norm(x)[0]
        return out


class KnowledgeFusion(nn.Module):
    """Image tokens look at the tree, then at what was retrieved for their image.

    Args:
        token_width: of the image tokens and of the retrieved tokens.
        width: D; heads; layers of each of the two.

    Shape: image (B, T, token_width), tree (N, D) or None, facts (B, M, token_width), weights (B, M) in [0, 1], 0 for
        a fact that is not there -> (B, T, D). A fact of weight w counts as if it were seen w times.
    Raises: ShapeError if shapes do not fit.
    """

    def __init__(self, token_width: int, *, width: int, heads: int = 6, layers: int = 2) -> None:
        super().__init__()
        self.image_in, self.fact_in = nn.Linear(token_width, width), nn.Linear(token_width, width)
        self.nothing = nn.Parameter(torch.randn(width) * 0.02)
        self.general, self.specific = (nn.ModuleList(_Look(width, heads) for _ in range(layers)) for _ in range(2))
        self.norm = nn.LayerNorm(width)

    def forward(self, image: Tensor, tree: Tensor | None, facts: Tensor, weights: Tensor) -> Tensor:
        if facts.ndim != 3 or len(facts) != len(image) or weights.shape != facts.shape[:2]:
            raise ShapeError(
                f"knowledge fusion: expected facts ({len(image)}, M, D) and a weight for each, got "
                f"{tuple(facts.shape)} and {tuple(weights.shape)}"
            )
        x = self.image_in(image)
        if tree is not None:
            shared = tree[None].expand(len(x), -1, -1)
            for layer in self.general:
                x = layer(x, shared, None)
        nothing = self.nothing.expand(len(x), 1, -1)
        source = torch.cat([nothing, self.fact_in(facts).to(nothing)], dim=1)
        counts = torch.cat([weights.new_ones(len(x), 1), weights], dim=1)
        mask = counts.log()[:, None, None, :]  # a weight of 0 is a logit of -inf
        for layer in self.specific:
            x = layer(x, source, mask)
        out: Tensor = self.norm(x)
        return out


class _Look(nn.Module):
    """Cross-attention, then a network of two layers."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.cross, self.think = Attention(width, heads, source_dim=width), FeedForward(width, 4 * width)

    def forward(self, x: Tensor, source: Tensor, mask: Tensor | None) -> Tensor:
        out: Tensor = self.think(self.cross(x, source, mask=mask))
        return out
