"""Gradient checkpointing: a tower forgets what its blocks computed and computes it again for the gradient.

Far less memory for about a third more time. Batch statistics of a tower with batch norm are taken in twice a step.
"""

from __future__ import annotations

from typing import Any

from open_clip.hf_model import HFTextEncoder
from open_clip.timm_model import TimmModel
from open_clip.transformer import TextTransformer, VisionTransformer
from torch import nn

from kvlp.errors import ConfigError

__all__ = ["checkpoint_blocks"]


def checkpoint_blocks(tower: nn.Module) -> None:
    """Let an image or text tower keep only the borders of its blocks, by its own library's means.

    Raises:
        ConfigError: a tower that cannot.
    """
    known: Any = tower
    try:
        if isinstance(tower, VisionTransformer | TextTransformer):
            known.set_grad_checkpointing(True)
        elif isinstance(tower, TimmModel):
            known.trunk.set_grad_checkpointing(True)  # open_clip's own goes on without, with a warning
        elif isinstance(tower, HFTextEncoder):
            _of_transformers(known.transformer)
        else:
            raise ValueError
    except (AssertionError, AttributeError, NotImplementedError, ValueError):
        inner = getattr(tower, "trunk", getattr(tower, "transformer", tower))
        raise ConfigError(
            f"grad_checkpointing: a tower of the kind {type(inner).__name__} cannot; name the other tower, or null"
        ) from None


def _of_transformers(model: Any) -> None:
    """The method has a new name since transformers 5.20 or so, and the old one warns."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    model.config.use_cache = False  # of no use to an encoder, and it warns
    enable()
