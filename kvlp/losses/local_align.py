"""Local alignment: a phrase of a report looks for the patches of the image that show what it says."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kvlp.errors import ConfigError, ShapeError
from kvlp.losses.clip import ClipLoss
from kvlp.losses.output import LossOutput

__all__ = ["LocalAlignLoss", "phrase_heat_maps"]

#: exp(2 * MAX_SHARPNESS) is still far from what float32 can hold
MAX_SHARPNESS = 40.0


class LocalAlignLoss(nn.Module):
    """Pull an image and its report together through the patches that each phrase of the report attends to.

    Every phrase attends over the patches of every image, softmax(attention_scale * cosine), and is compared with what
    it saw: the cosine of the phrase and the attended mean of the patches. A report's similarity to an image is the
    soft maximum of its phrases', (1 / sharpness) log mean exp(sharpness * cosine): near their mean for a small
    sharpness, near the best phrase for a large one, and no greater for a report of many phrases. Images are then told
    apart by reports and reports by images, as in `ClipLoss`. Hand in phrases that say what is there: what a report
    denies is at no place. A report without phrases is no column and its image no row.

    Shape: patch_emb (B, P, D), of any length: the attended mean is normalised; phrase_emb (N, D) of unit norm; owner
        (N,) int64: the row in [0, B) whose report has the phrase; logit_scale scalar (already exponentiated); same
        (B, B) bool, symmetric, True where two rows say the same -> scalar in float32, 0 without any phrase.
    Raises: ShapeError if shapes do not fit; ConfigError for scales out of range.
    Reference: GLoRIA (Huang et al. 2021), equations 3 to 7.
    Deviation: the published attention is first normalised over the words of the report, so that the map of a word
        depends on its neighbours; here each phrase stands for itself. Published: log of the sum, not of the mean.
    """

    def __init__(
        self,
        *,
        attention_scale: float = 4.0,
        sharpness: float = 1.0,
        duplicates: Literal["ignore", "positive"] = "ignore",
    ) -> None:
        super().__init__()
        if attention_scale <= 0 or not 0 < sharpness <= MAX_SHARPNESS:
            raise ConfigError(
                f"expected a positive attention_scale and a sharpness in (0, {MAX_SHARPNESS:g}], "
                f"got {attention_scale:g} and {sharpness:g}"
            )
        self.attention_scale = attention_scale
        self.sharpness = sharpness
        self.contrast = ClipLoss(duplicates=duplicates)

    def forward(
        self, patch_emb: Tensor, phrase_emb: Tensor, owner: Tensor, logit_scale: Tensor, same: Tensor | None = None
    ) -> LossOutput:
        _check(patch_emb, phrase_emb)
        rows, count = len(patch_emb), len(phrase_emb)
        if owner.shape != (count,) or (count and not 0 <= int(owner.min()) <= int(owner.max()) < rows):
            raise ShapeError(f"expected for each of {count} phrases its row in [0, {rows}), got {tuple(owner.shape)}")
        told = owner.unique()  # the rows whose report has phrases, in order
        cosines = self._seen(patch_emb.float(), phrase_emb.float())  # (B, N)
        similarity = self._of_reports(cosines[told], (owner[:, None] == told[None, :]).float())  # (R, R)
        if not count:
            return LossOutput(patch_emb.float().sum() * 0.0, {"cosine": cosines.new_zeros(())})
        alike = None if same is None else same[told][:, told]
        # the table of similarities is that of its own rows with unit vectors
        output = self.contrast(similarity, torch.eye(len(told), device=similarity.device), logit_scale, alike)
        own = cosines[owner, torch.arange(count, device=owner.device)].mean()
        return LossOutput(output.total, {**output.parts, "cosine": own.detach()})

    def _seen(self, patches: Tensor, phrases: Tensor) -> Tensor:
        """Cosine (B, N) of each phrase and what it attends to in each image."""
        attention = (self.attention_scale * F.normalize(patches, dim=2) @ phrases.T).softmax(dim=1)  # (B, P, N)
        seen = F.normalize(attention.transpose(1, 2) @ patches, dim=2)  # (B, N, D)
        return torch.einsum("bnd,nd->bn", seen, phrases)

    def _of_reports(self, cosines: Tensor, mine: Tensor) -> Tensor:
        """Soft maximum (R, R) over the phrases of each report; `mine` (N, R) is 1 where a report has the phrase."""
        shifted = (self.sharpness * (cosines - 1)).exp()  # a cosine is at most 1: nothing overflows
        return (shifted @ mine / mine.sum(dim=0)).log() / self.sharpness + 1


def phrase_heat_maps(patch_emb: Tensor, phrase_emb: Tensor) -> Tensor:
    """Where an image shows what each phrase says: the cosine of every patch and every phrase.

    Args:
        patch_emb: (H, W, D) patches of one image, of any length.
        phrase_emb: (N, D) phrases, of any length.

    Returns:
        (N, H, W) float32 in [-1, 1], comparable between images; the loss attends in the order of these values.

    Raises:
        ShapeError: shapes that do not fit.
    """
    _check(patch_emb, phrase_emb)
    patches, phrases = (F.normalize(value.float(), dim=-1) for value in (patch_emb, phrase_emb))
    return torch.einsum("hwd,nd->nhw", patches, phrases)


def _check(patch_emb: Tensor, phrase_emb: Tensor) -> None:
    if patch_emb.ndim != 3 or phrase_emb.ndim != 2 or patch_emb.shape[-1] != phrase_emb.shape[-1]:
        raise ShapeError(
            f"expected patches and phrases of one width D, (..., ..., D) and (N, D), got {tuple(patch_emb.shape)} and "
            f"{tuple(phrase_emb.shape)}"
        )
