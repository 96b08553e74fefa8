"""A better start for small text towers that are trained from scratch."""

from __future__ import annotations

import torch
from open_clip.transformer import TextTransformer
from torch import nn

__all__ = ["start_as_mean_of_words"]


@torch.no_grad()
def start_as_mean_of_words(module: nn.Module, *, eos_id: int) -> None:
    """Let the end-of-text token begin as the mean of the words before it.

    open_clip's transformer reads a text at its end-of-text token, which at first knows little but itself: on few data
    most of the training goes into learning to look back. Here the first attention layer starts with an even look at
    all tokens (queries near zero) that passes their values on unchanged, so that the feature is a bag of words from
    the first step, as with mean pooling, and the layers refine it.

    Does nothing to towers of another kind.
    """
    text = getattr(module, "text", None)
    if not isinstance(text, TextTransformer) or text.pool_type not in ("eos", "argmax"):
        return
    width = text.width
    text.token_embedding.weight[eos_id].zero_()
    text.positional_embedding.mul_(0.3)
    attention = text.transformer.resblocks[0].attn
    attention.in_proj_weight[: 2 * width].mul_(0.3)
    attention.in_proj_weight[2 * width :].copy_(torch.eye(width))
    attention.out_proj.weight.copy_(torch.eye(width))
