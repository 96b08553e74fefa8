"""Losses: one file each. Tensors in, `LossOutput(total, parts)` out; no loss sees a path, a config or a tokenizer."""

from __future__ import annotations

import difflib

from torch import nn

from kvlp.errors import ConfigError
from kvlp.losses.clip import ClipLoss
from kvlp.losses.concept_align import ConceptAlignLoss
from kvlp.losses.contradiction import ContradictionLoss
from kvlp.losses.entity import EntityLoss
from kvlp.losses.graph_matching import GraphMatchingLoss, gumbel_noise, local_affinity
from kvlp.losses.image_text_matching import ImageTextMatchingLoss
from kvlp.losses.knowledge_align import KnowledgeAlignLoss
from kvlp.losses.local_align import LocalAlignLoss, phrase_heat_maps
from kvlp.losses.masked_image import MaskedImageLoss
from kvlp.losses.masked_language import MaskedLanguageLoss
from kvlp.losses.momentum import MomentumContrastLoss
from kvlp.losses.output import LossOutput
from kvlp.losses.polarity import PolarityLoss
from kvlp.losses.query_state import QueryStateLoss
from kvlp.losses.siglip import SIGLIP_START, SigLipLoss

__all__ = [
    "LOSSES",
    "SIGLIP_START",
    "ClipLoss",
    "ConceptAlignLoss",
    "ContradictionLoss",
    "EntityLoss",
    "GraphMatchingLoss",
    "KnowledgeAlignLoss",
    "LocalAlignLoss",
    "LossOutput",
    "MaskedImageLoss",
    "MaskedLanguageLoss",
    "MomentumContrastLoss",
    "PolarityLoss",
    "QueryStateLoss",
    "SigLipLoss",
    "get_loss",
    "gumbel_noise",
    "local_affinity",
    "phrase_heat_maps",
]

#: name in a recipe -> class
LOSSES: dict[str, type[nn.Module]] = {
    "clip": ClipLoss,
    "concept_align": ConceptAlignLoss,
    "contradiction": ContradictionLoss,
    "entity": EntityLoss,
    "graph_matching": GraphMatchingLoss,
    "image_text_matching": ImageTextMatchingLoss,
    "knowledge": KnowledgeAlignLoss,
    "local_align": LocalAlignLoss,
    "masked_image": MaskedImageLoss,
    "masked_language": MaskedLanguageLoss,
    "momentum": MomentumContrastLoss,
    "polarity": PolarityLoss,
    "query_state": QueryStateLoss,
    "siglip": SigLipLoss,
}


def get_loss(name: str) -> type[nn.Module]:
    """Return the loss class of that name.

    Raises:
        ConfigError: no loss has that name; the nearest names are given.
    """
    if name not in LOSSES:
        near = difflib.get_close_matches(name, LOSSES, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise ConfigError(f"expected a loss among {sorted(LOSSES)}, got '{name}'{hint}")
    return LOSSES[name]
