"""Alignment with concept vectors: an image (or a report) should lie with the vectors of what is present in it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kvlp.errors import ShapeError
from kvlp.losses.output import LossOutput, absence, check_same_width

__all__ = ["ConceptAlignLoss"]


class ConceptAlignLoss(nn.Module):
    """Ask an embedding, projected to the width of the concept vectors, which concepts its report says are present.

    Multi-label binary cross-entropy: logit = scale * projected . concept + bias; target 1 where the concept is present,
    0 where it is absent. A doubtful concept does not count. One that is not mentioned counts as absent by
    `unmentioned`, from 0 (not at all) to 1 (as published). When `balanced`, present and absent pairs weigh the same in
    sum, however many there are.

    Shape: projected (B, D), concept_emb (C, D) of unit norm; labels (B, C) with 1 present, 0 absent, -1 uncertain,
        NaN not mentioned; scale and bias scalars (scale already exponentiated) -> scalar in float32. Without any pair
        that counts the loss is 0 and still differentiable.
    Raises: ShapeError if shapes do not fit.
    Reference: ARL (Chen et al. 2022, "Align, Reason and Learn"), the align step.
    Deviation: unit vectors with a learned scale and bias; a mention that is denied is no target of 1; balance.
    """

    def __init__(self, *, unmentioned: float = 0.0, balanced: bool = True) -> None:
        super().__init__()
        self.unmentioned = unmentioned
        self.balanced = balanced

    def forward(
        self, projected: Tensor, concept_emb: Tensor, labels: Tensor, scale: Tensor, bias: Tensor
    ) -> LossOutput:
        check_same_width(projected=projected, concept_emb=concept_emb)
        if labels.shape != (len(projected), len(concept_emb)):
            raise ShapeError(
                f"expected labels of shape ({len(projected)}, {len(concept_emb)}), got {tuple(labels.shape)}"
            )
        logits = scale.float() * projected.float() @ concept_emb.float().T + bias.float()  # (B, C)
        present, absent = (labels == 1).float(), absence(labels, self.unmentioned)
        loss = F.binary_cross_entropy_with_logits(logits, present, reduction="none")
        weights = {"present": present, "absent": absent}
        parts = {side: (loss * weight).sum() / weight.sum().clamp(min=1e-12) for side, weight in weights.items()}
        if self.balanced:
            total = (parts["present"] + parts["absent"]) / 2
        else:
            total = (loss * (present + absent)).sum() / (present + absent).sum().clamp(min=1e-12)
        return LossOutput(total, {name: value.detach() for name, value in parts.items()})
