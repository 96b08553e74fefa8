"""Image-text matching: does this text speak of this image? Asked for true pairs and for hard ones that are not."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kvlp.errors import ShapeError
from kvlp.losses.output import LossOutput, check_same_width

__all__ = ["ImageTextMatchingLoss", "hard_negatives"]


class ImageTextMatchingLoss(nn.Module):
    """Cross-entropy of matched against mismatched pairs; both sides weigh the same, however many pairs each has.

    Shape: matched (B, D) and mismatched (M, D) vectors of pairs, judge (2, D) and bias (2,): the linear layer whose
        first output says "no match", the second "match" -> scalar in float32. Without mismatched pairs nothing is to
        be told apart: the loss is 0 and still differentiable.
    Raises: ShapeError if shapes do not fit.
    Reference: ALBEF (Li et al. 2021), equation 3; ARL (Chen et al. 2022) asks for negatives of other labels.
    """

    def forward(self, matched: Tensor, mismatched: Tensor, judge: Tensor, bias: Tensor) -> LossOutput:
        check_same_width(matched=matched, mismatched=mismatched, judge=judge)
        if len(judge) != 2 or bias.shape != (2,):
            raise ShapeError(
                f"expected a judge (2, D) and a bias (2,), got {tuple(judge.shape)} and {tuple(bias.shape)}"
            )
        both = bool(len(matched)) and bool(len(mismatched))
        sides, right = [], []
        for pairs, answer in ((matched, 1), (mismatched, 0)):
            logits = pairs.float() @ judge.float().T + bias.float()
            truth = torch.full((len(pairs),), answer, device=logits.device)
            sides.append(F.cross_entropy(logits, truth, reduction="sum") / max(1, len(pairs)))
            right.append((logits.detach().argmax(dim=1) == truth).float().sum() / max(1, len(pairs)))
        total = (sides[0] + sides[1]) / 2 if both else (sides[0] + sides[1]) * 0.0
        parts = {"matched": sides[0].detach(), "mismatched": sides[1].detach(), "accuracy": (right[0] + right[1]) / 2}
        return LossOutput(total, parts)


def hard_negatives(similarity: Tensor, differs: Tensor, draw: Tensor) -> Tensor:
    """Choose for each row a column that may stand for a mismatch, likelier the more similar it is.

    Column j is drawn with probability proportional to exp(similarity) among those that differ.

    Args:
        similarity: (B, C) logits, of the rows with the columns.
        differs: (B, C) bool, True where row and column have different labels; others are never chosen.
        draw: (B,) numbers in [0, 1): the same numbers give the same choice.

    Returns:
        (B,) int64 columns; -1 for a row from which no column differs.

    Raises:
        ShapeError: shapes that do not fit.
    """
    if similarity.ndim != 2 or differs.shape != similarity.shape or draw.shape != similarity.shape[:1]:
        raise ShapeError(
            f"hard negatives: expected tables of one shape and a draw a row, got {tuple(similarity.shape)}, "
            f"{tuple(differs.shape)} and {tuple(draw.shape)}"
        )
    some = differs.any(dim=1)
    logits = similarity.detach().double().masked_fill(~differs, -torch.inf)
    share = torch.where(some[:, None], logits, torch.zeros_like(logits)).softmax(dim=1)
    reached = share.cumsum(dim=1)
    chosen = (reached <= draw.double()[:, None] * reached[:, -1:]).sum(dim=1)
    return torch.where(some, chosen, torch.full_like(chosen, -1))
