"""What is known of every training row: a vector of its text, and the facts that its text states; searched by vector.

Reference: MOTOR (arXiv 2304.14204) keeps the last reports of its training in a queue that begins with random tokens.
Here every row has its place, the vectors are made anew at fixed steps, and until the first of them nothing is found.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from kvlp.errors import ShapeError

__all__ = ["Found", "KnowledgeMemory"]

#: Texts that go through the tower at once.
_CHUNK = 256


class Found(NamedTuple):
    """What was found for B queries.

    Attributes:
        rows: (B, k) int64, best first, -1 where there are fewer; weights: (B, k), they sum to 1 where any was found.
        facts: (B, M, D) vectors of facts; counts: (B, M) what each weighs, 0 for none.
    """

    rows: Tensor
    weights: Tensor
    facts: Tensor
    counts: Tensor


class KnowledgeMemory(nn.Module):
    """Vectors of N rows and of U facts, in the joint space.

    Its vectors and its steps are state; what the rows say is not, it is read from the data.

    Args:
        facts: (N, T) int64, the facts of each row by number, -1 for none.
        groups: (N,) int64, equal for rows of one patient or study: a row is never found for its own group.
        reports: (N, L) token ids of the rows' texts; told: (U, L) of the facts'; both padded with `pad_id`.
        dim: D.
    """

    def __init__(
        self, facts: Tensor, groups: Tensor, reports: Tensor, told: Tensor, *, dim: int, pad_id: int = 0
    ) -> None:
        super().__init__()
        if facts.ndim != 2 or groups.shape != facts.shape[:1]:
            raise ShapeError(
                f"knowledge memory: expected facts (N, T) and groups (N,), got {tuple(facts.shape)} and "
                f"{tuple(groups.shape)}"
            )
        self.emb: Tensor
        self.fact_emb: Tensor
        self.steps: Tensor
        self.built: Tensor
        self.facts: Tensor
        self.groups: Tensor
        self.reports: Tensor
        self.told: Tensor
        self.pad_id = pad_id
        self.register_buffer("emb", torch.zeros(len(facts), dim))
        self.register_buffer("fact_emb", torch.zeros(len(told), dim))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("built", torch.full((), -1, dtype=torch.int64))
        for name, value in (("facts", facts), ("groups", groups), ("reports", reports), ("told", told)):
            self.register_buffer(name, value.clone(), persistent=False)

    @property
    def empty(self) -> bool:
        """Whether nothing can be found yet."""
        return int(self.built) < 0

    @torch.no_grad()
    def build(self, embed: Callable[[Tensor], Tensor]) -> None:
        """Make every vector anew; `embed`: (n, L) token ids -> (n, D) of unit norm."""
        for target, ids in ((self.emb, self.reports), (self.fact_emb, self.told)):
            lengths = (ids != self.pad_id).sum(dim=1)
            for part in lengths.argsort(stable=True).split(_CHUNK):
                longest = max(1, int(lengths[part].max()))
                target[part] = embed(ids[part, :longest].long()).to(target)
        self.built.copy_(self.steps)

    @torch.no_grad()
    def find(
        self,
        query: Tensor,
        k: int,
        scale: float,
        *,
        groups: Tensor | None = None,
        mix: Literal["tokens", "sum"] = "tokens",
    ) -> Found:
        """The facts of the k nearest rows of other groups.

        Args:
            query: (B, D) of unit norm, images or texts.
            k: rows for each; scale: of a cosine to a logit, for the softmax over the k.
            groups: (B,) the queries' own groups; None for queries of no row.
            mix: every fact of every row, with the row's weight (`tokens`), or the first facts of all rows summed by
                their weights, then the second ... (`sum`, as published).
        """
        query = query.detach().to(self.emb.dtype)
        k = 0 if self.empty else min(k, len(self.emb))
        scores = query @ self.emb.T  # (B, N)
        if groups is not None:
            scores = scores.masked_fill(groups[:, None] == self.groups[None, :], -torch.inf)
        best = scores.topk(k, dim=1)
        known = best.values.isfinite()
        weights = (scale * best.values).masked_fill(~known, -torch.inf).softmax(dim=1).nan_to_num(0.0)
        rows = best.indices.masked_fill(~known, -1)
        numbers = self.facts[rows.clamp(min=0)].masked_fill(~known[..., None], -1)  # (B, k, T)
        facts = (
            self.fact_emb[numbers.clamp(min=0)]
            if len(self.fact_emb)
            else query.new_zeros(*numbers.shape, query.shape[1])
        )
        counts = (numbers >= 0) * weights[..., None]
        if mix == "sum":
            summed = (facts * counts[..., None]).sum(dim=1)
            return Found(rows, weights, summed, (numbers >= 0).any(dim=1).float())
        return Found(rows, weights, facts.flatten(1, 2), counts.flatten(1))
