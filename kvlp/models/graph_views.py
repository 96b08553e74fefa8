"""Views of a batch as graphs: each image an edge to its nearest neighbours, and messages along the edges."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kvlp.errors import ConfigError, ShapeError

__all__ = ["ViewGraph", "ViewNodes", "nearest_neighbours"]


class ViewNodes(NamedTuple):
    """A view of a batch as a graph.

    Attributes:
        emb: (B, D) float32 vertices of unit length.
        neighbours: (B, k) int64 rows that each has an edge to, nearest first; fewer than asked for in a small batch.
        cells: (B, P, D) float32 cells of unit length, or None.
    """

    emb: Tensor
    neighbours: Tensor
    cells: Tensor | None


class ViewGraph(nn.Module):
    """Project the pooled features of a view, join each to its nearest neighbours and pass messages along the edges.

    The projection is of training alone; the tower before it is what is kept. A layer of messages is
    H + relu(D^-1/2 (A + I) D^-1/2 H W), with A the edges in both directions. The graph is that of the whole batch: hand
    in features gathered over all processes.

    Shape: pooled (B, W), cells (B, P, W) or None -> ViewNodes.
    Raises: ShapeError if shapes do not fit; ConfigError for counts out of range.
    Reference: LVM-Med (Nguyen et al. 2023, arXiv 2306.11925), section 3.2.
    Deviation: a layer adds to its input, so that an image is not drowned in its neighbours when training begins; what
        all images of the batch share is taken off, for films are so alike that at first nothing else would count.
    """

    def __init__(self, width: int, *, dim: int = 128, hidden: int = 512, neighbours: int = 5, layers: int = 1) -> None:
        super().__init__()
        if min(width, dim, hidden, neighbours) < 1 or layers < 0:
            raise ConfigError(
                f"expected widths and neighbours of at least 1 and layers of at least 0, got {width}, {dim}, {hidden}, "
                f"{neighbours} and {layers}"
            )
        self.neighbours = neighbours
        self.project = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, dim))
        self.messages = nn.ModuleList(nn.Linear(dim, dim, bias=False) for _ in range(layers))

    def forward(self, pooled: Tensor, cells: Tensor | None = None) -> ViewNodes:
        if pooled.ndim != 2 or (cells is not None and (cells.ndim != 3 or len(cells) != len(pooled))):
            shape = None if cells is None else tuple(cells.shape)
            raise ShapeError(f"expected features (B, W) and cells (B, P, W), got {tuple(pooled.shape)} and {shape}")
        emb = F.normalize(_centred(self.project(pooled).float()), dim=1)
        neighbours = nearest_neighbours(emb, self.neighbours)
        spread = _normalised(neighbours)
        for layer in self.messages:
            emb = emb + torch.relu(layer(spread @ emb)).float()
        projected = None if cells is None else F.normalize(_centred(self.project(cells).float()), dim=2)
        return ViewNodes(F.normalize(emb, dim=1), neighbours, projected)


def _centred(values: Tensor) -> Tensor:
    """Less their mean over the batch (and over places)."""
    return values - values.flatten(0, -2).mean(dim=0)


def nearest_neighbours(emb: Tensor, k: int) -> Tensor:
    """Rows of the `k` largest cosines with each row, itself left out: (B, min(k, B - 1)) int64, nearest first."""
    with torch.no_grad():
        unit = F.normalize(emb.float(), dim=1)
        cosines = (unit @ unit.T).fill_diagonal_(-torch.inf)
        return cosines.topk(max(0, min(k, len(emb) - 1)), dim=1).indices


def _normalised(neighbours: Tensor) -> Tensor:
    """D^-1/2 (A + I) D^-1/2 of the edges in both directions, float32 (B, B)."""
    rows = len(neighbours)
    linked = torch.eye(rows, device=neighbours.device).scatter_(1, neighbours, 1.0)
    linked = torch.maximum(linked, linked.T)
    root = linked.sum(dim=1).rsqrt()
    return root[:, None] * linked * root[None, :]
