"""The symmetric contrastive loss of CLIP, aware of duplicates."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kvlp.errors import ShapeError
from kvlp.losses.output import LossOutput, check_same_width

__all__ = ["ClipLoss"]


class ClipLoss(nn.Module):
    """Pull each image towards its own text and away from the texts of the other images of the batch.

    Texts that say the same (identical, or naming the same findings) are no negatives of each other: with
    `duplicates="ignore"` they are left out of the row's softmax, with "positive" they share the target evenly.

    Shape: image_emb (B, D) and text_emb (B, D) of unit norm, logit_scale scalar (already exponentiated),
        same (B, B) bool, symmetric, True where two rows say the same -> scalar, computed in float32.
    Raises: ShapeError if the shapes differ.
    Reference: Radford et al. 2021, figure 3; with same=None it is that loss.
    Deviation: the published loss repels duplicates.
    """

    def __init__(self, *, duplicates: Literal["ignore", "positive"] = "ignore") -> None:
        super().__init__()
        self.duplicates = duplicates

    def forward(
        self, image_emb: Tensor, text_emb: Tensor, logit_scale: Tensor, same: Tensor | None = None
    ) -> LossOutput:
        check_same_width(image_emb=image_emb, text_emb=text_emb)
        if image_emb.shape != text_emb.shape:
            raise ShapeError(f"expected as many texts as images, got {len(text_emb)} and {len(image_emb)}")
        logits = logit_scale.float() * image_emb.float() @ text_emb.float().T  # (B, B)
        diagonal = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
        same = diagonal if same is None else same | diagonal
        if self.duplicates == "ignore":
            logits = logits.masked_fill(same & ~diagonal, -torch.inf)
            targets = diagonal.float()
        else:
            targets = same.float() / same.sum(dim=1, keepdim=True)
        image_loss = _soft_cross_entropy(logits, targets)
        text_loss = _soft_cross_entropy(logits.T, targets)
        total = (image_loss + text_loss) / 2
        parts = {"image_to_text": image_loss.detach(), "text_to_image": text_loss.detach()}
        return LossOutput(total, parts)


def _soft_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    log_p = F.log_softmax(logits, dim=1)
    # a left-out pair has log p = -inf and target 0; 0 * -inf would be NaN
    return -(targets * log_p.masked_fill(targets == 0, 0.0)).sum(dim=1).mean()
