"""The sigmoid loss of SigLIP: every pair of the batch is a question of its own, asked chunk by chunk."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from kvlp.errors import ConfigError, ShapeError
from kvlp.losses.output import LossOutput, check_same_width

__all__ = ["SIGLIP_START", "SigLipLoss"]

#: Scale and bias that training starts from: at first nearly every pair is a no, as nearly every pair should be.
SIGLIP_START = (10.0, -10.0)


class SigLipLoss(nn.Module):
    """Say yes to each image and its own text, and no to the texts of the other images of the batch.

    Unlike a softmax no pair depends on the others, so the texts are taken `chunk` at a time and the (B, B) table never
    exists: memory grows with B * chunk, forwards and backwards, at the price of computing the logits twice. Texts that
    say the same are no negatives of each other: with `duplicates="ignore"` their pairs do not count, with "positive"
    they are pairs to say yes to.

    Shape: image_emb (B, D) and text_emb (B, D) of unit norm, logit_scale (already exponentiated) and logit_bias
        scalars, both to be learned from `SIGLIP_START`, same (B, B) bool, True where two rows say the same -> scalar in
        float32: the sum over pairs divided by B. Its parts are the means over the pairs of either answer.
    Raises: ShapeError if the shapes differ; ConfigError for a chunk below 1.
    Reference: Zhai et al. 2023, algorithm 1; with same=None it is that loss.
    Deviation: the published loss repels duplicates.
    """

    def __init__(self, *, duplicates: Literal["ignore", "positive"] = "ignore", chunk: int = 1024) -> None:
        super().__init__()
        if chunk < 1:
            raise ConfigError(f"expected a chunk of at least 1 text, got {chunk}")
        self.duplicates = duplicates
        self.chunk = chunk

    def forward(
        self,
        image_emb: Tensor,
        text_emb: Tensor,
        logit_scale: Tensor,
        logit_bias: Tensor,
        same: Tensor | None = None,
    ) -> LossOutput:
        check_same_width(image_emb=image_emb, text_emb=text_emb)
        if image_emb.shape != text_emb.shape:
            raise ShapeError(f"expected as many texts as images, got {len(text_emb)} and {len(image_emb)}")
        rows = len(image_emb)
        scaled, bias = logit_scale.float() * image_emb.float(), logit_bias.float()
        sums, counts = scaled.new_zeros(2), scaled.new_zeros(2)  # of pairs to say yes to, of pairs to say no to
        for columns in torch.arange(rows, device=scaled.device).split(self.chunk):
            alike = None if same is None else same[:, columns]
            if len(columns) == rows:
                found, counted = self._costs(scaled, text_emb, bias, columns, alike)
            else:
                found, counted = checkpoint(
                    self._costs, scaled, text_emb[columns], bias, columns, alike,
                    use_reentrant=False, preserve_rng_state=False,
                )  # fmt: skip
            sums, counts = sums + found, counts + counted
        means = (sums / counts.clamp(min=1)).detach()
        return LossOutput(sums.sum() / rows, {"matched": means[0], "unmatched": means[1]})

    def _costs(
        self, scaled: Tensor, text_emb: Tensor, bias: Tensor, columns: Tensor, alike: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Summed costs (2,) of the pairs to say yes to and of those to say no to, and how many (2,) there are."""
        own = torch.arange(len(scaled), device=columns.device)[:, None] == columns[None, :]
        alike = own if alike is None else alike | own
        yes, no = (alike, ~alike) if self.duplicates == "positive" else (own, ~alike)
        logits = scaled @ text_emb.float().T + bias  # (B, c)
        costs = -F.logsigmoid(torch.where(yes, logits, -logits))
        return torch.stack([(costs * yes).sum(), (costs * no).sum()]), torch.stack([yes.sum(), no.sum()])
