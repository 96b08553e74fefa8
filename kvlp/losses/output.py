"""What every loss returns, and the checks that all losses share."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from kvlp.errors import ShapeError

__all__ = ["LossOutput", "absence", "check_same_width"]


@dataclass(frozen=True)
class LossOutput:
    """A loss and its parts.

    Attributes:
        total: scalar float32 tensor to call backward on.
        parts: name -> detached scalar, for the log.
    """

    total: Tensor
    parts: dict[str, Tensor] = field(default_factory=dict)


def absence(labels: Tensor, unmentioned: float) -> Tensor:
    """How much each label counts as absence: 1 where it is 0, `unmentioned` where it is NaN, else 0, in float32.

    Reports keep silent about most of what is not there, and now and then about what is: their silence tells something
    (0.3 on the phantom), but less than a denial.
    """
    return (labels == 0).float() + unmentioned * torch.isnan(labels).float()


def check_same_width(**embeddings: Tensor) -> None:
    """Raise ShapeError unless all are matrices of one width."""
    shapes = {name: tuple(value.shape) for name, value in embeddings.items()}
    if any(len(shape) != 2 for shape in shapes.values()) or len({shape[1] for shape in shapes.values()}) > 1:
        raise ShapeError(f"expected matrices (rows, D) of one width D, got {shapes}")
