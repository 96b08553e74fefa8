"""Masked image modelling: the patches that were left out are painted from the others and from the text."""

from __future__ import annotations

from torch import Tensor, nn

from kvlp.errors import ShapeError
from kvlp.losses.output import LossOutput

__all__ = ["MaskedImageLoss"]


class MaskedImageLoss(nn.Module):
    """Mean squared error of the pixels of the patches that were left out; patches that were seen do not count.

    With `normalise` each target patch has mean 0 and standard deviation 1, as published: the structure of a patch
    counts, not its grey value.

    Shape: painted (B, P, C), target (B, P, C) pixels of each patch, hidden (B, P) bool, True where a patch was left out
        -> scalar in float32, 0 (and still differentiable) where none was.
    Raises: ShapeError if shapes do not fit.
    Reference: He et al. 2022 (MAE), section 3; ARL (Chen et al. 2022) with the text beside it.
    """

    def __init__(self, *, normalise: bool = True) -> None:
        super().__init__()
        self.normalise = normalise

    def forward(self, painted: Tensor, target: Tensor, hidden: Tensor) -> LossOutput:
        if painted.ndim != 3 or painted.shape != target.shape or hidden.shape != painted.shape[:2]:
            raise ShapeError(
                f"expected patches (B, P, C) of one width and hidden (B, P), got {tuple(painted.shape)}, "
                f"{tuple(target.shape)} and {tuple(hidden.shape)}"
            )
        wanted = target.float()
        if self.normalise:
            mean, variance = wanted.mean(dim=2, keepdim=True), wanted.var(dim=2, keepdim=True, unbiased=False)
            wanted = (wanted - mean) / (variance + 1e-6).sqrt()
        error = ((painted.float() - wanted) ** 2).mean(dim=2)  # (B, P)
        total = (error * hidden).sum() / hidden.sum().clamp(min=1)
        return LossOutput(total, {"patches": hidden.sum().float() / max(1, len(hidden))})
