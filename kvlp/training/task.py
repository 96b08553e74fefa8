"""The pretraining task: two towers and their losses make one step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from kvlp.errors import ConfigError
from kvlp.losses import ClipLoss, ConceptAlignLoss, EntityLoss, KnowledgeAlignLoss, LossOutput
from kvlp.models.concept_head import ConceptHead
from kvlp.training.recipe import Losses

__all__ = ["MAX_LOG_SCALE", "PretrainTask"]

#: Scales are clamped to [1, 100] after each step, as CLIP does.
MAX_LOG_SCALE = math.log(100)

#: Texts are embedded so many at a time, those of like length together.
TEXT_CHUNK = 32

Features = dict[str, Tensor]


class PretrainTask(nn.Module):
    """Encodes rows and shared texts and adds up the weighted losses of a stage.

    `model` is an open_clip dual encoder (encode_image, encode_text, logit_scale). The entity loss has a scale and a
    bias of its own and the knowledge loss a scale of its own; they belong to training and are not saved in the model.
    `concept_head` lasts over the stages, also through those without the loss `concept_align`, and is saved beside it.
    """

    def __init__(
        self, model: nn.Module, losses: Losses, *, pad_id: int = 0, concept_head: ConceptHead | None = None
    ) -> None:
        super().__init__()
        self.model: Any = model  # open_clip's methods are not those of every nn.Module
        self.settings = losses
        self.pad_id = pad_id
        self.entity_log_scale = nn.Parameter(torch.tensor(math.log(losses.entity.scale if losses.entity else 10.0)))
        self.entity_bias = nn.Parameter(torch.tensor(-1.0))
        self.pair_log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.clip = ClipLoss(duplicates=losses.clip.duplicates) if losses.clip else None
        self.entity = EntityLoss(balanced=losses.entity.balanced) if losses.entity else None
        self.knowledge = KnowledgeAlignLoss() if losses.knowledge else None
        align = losses.concept_align
        self.concept_head = concept_head
        self.concept_align = (
            ConceptAlignLoss(unmentioned=align.unmentioned, balanced=align.balanced) if align and concept_head else None
        )

    def encode(self, batch: dict[str, Tensor]) -> Features:
        """Embed the rows of a micro-batch: image_emb and text_emb, each (n, D) of unit norm."""
        return {**self.encode_images(batch), **self.encode_reports(batch)}

    def encode_images(self, batch: dict[str, Tensor]) -> Features:
        """Embed the images of a micro-batch: image_emb."""
        known = batch.get("image_emb")
        return {"image_emb": self.model.encode_image(batch["image"], normalize=True) if known is None else known}

    def encode_reports(self, batch: dict[str, Tensor]) -> Features:
        """Embed the texts of a micro-batch: text_emb, if a loss needs it."""
        if self.clip is None and not (self.settings.concept_align and self.settings.concept_align.texts):
            return {}
        return {"text_emb": self._embed(batch["text"])}

    def encode_shared(self, shared: dict[str, Tensor]) -> Features:
        """Embed the prompts and pairs that all rows of a step share."""
        return {name: self._embed(shared[name]) for name in ("prompts", "pairs") if name in shared}

    def _embed(self, tokens: Tensor) -> Tensor:
        """Embed (n, L) padded texts in order of length: a long one does not make all the others long."""
        lengths = (tokens != self.pad_id).sum(dim=1)
        order = lengths.argsort(stable=True)
        pieces = [
            self.model.encode_text(tokens[part, : int(lengths[part[-1]])], normalize=True)
            for part in order.split(TEXT_CHUNK)
        ]
        return torch.cat(pieces)[order.argsort()]

    def loss(self, features: Features, batch: dict[str, Tensor], shared: dict[str, Tensor]) -> LossOutput:
        """Weighted sum of the stage's losses; parts are named `loss` or `loss.part`."""
        outputs: dict[str, tuple[float, LossOutput]] = {}
        if self.clip is not None and self.settings.clip is not None:
            same = batch["signature"][:, None] == batch["signature"][None, :]
            output = self.clip(features["image_emb"], features["text_emb"], self.model.logit_scale.exp(), same)
            outputs["clip"] = (self.settings.clip.weight, output)
        if self.entity is not None and self.settings.entity is not None and "prompts" in features:
            present, absent = features["prompts"].chunk(2)
            scale = self.entity_log_scale.exp()
            output = self.entity(features["image_emb"], present, absent, batch["labels"], scale, self.entity_bias)
            outputs["entity"] = (self.settings.entity.weight, output)
        if self.knowledge is not None and self.settings.knowledge is not None and "pairs" in features:
            first, second = features["pairs"].chunk(2)
            output = self.knowledge(first, second, shared["concept"], self.pair_log_scale.exp())
            outputs["knowledge"] = (self.settings.knowledge.weight, output)
        if self.settings.concept_align is not None and "image_emb" in features:
            outputs["concept_align"] = (
                self.settings.concept_align.weight,
                self._concept_loss(features, batch["labels"]),
            )
        return _add_up(outputs, next(iter(features.values())))

    def _concept_loss(self, features: Features, labels: Tensor) -> LossOutput:
        """Mean over images and, where the recipe says so, their texts."""
        head, align = self.concept_head, self.concept_align
        if head is None or align is None or self.settings.concept_align is None:
            raise ConfigError("the loss concept_align needs concept vectors: set concept_vectors in the recipe")
        sides = ("image", "text") if self.settings.concept_align.texts else ("image",)
        outputs = {
            side: align(head(features[f"{side}_emb"], side), head.concepts, labels, head.log_scale.exp(), head.bias)
            for side in sides
        }
        parts = {side: output.total.detach() for side, output in outputs.items()}
        return LossOutput(torch.stack([output.total for output in outputs.values()]).mean(), parts)

    @torch.no_grad()
    def clamp_scales(self) -> None:
        """Keep every scale in [1, 100]."""
        scales = [self.model.logit_scale, self.entity_log_scale, self.pair_log_scale]
        if self.concept_head is not None:
            scales.append(self.concept_head.log_scale)
        for scale in scales:
            scale.clamp_(0, MAX_LOG_SCALE)


def _add_up(outputs: dict[str, tuple[float, LossOutput]], like: Tensor) -> LossOutput:
    total = like.new_zeros((), dtype=torch.float32)
    parts: dict[str, Tensor] = {}
    for name, (weight, output) in outputs.items():
        total = total + weight * output.total
        parts[name] = output.total.detach()
        parts.update({f"{name}.{part}": value for part, value in output.parts.items()})
    return LossOutput(total, parts)
