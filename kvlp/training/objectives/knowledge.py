"""The alignment of knowledge texts in a recipe."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from kvlp.training.objectives.part import Drawn, Inputs, LossPart, Samplers, Sources
from kvlp.training.settings import Positive, Share

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from kvlp.losses.output import LossOutput

__all__ = ["KnowledgePart"]


class KnowledgePart(LossPart):
    """Weight and settings of the knowledge alignment: `pairs` text pairs every `every` steps.

    `source`: `wordings` pairs a concept's names, synonyms, descriptions and definition in one template, a share of them
    `negated`, and some relations; `published` pairs names with definitions and the halves of triples, as many of each
    as the graph has, without templates. `masked`: share of the words that every second step hides. `targets`: rows of
    one concept share a target of sum 1 (`sum`) or of length 1 (`l2`, as in the published code).
    """

    looks_at: ClassVar[Literal["images", "texts"]] = "texts"

    every: Positive = 2
    pairs: Positive = 96
    negated: Share = 0.25
    source: Literal["wordings", "published"] = "wordings"
    masked: Share = 0.0
    targets: Literal["sum", "l2"] = "sum"

    def needs(self) -> tuple[str, ...]:
        return ("pairs",)

    def learned(self) -> dict[str, float]:
        return {"log_scale": math.log(1 / 0.07)}

    def samplers(self, sources: Sources) -> Samplers:
        if not sources.uses_graph:
            return Samplers()
        from kvlp.training.knowledge_texts import PublishedPairs, mask_words
        from kvlp.training.texts import KnowledgePairs

        published = self.source == "published"
        pairs = PublishedPairs(sources.taught) if published else KnowledgePairs(sources.taught, negated=self.negated)

        def shared(step: int, rng: np.random.Generator) -> Drawn:
            if step % self.every:
                return {}
            first, second, concept = pairs.sample(rng, self.pairs)
            texts = [*first, *second]  # 2P texts: first ones, then second ones
            hide = self.masked > 0 and (step // self.every) % 2
            return {"pairs": mask_words(texts, self.masked, rng) if hide else texts, "concept": concept}

        return Samplers(shared=shared)

    def loss(self) -> nn.Module:
        from kvlp.losses.knowledge_align import KnowledgeAlignLoss

        return KnowledgeAlignLoss(targets=self.targets)

    def compute(self, loss: Any, x: Inputs) -> LossOutput:
        first, second = x.features["pairs"].chunk(2)
        output: LossOutput = loss(first, second, x.shared["concept"], x.scale)
        return output
