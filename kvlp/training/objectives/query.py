"""The query network's loss in a recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from kvlp.training.objectives.part import Drawn, Inputs, LossPart, Samplers, Sources
from kvlp.training.settings import Share, Unmentioned

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from kvlp.losses.output import LossOutput

__all__ = ["QueryPart"]


class QueryPart(LossPart):
    """Weight and settings of the query network's loss; `query_network` in the recipe says how the network is built.

    `queries`: `sentences` that state and that deny each named finding, worded anew each step, or bare `names`.
    `descriptions`: share of them that describe the finding instead of naming it. `texts`: the report's embedding is
    asked too, as the only token, so that images and reports share one classifier; sound only where the text is the
    whole report. `unmentioned`: how much a finding counts as absent of which the report does not
    speak. `teach_texts`: the queries' gradient reaches the text tower; as published it does not.
    """

    head: ClassVar[str] = "query"

    queries: Literal["sentences", "names"] = "sentences"
    descriptions: Share = 0.3
    texts: bool = False
    teach_texts: bool = False
    balanced: bool = True
    unmentioned: Unmentioned = 0.0

    def needs(self) -> tuple[str, ...]:
        return ("image_tokens", "queries", *(("text_emb",) if self.texts else ()))

    def taught(self) -> tuple[str, ...]:
        return tuple(name for name in self.needs() if name != "queries" or self.teach_texts)

    def samplers(self, sources: Sources) -> Samplers:
        from kvlp.training.texts import EntityPrompts

        prompts = EntityPrompts(sources.taught, sources.texts.classes, descriptions=self.descriptions)
        names = [concept.name for concept in prompts.concepts]

        def shared(step: int, rng: np.random.Generator) -> Drawn:
            if self.queries == "names":
                return {"queries": names}
            present, absent = prompts.sample(rng)
            return {"queries": [*present, *absent]}

        return Samplers(shared=shared if names else None)

    def loss(self) -> nn.Module:
        from kvlp.losses.query_state import QueryStateLoss

        return QueryStateLoss(balanced=self.balanced, unmentioned=self.unmentioned)

    def compute(self, loss: Any, x: Inputs) -> LossOutput:
        """The images' loss and, where the recipe says so, that of their texts."""
        from kvlp.losses.output import LossOutput

        network: Any = x.heads[self.head]
        queries, labels = x.features["queries"], x.batch["labels"]
        queries = queries if self.teach_texts else queries.detach()  # another loss may teach them
        if self.queries == "sentences":
            labels = labels.repeat(1, 2)
        asked = loss.counts(labels, network.settings["states"])
        images = loss(self._of_findings(network(queries, x.features["image_tokens"], asked)), labels)
        if not self.texts:
            return LossOutput(images.total, images.parts)
        texts = loss(self._of_findings(network(queries, x.features["text_emb"][:, None], asked)), labels)
        return LossOutput(images.total + texts.total, {**images.parts, "texts": texts.total.detach()})

    def _of_findings(self, logits: Tensor) -> Tensor:
        """What is said of the findings, (B, 2C, S): where a sentence that denies one is true, the finding is absent."""
        if self.queries == "names":
            return logits
        import torch

        stated, denied = logits.chunk(2, dim=1)
        turned = denied[..., [1, 0, *range(2, logits.shape[2])]]
        return torch.cat([stated, turned], dim=1)
