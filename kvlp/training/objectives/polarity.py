"""The polarity loss in a recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvlp.training.objectives.part import Drawn, Inputs, LossPart, Samplers, Sources
from kvlp.training.settings import Positive, Share

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from kvlp.losses.output import LossOutput

__all__ = ["PolarityPart"]


class PolarityPart(LossPart):
    """Weight and settings of the polarity loss.

    `findings`: so many findings of the graph are drawn for each step, whether reports name them or not; `descriptions`:
    share of them that are described instead of named.
    """

    findings: Positive = 32
    descriptions: Share = 0.3

    def needs(self) -> tuple[str, ...]:
        return ("image_emb", "poles")

    def samplers(self, sources: Sources) -> Samplers:
        from kvlp.training.texts import CLASS_TYPES, EntityPrompts

        findings = [c.id for c in sources.taught.concepts if CLASS_TYPES & set(c.semantic_types)]
        prompts = EntityPrompts(sources.taught, findings, descriptions=self.descriptions)

        def shared(step: int, rng: np.random.Generator) -> Drawn:
            present, absent = prompts.sample(rng, self.findings)
            return {"poles": [*present, *absent]}  # 2K texts

        return Samplers(shared=shared if findings else None)

    def loss(self) -> nn.Module:
        from kvlp.losses.polarity import PolarityLoss

        return PolarityLoss()

    def compute(self, loss: Any, x: Inputs) -> LossOutput:
        present, absent = x.features["poles"].chunk(2)
        output: LossOutput = loss(x.features["image_emb"], present, absent)
        return output
