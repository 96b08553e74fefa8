"""Alignment of knowledge texts: names, synonyms, definitions and relations of one concept belong together."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kvlp.errors import ShapeError
from kvlp.losses.output import LossOutput, check_same_width

__all__ = ["KnowledgeAlignLoss"]


class KnowledgeAlignLoss(nn.Module):
    """Pull two texts about the same concept together, and apart from texts about other concepts.

    Soft targets: rows of one concept are all positives of each other, sharing the target evenly: it sums to 1
    (`targets="sum"`), or its length is 1 (`"l2"`), which weighs concepts of many rows more.

    Shape: first_emb (N, D), second_emb (N, D) of unit norm; concept (N,) integers, equal where two rows are about
        the same concept (and the same polarity); scale scalar (already exponentiated) -> scalar in float32.
    Raises: ShapeError if shapes do not fit.
    Reference: KAD stage 1 (Zhang et al. 2023, Nature Communications 14:4542), knowledge encoder.
    Deviation: targets sum to 1 in each row; the published code divides them by their L2 norm, which is `targets="l2"`.
    """

    def __init__(self, *, targets: Literal["sum", "l2"] = "sum") -> None:
        super().__init__()
        self.targets = targets

    def forward(self, first_emb: Tensor, second_emb: Tensor, concept: Tensor, scale: Tensor) -> LossOutput:
        check_same_width(first_emb=first_emb, second_emb=second_emb)
        if first_emb.shape != second_emb.shape or concept.shape != (len(first_emb),):
            raise ShapeError(
                f"expected two matrices and one concept a row, got {tuple(first_emb.shape)}, "
                f"{tuple(second_emb.shape)} and {tuple(concept.shape)}"
            )
        logits = scale.float() * first_emb.float() @ second_emb.float().T  # (N, N)
        same = concept[:, None] == concept[None, :]
        targets = same.float() / same.sum(dim=1, keepdim=True)
        if self.targets == "l2":
            targets = F.normalize(same.float(), dim=1)
        forward = -(targets * F.log_softmax(logits, dim=1)).sum(dim=1).mean()
        backward = -(targets * F.log_softmax(logits.T, dim=1)).sum(dim=1).mean()
        total = (forward + backward) / 2
        accuracy = same[torch.arange(len(logits)), logits.argmax(dim=1)].float().mean()
        return LossOutput(total, {"accuracy": accuracy.detach()})
