"""The contradiction loss: an image matches what its report says better than the same sentence turned round."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kvlp.errors import ShapeError
from kvlp.losses.output import LossOutput, check_same_width

__all__ = ["ContradictionLoss"]


class ContradictionLoss(nn.Module):
    """Contrast each image's true statement with its contradiction, a hard negative, and with other images' texts.

    A softmax over the row's own statement, its contradiction and the texts of the other rows of the batch, whose target
    is the statement. Texts that say the same as the row's own are left out; without `text_emb` the contradiction is the
    only negative. A row without a statement does not count.

    Shape: image_emb, statement_emb, contradiction_emb and text_emb (B, D) of unit norm; known (B,) bool; scale scalar
        (already exponentiated); same (B, B) bool, True where two rows say the same -> scalar in float32. Without any
        known row the loss is 0 and still differentiable.
    Raises: ShapeError if shapes do not fit.
    Reference: the hard negative texts of NegCLIP (Yuksekgonul et al. 2023).
    Deviation: statement and contradiction are about one finding in one template, not a report with words exchanged.
    """

    def forward(
        self,
        image_emb: Tensor,
        statement_emb: Tensor,
        contradiction_emb: Tensor,
        known: Tensor,
        scale: Tensor,
        text_emb: Tensor | None = None,
        same: Tensor | None = None,
    ) -> LossOutput:
        check_same_width(image_emb=image_emb, statement_emb=statement_emb, contradiction_emb=contradiction_emb)
        if not image_emb.shape == statement_emb.shape == contradiction_emb.shape or known.shape != image_emb.shape[:1]:
            raise ShapeError(
                f"expected a statement, a contradiction and a mark for each image, got {len(image_emb)} images, "
                f"{len(statement_emb)}, {len(contradiction_emb)} and {tuple(known.shape)}"
            )
        image = image_emb.float()
        own = [(image * texts.float()).sum(dim=1) for texts in (statement_emb, contradiction_emb)]
        logits = scale.float() * torch.stack(own, dim=1)  # (B, 2)
        if text_emb is not None:
            others = scale.float() * image @ text_emb.float().T  # (B, B)
            left_out = torch.eye(len(others), dtype=torch.bool, device=others.device)
            left_out = left_out if same is None else left_out | same
            logits = torch.cat([logits, others.masked_fill(left_out, -torch.inf)], dim=1)
        weights = known.float() / known.float().sum().clamp(min=1)
        total = -(weights * F.log_softmax(logits, dim=1)[:, 0]).sum()
        right = (weights * (own[0] > own[1]).float()).sum()
        return LossOutput(total, {"accuracy": right.detach()})
