"""The alignment with concept vectors in a recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from kvlp.training.objectives.part import Inputs, LossPart
from kvlp.training.settings import Unmentioned

if TYPE_CHECKING:
    from torch import nn

    from kvlp.losses.output import LossOutput

__all__ = ["ConceptAlignPart"]


class ConceptAlignPart(LossPart):
    """Weight and settings of the alignment with concept vectors, which `concept_vectors` in the recipe names.

    `unmentioned`: how much a concept counts as absent of which the report does not speak, 1 in ARL. `texts`: the
    report's embedding is aligned too, not the image's alone; a text that is a random subset of the report's sentences
    (`data.max_sentences`) is then asked for what the whole report says.
    """

    head: ClassVar[str] = "concept_align"

    unmentioned: Unmentioned = 0.0
    balanced: bool = True
    texts: bool = True

    def needs(self) -> tuple[str, ...]:
        return ("image_emb", "text_emb") if self.texts else ("image_emb",)

    def loss(self) -> nn.Module:
        from kvlp.losses.concept_align import ConceptAlignLoss

        return ConceptAlignLoss(unmentioned=self.unmentioned, balanced=self.balanced)

    def compute(self, loss: Any, x: Inputs) -> LossOutput:
        """Mean over images and, where the recipe says so, their texts."""
        import torch

        from kvlp.losses.output import LossOutput

        head: Any = x.heads[self.head]
        outputs = {
            name.removesuffix("_emb"): loss(
                head(x.features[name], name.removesuffix("_emb")), head.concepts, x.batch["labels"],
                head.log_scale.exp(), head.bias,
            )
            for name in self.needs()
        }  # fmt: skip
        parts = {side: output.total.detach() for side, output in outputs.items()}
        return LossOutput(torch.stack([output.total for output in outputs.values()]).mean(), parts)
