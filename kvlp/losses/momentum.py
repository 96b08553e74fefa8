"""Momentum contrast: image and text against what slowly following copies say of this batch and of those before it."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kvlp.errors import ShapeError
from kvlp.losses.output import LossOutput, check_same_width

__all__ = ["MomentumContrastLoss"]


class MomentumContrastLoss(nn.Module):
    """Pull each image towards its own text as the copy embeds it, away from the other texts of batch and queue.

    The copies' own opinion of who belongs together is a part `alpha` of the target, for a negative may well describe
    the image too. Rows that say the same are no negatives: with `duplicates="ignore"` they are left out of the row's
    softmax, its target's included, with "positive" they share the hard part of the target evenly. The same holds for
    texts against images.

    Shape: image_emb and text_emb (B, D); image_copy and text_copy (B, D), the copies' features of the same rows;
        image_queue and text_queue (Q, D), Q may be 0; all of unit norm; logit_scale scalar (already exponentiated);
        alpha scalar in [0, 1]; same (B, B + Q) bool, True where a row and one of batch or queue say the same
        -> scalar, computed in float32. Copies and queues get no gradient.
    Raises: ShapeError if the shapes do not fit.
    Reference: ALBEF (Li et al. 2021), equations 1, 2 and 6; MOTOR (arXiv 2304.14204) has alpha = 0.4.
    Deviation: the published loss repels duplicates; same=None is that loss.
    """

    def __init__(self, *, duplicates: Literal["ignore", "positive"] = "ignore") -> None:
        super().__init__()
        self.duplicates = duplicates

    def forward(  # noqa: PLR0913 - two sides, their copies, their queues
        self,
        image_emb: Tensor,
        text_emb: Tensor,
        image_copy: Tensor,
        text_copy: Tensor,
        image_queue: Tensor,
        text_queue: Tensor,
        logit_scale: Tensor,
        alpha: Tensor | float,
        same: Tensor | None = None,
    ) -> LossOutput:
        sides = {"image_emb": image_emb, "text_emb": text_emb, "image_copy": image_copy, "text_copy": text_copy}
        check_same_width(**sides, image_queue=image_queue, text_queue=text_queue)
        rows, held = len(image_emb), len(image_queue)
        if any(len(side) != rows for side in sides.values()) or len(text_queue) != held:
            raise ShapeError(f"expected as many rows on all sides, got { {k: len(v) for k, v in sides.items()} }")
        if same is not None and same.shape != (rows, rows + held):
            raise ShapeError(f"expected same ({rows}, {rows + held}), got {tuple(same.shape)}")
        images = torch.cat([image_copy, image_queue]).detach().float()
        texts = torch.cat([text_copy, text_queue]).detach().float()
        own = torch.eye(rows, rows + held, dtype=torch.bool, device=images.device)
        same = own if same is None else same | own
        to_text = self._side(image_emb, image_copy, texts, logit_scale, alpha, own, same)
        to_image = self._side(text_emb, text_copy, images, logit_scale, alpha, own, same)
        parts = {"image_to_text": to_text.detach(), "text_to_image": to_image.detach()}
        return LossOutput((to_text + to_image) / 2, parts)

    def _side(
        self,
        asked: Tensor,
        copy: Tensor,
        others: Tensor,
        scale: Tensor,
        alpha: Tensor | float,
        own: Tensor,
        same: Tensor,
    ) -> Tensor:
        """Cross-entropy of one side with the target that is partly hard, partly the copy's opinion."""
        left_out = same & ~own if self.duplicates == "ignore" else torch.zeros_like(own)
        hard = own.float() if self.duplicates == "ignore" else same.float() / same.sum(dim=1, keepdim=True)
        log_p = F.log_softmax((scale.float() * asked.float() @ others.T).masked_fill(left_out, -torch.inf), dim=1)
        with torch.no_grad():
            opinion = scale.float() * copy.float() @ others.T
            soft = opinion.masked_fill(left_out, -torch.inf).softmax(dim=1)
            target = alpha * soft + (1 - alpha) * hard
        # a left-out pair has log p = -inf and target 0; 0 * -inf would be NaN
        return -(target * log_p.masked_fill(left_out, 0.0)).sum(dim=1).mean()
