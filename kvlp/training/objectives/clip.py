"""The contrastive loss of CLIP in a recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from kvlp.training.objectives.part import Inputs, LossPart

if TYPE_CHECKING:
    from torch import nn

    from kvlp.losses.output import LossOutput

__all__ = ["ClipPart"]


class ClipPart(LossPart):
    """Weight and settings of the contrastive loss.

    `duplicates`: rows that say the same are left out of each other's negatives (`ignore`), share the target
    (`positive`), or repel each other as in the published loss (`repel`). `normalised`: features have unit length;
    without it, and with a fixed `scale`, it is what KAD's code computes.
    """

    duplicates: Literal["ignore", "positive", "repel"] = "ignore"
    normalised: bool = True
    scale: Annotated[float, Field(gt=0)] | None = None

    def needs(self) -> tuple[str, ...]:
        return ("image_emb", "text_emb") if self.normalised else ("image_raw", "text_raw")

    def loss(self) -> nn.Module:
        from kvlp.losses.clip import ClipLoss

        return ClipLoss(duplicates="positive" if self.duplicates == "positive" else "ignore")

    def compute(self, loss: Any, x: Inputs) -> LossOutput:
        same = None
        if self.duplicates != "repel":
            same = x.batch["signature"][:, None] == x.batch["signature"][None, :]
        image, text = (x.features[name] for name in self.needs())
        scale = x.logit_scale if self.scale is None else x.logit_scale.new_tensor(self.scale)
        output: LossOutput = loss(image, text, scale, same)
        return output
