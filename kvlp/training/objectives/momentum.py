"""Momentum contrast in a recipe: slowly following copies of both towers, and queues of what they embedded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from kvlp.training.objectives.part import Inputs, LossPart, Sources
from kvlp.training.settings import Positive, Share

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from kvlp.losses.output import LossOutput

__all__ = ["MOMENTUM", "MomentumPart"]

#: Name of what it remembers.
MOMENTUM = "momentum"


class MomentumPart(LossPart):
    """Weight and settings of momentum contrast, see `kvlp.losses.momentum`.

    `queue`: so many of the newest embeddings of each side stand beside the batch; it begins empty and is used as far as
    it is filled. `momentum` of the copies. `alpha`: the copies' share of the target, reached over the first `ramp`
    passes over the rows. `duplicates`: as in `clip`; a row that was seen an epoch ago is a duplicate of itself.
    """

    joint: ClassVar[bool] = True
    row_by_row: ClassVar[bool] = True

    queue: Positive = 65_536
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.995
    alpha: Share = 0.4
    ramp: Annotated[float, Field(ge=0)] = 1.0
    duplicates: Literal["ignore", "positive", "repel"] = "ignore"

    def needs(self) -> tuple[str, ...]:
        return ("image_emb", "text_emb", "momentum_image", "momentum_text")

    def memories(self, model: Any, heads: Mapping[str, Any], sources: Sources) -> dict[str, nn.Module]:
        from kvlp.models.momentum import MomentumMemory

        seen = max(1.0, self.ramp * len(sources.texts.slots)) if self.ramp else 0.0
        size = int(model.text.output_dim)
        return {MOMENTUM: MomentumMemory(model, momentum=self.momentum, queue=self.queue, dim=size, ramp=seen)}

    def encode(
        self, model: Any, heads: Mapping[str, Any], batch: Mapping[str, Tensor], features: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """What the copies say: `momentum_image` and `momentum_text` (B, D) of unit norm, without gradient."""
        copy = heads[MOMENTUM].model
        text = copy(lambda m: m.encode_text(batch["text"], normalize=True))
        if "image" not in batch:  # a locked tower is its own copy
            return {"momentum_image": features["image_emb"].detach(), "momentum_text": text}
        return {
            "momentum_image": copy(lambda m: m.encode_image(batch["image"], normalize=True)),
            "momentum_text": text,
        }

    def loss(self) -> nn.Module:
        from kvlp.losses.momentum import MomentumContrastLoss

        return MomentumContrastLoss(duplicates="positive" if self.duplicates == "positive" else "ignore")

    def compute(self, loss: Any, x: Inputs) -> LossOutput:
        import torch

        memory: Any = x.heads[MOMENTUM]
        images, texts = memory.images.rows(), memory.texts.rows()
        same = None
        if self.duplicates != "repel":
            signature = x.batch["signature"]
            same = signature[:, None] == torch.cat([signature, images.keys])[None, :]
        output: LossOutput = loss(
            *(x.features[name] for name in self.needs()), images.emb, texts.emb, x.logit_scale,
            self.alpha * memory.share, same,
        )  # fmt: skip
        output.parts["held"] = x.logit_scale.new_tensor(float(len(images.keys)))
        return output

    def after_step(self, model: Any, x: Inputs) -> None:
        """The copies follow, and the queues take in what they said of this step's rows."""
        memory: Any = x.heads[MOMENTUM]
        memory.model.follow(model)
        memory.images.push(x.features["momentum_image"], x.batch["signature"])
        memory.texts.push(x.features["momentum_text"], x.batch["signature"])
