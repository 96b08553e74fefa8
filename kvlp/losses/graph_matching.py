"""Second-order graph matching of two views of a batch: images alone, no text."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from kvlp.errors import ConfigError, ShapeError
from kvlp.losses.assignment import match_graphs, matched_edges
from kvlp.losses.output import LossOutput, check_same_width

__all__ = ["GraphMatchingLoss", "gumbel_noise", "local_affinity"]

#: a difference shorter than this, of nearly equal vertices, counts in proportion: its direction is noise
SHORT = 0.05
#: images of the first view whose cells are compared at a time
ROWS = 16


class GraphMatchingLoss(nn.Module):
    """Match the views of a batch one to one by what they are and by how they lie to each other; count what goes wrong.

    Each view is a graph: its images, with an edge to each one's nearest neighbours. A matching gains the affinity of
    every vertex with its partner and of every edge that it lays on an edge: cosines of vertices (with `local`, a share
    `alpha` of them), and cosines of differences of vertices times `edge_weight` / k. It is found for affinities with
    noise added; the loss is the Hamming distance of its matrix to the identity over B: twice the share of images that
    do not find their other view.

    A matching has no gradient. It is estimated by implicit maximum likelihood: a second matching is sought after the
    right pairs have gained 2 * `strength`; what the two have in common cancels, and the rest says which affinities,
    edges included, to raise and to lower. Averaged over the noise, this tends to the gradient of the expected loss as
    `strength` tends to 0; a larger one looks further. Without noise a batch that is matched right has no gradient.

    Shape: first_emb and second_emb (B, D) of any length, row i of both of the same image; first_neighbours and
        second_neighbours (B, k) int64, rows that row i has an edge to; noise (B, B), see `gumbel_noise`, or None; local
        (B, B) in [-1, 1], see `local_affinity`, or None -> scalar in float32, in [0, 2]. Matchings are computed on the
        processor. Parts: `matched`, the share of right pairs, and `edges`, the share of edges laid on an edge.
    Raises: ShapeError if shapes do not fit; ConfigError for settings out of range; MissingExtraError without SciPy.
    Reference: LVM-Med (Nguyen et al. 2023, arXiv 2306.11925), section 3; Niepert et al. 2021 for the estimate.
    Deviation: the solver is a Frank-Wolfe iteration, not one by Lagrange decomposition; the noise is on the vertices,
        scaled by `temperature` (published: on all affinities, unscaled); both directions of the local affinity are
        averaged, not added; edges weigh 1 / k (published: 1), so that they do not drown the vertices.
    """

    def __init__(
        self,
        *,
        alpha: float = 0.8,
        edge_weight: float = 1.0,
        temperature: float = 0.02,
        strength: float = 0.5,
    ) -> None:
        super().__init__()
        if not 0 <= alpha <= 1 or min(edge_weight, temperature) < 0 or strength <= 0:
            raise ConfigError(
                f"expected alpha in [0, 1], edge_weight and temperature of at least 0 and a positive strength, got "
                f"{alpha:g}, {edge_weight:g}, {temperature:g} and {strength:g}"
            )
        self.alpha = alpha
        self.edge_weight = edge_weight
        self.temperature = temperature
        self.strength = strength

    def forward(
        self,
        first_emb: Tensor,
        second_emb: Tensor,
        first_neighbours: Tensor,
        second_neighbours: Tensor,
        noise: Tensor | None = None,
        local: Tensor | None = None,
    ) -> LossOutput:
        vertex, edge = self.affinities(first_emb, second_emb, first_neighbours, second_neighbours, local)
        drawn = torch.zeros_like(vertex) if noise is None else self.temperature * noise.float()
        if drawn.shape != vertex.shape:
            raise ShapeError(f"expected noise of shape {tuple(vertex.shape)}, got {tuple(drawn.shape)}")
        total, matched, kept = _Matching.apply(vertex, edge, first_neighbours, second_neighbours, drawn, self.strength)
        return LossOutput(total, {"matched": matched, "edges": kept})

    def affinities(
        self,
        first_emb: Tensor,
        second_emb: Tensor,
        first_neighbours: Tensor,
        second_neighbours: Tensor,
        local: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Affinities of vertices (B, B) and of edges (B * k, B * l), in float32; these have a true gradient."""
        check_same_width(first_emb=first_emb, second_emb=second_emb)
        rows = len(first_emb)
        shapes = [tuple(n.shape) for n in (first_neighbours, second_neighbours)]
        if len(second_emb) != rows or any(len(shape) != 2 or shape[0] != rows for shape in shapes):
            raise ShapeError(f"expected two views of {rows} images and neighbours ({rows}, k), got {shapes}")
        if local is not None and local.shape != (rows, rows):
            raise ShapeError(f"expected a local affinity of shape ({rows}, {rows}), got {tuple(local.shape)}")
        first, second = F.normalize(first_emb.float(), dim=1), F.normalize(second_emb.float(), dim=1)
        vertex = first @ second.T
        if local is not None:
            vertex = self.alpha * vertex + (1 - self.alpha) * local.float()
        edges = (_directions(first, first_neighbours), _directions(second, second_neighbours))
        most = max(first_neighbours.shape[1], second_neighbours.shape[1], 1)
        return vertex, self.edge_weight / most * edges[0] @ edges[1].T


def _directions(emb: Tensor, neighbours: Tensor) -> Tensor:
    """Unit vectors (B * k, D) from each row's neighbours to itself."""
    return F.normalize((emb[:, None] - emb[neighbours]).flatten(0, 1), dim=1, eps=SHORT)


class _Matching(torch.autograd.Function):
    """Hamming distance of a perturbed matching to the identity, and its estimated gradient."""

    @staticmethod
    def forward(
        ctx: Any, vertex: Tensor, edge: Tensor, first: Tensor, second: Tensor, noise: Tensor, strength: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        gains, links, near, far = ((value.detach().cpu().numpy()) for value in (vertex + noise, edge, first, second))
        rows = len(gains)
        found = match_graphs(gains, links, near, far)
        better = match_graphs(
            gains + 2 * strength * np.eye(rows, dtype=gains.dtype), links, near, far, start=found.partner
        )
        by_vertex, by_edge = torch.zeros_like(vertex), torch.zeros_like(edge)
        kept = 0
        for partner, sign in ((found.partner, 1.0), (better.partner, -1.0)):
            by_vertex[torch.arange(rows), torch.from_numpy(partner)] += sign / (strength * rows)
            heads, ends = (torch.from_numpy(index) for index in matched_edges(partner, near, far))
            by_edge[heads, ends] += sign / (strength * rows)
            kept = len(heads) if sign > 0 else kept
        ctx.save_for_backward(by_vertex, by_edge)
        right = float((found.partner == np.arange(rows)).mean())
        shares = vertex.new_tensor([2 * (1 - right), right, kept / max(near.size, 1)])
        total, matched, edges = shares.unbind()
        ctx.mark_non_differentiable(matched, edges)
        return total, matched, edges

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        by_vertex, by_edge = ctx.saved_tensors
        return outer[0] * by_vertex, outer[0] * by_edge, None, None, None, None


def gumbel_noise(rows: int, generator: torch.Generator) -> Tensor:
    """Standard Gumbel noise (rows, rows) in float32, on the processor; equal seeds draw the same."""
    uniform = torch.rand(rows, rows, generator=generator).clamp_(1e-7, 1 - 1e-7)
    return -(-uniform.log()).log()


def local_affinity(first: Tensor, second: Tensor, first_place: Tensor, second_place: Tensor) -> Tensor:
    """How alike the places of two images are, for every pair of images of two views.

    A cell is compared with the cell of the other view that lies nearest to it, and with the one most like it; the mean
    of both cosines, over all cells and both directions.

    Args:
        first: (B, P, D) cells of the first view, of any length.
        second: (C, Q, D) cells of the second.
        first_place: (B, P, 2) where each cell lies in its image before it was cropped.
        second_place: (C, Q, 2) likewise.

    Returns:
        (B, C) float32 in [-1, 1]. Memory grows with 16 * P * C * Q.

    Raises:
        ShapeError: shapes that do not fit.
    """
    for cells, place in ((first, first_place), (second, second_place)):
        if cells.ndim != 3 or cells.shape[2] != first.shape[2] or place.shape != (*cells.shape[:2], 2):
            raise ShapeError(
                f"expected cells (B, P, D) of one width D and places (B, P, 2), got {tuple(cells.shape)} and "
                f"{tuple(place.shape)}"
            )
    ours, theirs = F.normalize(first.float(), dim=2), F.normalize(second.float(), dim=2)
    pieces = [
        checkpoint(_local, a, theirs, b.float(), second_place.float(), use_reentrant=False, preserve_rng_state=False)
        for a, b in zip(ours.split(ROWS), first_place.split(ROWS), strict=True)
    ]
    return torch.cat(pieces) if pieces else ours.new_zeros(0, len(theirs))


def _local(first: Tensor, second: Tensor, first_place: Tensor, second_place: Tensor) -> Tensor:
    cosines = torch.einsum("bpd,cqd->bcpq", first, second)
    with torch.no_grad():
        apart = torch.cdist(first_place.flatten(0, 1), second_place.flatten(0, 1))
        apart = apart.view(*first.shape[:2], *second.shape[:2]).transpose(1, 2)  # (b, c, p, q)
    sides = []
    for axis in (2, 3):
        nearest = apart.argmin(dim=axis, keepdim=True)
        sides += [cosines.gather(axis, nearest).mean(dim=(2, 3)), cosines.amax(dim=axis).mean(dim=2)]
    return torch.stack(sides).mean(dim=0)
