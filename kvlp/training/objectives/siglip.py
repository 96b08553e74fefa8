"""The sigmoid loss of SigLIP in a recipe."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from kvlp.training.objectives.part import Inputs, LossPart
from kvlp.training.settings import Positive

if TYPE_CHECKING:
    from torch import nn

    from kvlp.losses.output import LossOutput

__all__ = ["SigLipPart"]


class SigLipPart(LossPart):
    """Weight and settings of the sigmoid loss; `scale` and `bias` are where its own learned numbers begin.

    `duplicates`: pairs of rows that say the same do not count (`ignore`), are matched (`positive`), or unmatched as in
    the published loss (`repel`). `chunk`: so many texts at a time; memory grows with it, the loss stays the same.
    """

    duplicates: Literal["ignore", "positive", "repel"] = "ignore"
    scale: Annotated[float, Field(ge=1, le=100)] = 10.0
    bias: float = -10.0
    chunk: Positive = 1024

    def needs(self) -> tuple[str, ...]:
        return ("image_emb", "text_emb")

    def learned(self) -> dict[str, float]:
        return {"log_scale": math.log(self.scale), "bias": self.bias}

    def loss(self) -> nn.Module:
        from kvlp.losses.siglip import SigLipLoss

        return SigLipLoss(duplicates="positive" if self.duplicates == "positive" else "ignore", chunk=self.chunk)

    def compute(self, loss: Any, x: Inputs) -> LossOutput:
        same = None
        if self.duplicates != "repel":
            same = x.batch["signature"][:, None] == x.batch["signature"][None, :]
        output: LossOutput = loss(x.features["image_emb"], x.features["text_emb"], x.scale, x.learned["bias"], same)
        return output
