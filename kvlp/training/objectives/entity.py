"""The cross-image entity loss in a recipe."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from kvlp.training.objectives.part import Drawn, Inputs, LossPart, Samplers, Sources
from kvlp.training.settings import Positive, Share, Unmentioned

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from kvlp.losses.output import LossOutput

__all__ = ["EntityPart"]


class EntityPart(LossPart):
    """Weight and settings of the cross-image entity loss; `scale` is where its learned scale begins.

    `unmentioned`: how much a finding counts as absent of which the report does not speak, from 0 (`ignore`) to 1
    (`absent`, as if it were denied). `wordings`: in so many ways each finding is stated and denied in each step; with
    more of them an image is pulled less to and fro by what words are drawn. `denials_teach_images`: images learn from
    denials too, not only denials from images.
    """

    scale: Annotated[float, Field(ge=1, le=100)] = 10.0
    balanced: bool = True
    descriptions: Share = 0.3
    unmentioned: Unmentioned = 0.0
    wordings: Positive = 1
    denials_teach_images: bool = True

    def needs(self) -> tuple[str, ...]:
        return ("image_emb", "prompts")

    def learned(self) -> dict[str, float]:
        return {"log_scale": math.log(self.scale), "bias": -1.0}

    def samplers(self, sources: Sources) -> Samplers:
        from kvlp.training.texts import EntityPrompts

        prompts = EntityPrompts(sources.taught, sources.texts.classes, descriptions=self.descriptions)

        def shared(step: int, rng: np.random.Generator) -> Drawn:
            drawn = [prompts.sample(rng) for _ in range(self.wordings)]
            return {"prompts": [text for side in zip(*drawn, strict=True) for texts in side for text in texts]}  # 2WC

        return Samplers(shared=shared if prompts.concepts else None)

    def loss(self) -> nn.Module:
        from kvlp.losses.entity import EntityLoss

        return EntityLoss(
            balanced=self.balanced, unmentioned=self.unmentioned, denials_teach_images=self.denials_teach_images
        )

    def compute(self, loss: Any, x: Inputs) -> LossOutput:
        present, absent = x.features["prompts"].chunk(2)
        labels = x.batch["labels"].repeat(1, self.wordings)
        output: LossOutput = loss(x.features["image_emb"], present, absent, labels, x.scale, x.learned["bias"])
        return output
