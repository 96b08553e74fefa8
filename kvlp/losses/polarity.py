"""The polarity loss: a denying sentence ranks images the other way round than the sentence that states the finding."""

from __future__ import annotations

from torch import Tensor, nn

from kvlp.losses.output import LossOutput, check_same_width

__all__ = ["PolarityLoss"]


class PolarityLoss(nn.Module):
    """Let "there is no X" follow "there is X" with the sign turned, for any X, labelled or not.

    For each finding the similarities of the batch's images to both sentences should add up to a constant: then one
    sentence ranks images exactly as the other, the other way round. What is left of their variance is the loss, as a
    share of the stating sentences' variance (plus `floor`, a variance of cosines below which there is nothing yet to
    turn round): 0 if denial is a reversed statement, about 1 if it ignores the image, 4 if it is the statement again.
    Images and stating sentences are teachers and get no gradient, so that nothing learned of
    findings is lost to their denials; and no label is needed, so that findings never named in a report count too.

    Shape: image_emb (B, D), present_emb (K, D), absent_emb (K, D) of unit norm -> scalar in float32. With one image the
        loss is 0 and still differentiable.
    Raises: ShapeError if the widths differ.
    """

    def __init__(self, *, floor: float = 0.01) -> None:
        super().__init__()
        self.floor = floor

    def forward(self, image_emb: Tensor, present_emb: Tensor, absent_emb: Tensor) -> LossOutput:
        check_same_width(image_emb=image_emb, present_emb=present_emb, absent_emb=absent_emb)
        image = image_emb.detach().float()
        stated = image @ present_emb.detach().float().T  # (B, K)
        left = stated + image @ absent_emb.float().T
        total = _variance(left) / (_variance(stated) + self.floor)
        return LossOutput(total, {"stated": _variance(stated).detach()})


def _variance(values: Tensor) -> Tensor:
    """Mean variance of the columns."""
    return (values - values.mean(dim=0, keepdim=True)).square().mean()
