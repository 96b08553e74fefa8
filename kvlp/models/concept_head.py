"""From the joint space to that of concept vectors: one small projection for images, one for texts."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kvlp.errors import ShapeError

__all__ = ["ConceptHead"]


class ConceptHead(nn.Module):
    """Project embeddings to the width of given concept vectors; both sides come out with unit length.

    The concept vectors are kept as they are (a buffer, `concepts`); the projections, a scale and a bias are learned.

    Shape: concepts (C, W); embedding (B, D) -> (B, W).
    Raises: ShapeError if the concept vectors are no matrix.
    Reference: ARL (Chen et al. 2022), whose projections are two-layer networks too.
    """

    def __init__(self, dim: int, concepts: Tensor, *, scale: float = 10.0) -> None:
        super().__init__()
        if concepts.ndim != 2:
            raise ShapeError(f"expected concept vectors (C, W), got {tuple(concepts.shape)}")
        self.concepts: Tensor
        self.register_buffer("concepts", F.normalize(concepts.float(), dim=1))
        self.image, self.text = (_projection(dim, concepts.shape[1]) for _ in range(2))
        self.log_scale = nn.Parameter(torch.tensor(float(scale)).log())
        self.bias = nn.Parameter(torch.tensor(0.0))

    def forward(self, embedding: Tensor, side: Literal["image", "text"]) -> Tensor:
        projected: Tensor = (self.image if side == "image" else self.text)(embedding)
        return F.normalize(projected.float(), dim=1)


def _projection(dim: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, width))
