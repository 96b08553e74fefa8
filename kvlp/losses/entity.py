"""The cross-image entity loss: every image of the batch against present and absent prompts of every named finding."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from kvlp.errors import ShapeError
from kvlp.losses.output import LossOutput, absence, check_same_width

__all__ = ["EntityLoss"]


class EntityLoss(nn.Module):
    """Teach present and absent prompts of a finding to answer for every image whose report speaks of it.

    The prompt "there is X" should match the images in which X is present and no image in which it is absent; the
    prompt "there is no X" the other way round. Images whose report doubts X do not count; one whose report does
    not mention X counts as absent by `unmentioned`, from 0 (not at all) to 1 (as if it were denied).
    When `balanced`, each finding weighs the same however often it is mentioned, and so do its present and its absent
    images; a finding of which the batch knows one side only is left out, for it could be learned without the image.
    Denials lie close together, whatever they deny. Images that they teach too spend their first epochs on what denials
    have in common; without `denials_teach_images` images are teachers of denials alone, and learn from present prompts.

    Shape: image_emb (B, D), present_emb (C, D), absent_emb (C, D) of unit norm; labels (B, C) with 1 present,
        0 absent, -1 uncertain, NaN not mentioned; scale and bias scalars (scale already exponentiated) -> scalar in
        float32. Without any known label the loss is 0 and still differentiable.
    Raises: ShapeError if shapes do not fit.
    """

    def __init__(self, *, balanced: bool = True, unmentioned: float = 0.0, denials_teach_images: bool = True) -> None:
        super().__init__()
        self.denials_teach_images = denials_teach_images
        self.balanced = balanced
        self.unmentioned = unmentioned

    def forward(
        self, image_emb: Tensor, present_emb: Tensor, absent_emb: Tensor, labels: Tensor, scale: Tensor, bias: Tensor
    ) -> LossOutput:
        check_same_width(image_emb=image_emb, present_emb=present_emb, absent_emb=absent_emb)
        if labels.shape != (len(image_emb), len(present_emb)) or present_emb.shape != absent_emb.shape:
            raise ShapeError(
                f"expected labels of shape ({len(image_emb)}, {len(present_emb)}) and as many absent as present "
                f"prompts, got {tuple(labels.shape)}, {len(absent_emb)} and {len(present_emb)}"
            )
        weights = self._weights(labels)
        target = (labels == 1).float()
        present = scale.float() * image_emb.float() @ present_emb.float().T + bias.float()  # (B, C)
        denied = image_emb if self.denials_teach_images else image_emb.detach()
        absent = scale.float() * denied.float() @ absent_emb.float().T + bias.float()
        norm = weights.sum().clamp(min=1e-12)
        present_loss = (weights * F.binary_cross_entropy_with_logits(present, target, reduction="none")).sum() / norm
        absent_loss = (weights * F.binary_cross_entropy_with_logits(absent, 1 - target, reduction="none")).sum() / norm
        total = (present_loss + absent_loss) / 2
        return LossOutput(total, {"present": present_loss.detach(), "absent": absent_loss.detach()})

    def _weights(self, labels: Tensor) -> Tensor:
        """Weight of every (image, finding): 0 where unknown; known ones of a finding sum to 1 (or 0)."""
        present, absent = (labels == 1).float(), absence(labels, self.unmentioned)
        if not self.balanced:
            return present + absent
        count_present, count_absent = present.sum(dim=0), absent.sum(dim=0)  # (C,)
        both = (count_present > 0) & (count_absent > 0)
        return 0.5 * both * (present / count_present.clamp(min=1) + absent / count_absent.clamp(min=1e-12))
