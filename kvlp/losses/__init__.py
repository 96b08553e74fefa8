"""Losses: one file each. Tensors in, `LossOutput(total, parts)` out; no loss sees a path, a config or a tokenizer."""

from __future__ import annotations

import difflib

from torch import nn

from kvlp.errors import ConfigError
from kvlp.losses.clip import ClipLoss
from kvlp.losses.concept_align import ConceptAlignLoss
from kvlp.losses.entity import EntityLoss
from kvlp.losses.knowledge_align import KnowledgeAlignLoss
from kvlp.losses.output import LossOutput

__all__ = ["LOSSES", "ClipLoss", "ConceptAlignLoss", "EntityLoss", "KnowledgeAlignLoss", "LossOutput", "get_loss"]

#: name in a recipe -> class
LOSSES: dict[str, type[nn.Module]] = {
    "clip": ClipLoss,
    "concept_align": ConceptAlignLoss,
    "entity": EntityLoss,
    "knowledge": KnowledgeAlignLoss,
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
