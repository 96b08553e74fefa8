"""The forward passes of ARL's losses over one micro-batch. All features are floats of one row each."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kvlp.errors import ConfigError
from kvlp.losses.image_text_matching import hard_negatives
from kvlp.models.fusion_head import FusionHead
from kvlp.models.reconstruction import covered, patches_of
from kvlp.models.tower_tokens import image_tokens, text_tokens
from kvlp.training.joint_norm import kept_statistics
from kvlp.training.masking import kept_count
from kvlp.training.objectives.arl import DRAWS
from kvlp.training.ranks import Together

if TYPE_CHECKING:
    from kvlp.training.objectives.arl import ArlPart

__all__ = ["ArlFeatures"]


class ArlFeatures:
    """Computes what the losses need of a micro-batch; a tower sees each thing once, however many losses ask for it.

    Raises:
        ConfigError: the batch has no images (a locked tower), or the image tower has no patches.
    """

    def __init__(self, part: ArlPart, model: Any, head: FusionHead, batch: Mapping[str, Tensor]) -> None:
        if "image" not in batch:
            raise ConfigError("the loss arl looks at the images themselves; leave lock_image out of its stage")
        self.part, self.model, self.head, self.batch = part, model, head, batch
        self.rows = Together(len(batch["image"]))
        self.position = batch["arl_position"] > 0
        self.words = batch["arl_ids"] != head.settings["pad_id"]

    def all(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The features of every loss that has a weight."""
        found: dict[str, Tensor] = {}
        if self.part.mlm:
            found |= self.told()
        if self.part.mim:
            found |= self.painted()
        if self.part.itm:
            found |= self.pairs(features)
        return found

    @cached_property
    def _image(self) -> Tensor:
        return image_tokens(self.model.visual, self.batch["image"])

    @cached_property
    def _text(self) -> Tensor:
        return text_tokens(self.model.text, self.batch["arl_ids"])

    def told(self) -> dict[str, Tensor]:
        """Covered text with the whole image: `arl_words` (B, context, D), and `arl_told`, 1 + or less what stood."""
        text = text_tokens(self.model.text, self.batch["arl_covered"])
        fused = self.head.fusion(self._image, text, self.words, self.batch["arl_left"], self.position)
        room = self.head.settings["context"] - text.shape[1]  # micro-batches differ in length
        words = F.pad(self.head.tell(fused.text), (0, 0, 0, room))
        return {"arl_words": words, "arl_told": F.pad(self.batch["arl_told"].float(), (0, room), value=-99.0)}

    def painted(self) -> dict[str, Tensor]:
        """The whole text with a few patches: `arl_painted` and `arl_pixels` (B, P, C), `arl_hidden` (B, P)."""
        if self.head.decoder is None:
            raise ConfigError(
                "masked image modelling: expected an image size that the places of the tower's last map divide; choose "
                "another model.image_size or model.image, or set mim to 0"
            )
        pixels, patches = self.batch["image"], self.head.settings["patches"]
        order = _order(self.rows.join(self.batch["arl_patches"]), patches)[self.rows.own]
        keep = order[:, : kept_count(patches, self.part.patches)].sort(dim=1).values
        hidden = torch.ones(len(pixels), patches, device=pixels.device).scatter(1, keep, 0.0)
        if self.head.settings.get("covered"):
            with kept_statistics(self.model.visual):
                image = image_tokens(self.model.visual, covered(pixels, hidden))
        else:
            image = image_tokens(self.model.visual, pixels, keep=keep)
        fused = self.head.fusion(image, self._text, self.words, self.batch["arl_entities"], self.position)
        target = patches_of(pixels, self.head.settings["patch"])
        return {"arl_painted": self.head.decoder(fused.middle, keep), "arl_pixels": target, "arl_hidden": hidden}

    def pairs(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Each text with its image and with another's: `arl_matched`, `arl_mismatched` (B, 2 D), `arl_apart` (B,).

        Others are sought among the rows of all processes.
        """
        rows, signature = self.rows, self.rows.join(self.batch["signature"])
        differs = signature[rows.own, None] != signature[None, :]
        if self.part.negatives == "hard":
            with torch.no_grad():
                images = rows.join(features["image_emb"].detach().float())
                similarity = self.model.logit_scale.exp() * (features["text_emb"].float() @ images.T)
        else:
            similarity = torch.zeros(differs.shape, device=differs.device)
        other = hard_negatives(similarity, differs, self.batch["arl_draw"].double() / DRAWS)
        words = (self._text, self.words, self.batch["arl_entities"], self.position)
        matched = self.head.fusion(self._image, *words).pair
        mismatched = self.head.fusion(rows.join(self._image)[other.clamp(min=0)], *words).pair
        return {"arl_matched": matched, "arl_mismatched": mismatched, "arl_apart": (other >= 0).float()}


def _order(seeds: Tensor, patches: int) -> Tensor:
    """A permutation of the patches for each row, a function of the first number alone: (B, P)."""
    generator = torch.Generator().manual_seed(int(seeds[0]))
    return torch.rand(len(seeds), patches, generator=generator).argsort(dim=1).to(seeds.device)
