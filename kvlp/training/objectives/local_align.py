"""The local alignment of phrases and places of an image in a recipe."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from kvlp.training.objectives.part import Drawn, Inputs, LossPart, Samplers, Sources
from kvlp.training.settings import Share

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from kvlp.losses.output import LossOutput

__all__ = ["LocalAlignPart"]


class LocalAlignPart(LossPart):
    """Weight and settings of the local alignment; `scale` is where its learned scale begins.

    A report's phrases are sentences that state the findings it says are present, worded anew each step;
    `descriptions` is the share of them that describe the finding instead of naming it. `attention_scale` and
    `sharpness` are explained in `kvlp.losses.local_align`.
    """

    scale: Annotated[float, Field(ge=1, le=100)] = 10.0
    attention_scale: Annotated[float, Field(gt=0)] = 4.0
    sharpness: Annotated[float, Field(gt=0, le=40)] = 1.0
    descriptions: Share = 0.3

    def needs(self) -> tuple[str, ...]:
        return ("image_tokens", "phrases")

    def learned(self) -> dict[str, float]:
        return {"log_scale": math.log(self.scale)}

    def samplers(self, sources: Sources) -> Samplers:
        from kvlp.training.texts import EntityPrompts

        prompts = EntityPrompts(sources.taught, sources.texts.classes, descriptions=self.descriptions)

        def shared(step: int, rng: np.random.Generator) -> Drawn:
            return {"phrases": prompts.sample(rng)[0]}  # C texts

        return Samplers(shared=shared if prompts.concepts else None)

    def loss(self) -> nn.Module:
        from kvlp.losses.local_align import LocalAlignLoss

        return LocalAlignLoss(attention_scale=self.attention_scale, sharpness=self.sharpness)

    def compute(self, loss: Any, x: Inputs) -> LossOutput:
        present = x.batch["labels"] == 1  # (B, C)
        owner, finding = present.nonzero(as_tuple=True)
        same = (present[:, None] == present[None, :]).all(dim=2)
        output: LossOutput = loss(x.features["image_tokens"], x.features["phrases"][finding], owner, x.scale, same)
        return output
