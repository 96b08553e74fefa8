"""The contradiction loss in a recipe."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from kvlp.training.objectives.part import Drawn, Inputs, LossPart, Samplers, Sources

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from kvlp.losses.output import LossOutput
    from kvlp.typing import IntArray

__all__ = ["ContradictionPart"]


class ContradictionPart(LossPart):
    """Weight and settings of the contradiction loss.

    `kinds`: how a statement of the report is contradicted: denied or stated (`assertion`), by its `opposite` in the
    graph, by the other `side`, by another `severity`. `negatives`: the contradiction alone (`own`), or beside it the
    texts of the other images, as in the contrastive step (`batch`).
    """

    kinds: tuple[Literal["assertion", "opposite", "side", "severity"], ...] = (
        "assertion", "opposite", "side", "severity",
    )  # fmt: skip
    negatives: Literal["own", "batch"] = "batch"
    scale: Annotated[float, Field(ge=1, le=100)] = 10.0

    def needs(self) -> tuple[str, ...]:
        batch = ("text_emb",) if self.negatives == "batch" else ()
        return ("image_emb", "statement_emb", "contradiction_emb", *batch)

    def learned(self) -> dict[str, float]:
        return {"log_scale": math.log(self.scale)}

    def samplers(self, sources: Sources) -> Samplers:
        from kvlp.training.contradictions import Contradictions

        drawer = Contradictions(sources.taught, sources.texts.statements, self.kinds)

        def rows(indices: IntArray, rng: np.random.Generator) -> Drawn:
            true, false, kinds = drawer.sample(indices, rng)
            return {"statement": true, "contradiction": false, "contradicted": kinds}

        return Samplers(rows=rows)

    def loss(self) -> nn.Module:
        from kvlp.losses.contradiction import ContradictionLoss

        return ContradictionLoss()

    def compute(self, loss: Any, x: Inputs) -> LossOutput:
        features = [x.features[name] for name in ("image_emb", "statement_emb", "contradiction_emb")]
        known = x.batch["contradicted"] >= 0
        text = same = None
        if self.negatives == "batch":
            text, signature = x.features["text_emb"], x.batch["signature"]
            same = signature[:, None] == signature[None, :]
        output: LossOutput = loss(*features, known, x.scale, text, same)
        return output
