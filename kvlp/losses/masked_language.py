"""Masked language modelling: the words that were covered are told from the rest of the text and from the image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kvlp.errors import ShapeError
from kvlp.losses.output import LossOutput, check_same_width

__all__ = ["MaskedLanguageLoss"]

#: A target that does not count, as in PyTorch and transformers.
IGNORED = -100


class MaskedLanguageLoss(nn.Module):
    """Cross-entropy of the covered tokens over the vocabulary, the mean over all of them in the batch.

    Which tokens are covered is not this loss's business: whole mentions, see `kvlp.training.masking`.

    Shape: hidden (N, D) features at N tokens, words (V, D) one vector for each entry of the vocabulary, bias (V,),
        targets (N,) int64, the entry that stood there or -100 where the token does not count -> scalar in float32, 0
        (and still differentiable) where no token counts.
    Raises: ShapeError if shapes do not fit.
    Reference: Devlin et al. 2019 (BERT); ARL (Chen et al. 2022) covers whole entities.
    """

    def forward(self, hidden: Tensor, words: Tensor, bias: Tensor, targets: Tensor) -> LossOutput:
        check_same_width(hidden=hidden, words=words)
        if targets.shape != (len(hidden),) or bias.shape != (len(words),):
            raise ShapeError(
                f"expected targets ({len(hidden)},) and a bias ({len(words)},), got {tuple(targets.shape)} and "
                f"{tuple(bias.shape)}"
            )
        counts = targets != IGNORED
        with torch.autocast(hidden.device.type, enabled=False):
            logits = hidden[counts].float() @ words.float().T + bias.float()  # (M, V)
        told = targets[counts]
        # a sum over a count: the mean of none would be NaN
        total = F.cross_entropy(logits, told, reduction="sum") / max(1, len(told))
        right = (logits.detach().argmax(dim=1) == told).float().sum() / max(1, len(told))
        return LossOutput(total, {"accuracy": right})
