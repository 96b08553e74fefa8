"""What fusion learns from in a recipe: words and patches that are covered, and whether image and text match."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from kvlp.training.objectives.part import Drawn, Inputs, LossPart, Samplers, Sources
from kvlp.training.settings import Positive, Share, Weight

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from kvlp.losses.output import LossOutput
    from kvlp.typing import IntArray

__all__ = ["ArlPart"]

#: Draws are whole numbers below this; a share of it is a number in [0, 1).
DRAWS = 1 << 24


class ArlPart(LossPart):
    """Weights and settings of the losses on fused features; `fusion` in the recipe says how fusion is built.

    `mlm`, `mim`, `itm`: weights of masked language modelling, masked image modelling and image-text matching; 0 leaves
    one out. `words`: share of the words that are asked for, whole mentions together; `patches`: share of the patches
    that are left out. `negatives`: the image of another row with other findings, likelier the more similar it is to the
    text (`hard`) or whichever (`random`). `entities`: so many concepts of a text at most. `max_sentences`: of the
    report in a text; 0 for all. `every`: at every so many steps; the other steps go without it.
    """

    head: ClassVar[str] = "fusion"
    joint: ClassVar[bool] = True
    gathers: ClassVar[bool] = True

    mlm: Weight = 1.0
    mim: Weight = 1.0
    itm: Weight = 0.1
    words: Share = 0.15
    patches: Share = 0.75
    negatives: Literal["hard", "random"] = "hard"
    entities: Positive = 24
    max_sentences: int = 3
    every: Positive = 1

    def needs(self) -> tuple[str, ...]:
        fused = {"arl_words": self.mlm, "arl_painted": self.mim, "arl_matched": self.itm}
        own = tuple(name for name, weight in fused.items() if weight)
        return ("image_emb", "text_emb", *own) if self.itm and self.negatives == "hard" else ("image_emb", *own)

    def samplers(self, sources: Sources) -> Samplers:
        from kvlp.knowledge.linking import EntityLinker
        from kvlp.training.fusion import fusion_concepts
        from kvlp.training.masking import cover_mentions
        from kvlp.training.mentions import MentionReader, stacked

        numbers = {concept: row for row, concept in enumerate(fusion_concepts(sources.taught, sources.texts))}
        linker = EntityLinker(sources.graph, attributes=False, language=None)
        read = MentionReader(sources.tokenize, linker, numbers, most=self.entities)

        def rows(indices: IntArray, rng: np.random.Generator) -> Drawn:
            texts = [read(sources.texts.sample(int(i), rng, self.max_sentences)) for i in indices]
            covered = [
                cover_mentions(t.ids, t.units, t.entities, t.position, read.vocabulary, rng, share=self.words)
                for t in texts
            ]
            asked = [t._replace(ids=c.ids, entities=c.entities) for t, c in zip(texts, covered, strict=True)]
            told = [t._replace(ids=c.targets + 1) for t, c in zip(texts, covered, strict=True)]
            hidden = stacked(asked, read.pad_id)
            return {
                **{f"arl_{name}": value for name, value in stacked(texts, read.pad_id).items()},
                "arl_covered": hidden["ids"],
                "arl_left": hidden["entities"],
                "arl_told": stacked(told, 0)["ids"],
                "arl_draw": rng.integers(DRAWS, size=len(indices)),
                "arl_patches": rng.integers(DRAWS, size=len(indices)),
            }

        return Samplers(rows=rows, every=self.every)

    def encode(
        self, model: Any, heads: Mapping[str, Any], batch: Mapping[str, Tensor], features: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The features that the three losses are computed from, see `kvlp.training.objectives.arl_features`."""
        if "arl_ids" not in batch:  # not one of its steps
            return {}
        from kvlp.training.objectives.arl_features import ArlFeatures

        return ArlFeatures(self, model, heads[self.head], batch).all(features)

    def loss(self) -> nn.Module:
        from torch import nn

        from kvlp.losses.image_text_matching import ImageTextMatchingLoss
        from kvlp.losses.masked_image import MaskedImageLoss
        from kvlp.losses.masked_language import MaskedLanguageLoss

        return nn.ModuleDict({"mlm": MaskedLanguageLoss(), "mim": MaskedImageLoss(), "itm": ImageTextMatchingLoss()})

    def compute(self, loss: Any, x: Inputs) -> LossOutput:
        import torch

        from kvlp.losses.output import LossOutput

        head: Any = x.heads[self.head]
        f, found = x.features, {}
        if self.mlm:
            told = f["arl_told"].flatten().long() - 1
            targets = torch.where(told < 0, -100, told)
            found["mlm"] = loss["mlm"](f["arl_words"].flatten(0, 1), head.words, head.word_bias, targets)
        if self.mim:
            found["mim"] = loss["mim"](f["arl_painted"], f["arl_pixels"], f["arl_hidden"] > 0)
        if self.itm:
            apart = f["arl_apart"] > 0
            found["itm"] = loss["itm"](f["arl_matched"], f["arl_mismatched"][apart], head.judge.weight, head.judge.bias)
        total = sum(getattr(self, name) * output.total for name, output in found.items())
        parts = {name: output.total.detach() for name, output in found.items()}
        for name, output in found.items():
            if "accuracy" in output.parts:
                parts[f"{name}_accuracy"] = output.parts["accuracy"]
        return LossOutput(torch.as_tensor(total), parts)
