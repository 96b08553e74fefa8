"""A two-layer graph attention network over concepts that may know relation types. Plain torch; imported when used."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["ConceptGat", "GatLayer", "edge_softmax", "edges_of"]


def edges_of(array: Tensor, entities: int, types: int) -> tuple[Tensor, Tensor, Tensor]:
    """Make message edges of statements: each forwards and backwards, and one from each concept to itself.

    Args:
        array: (T, 3) head, type, tail.
        entities: number N of concepts.
        types: number R of relation types.

    Returns:
        source (E,), target (E,) and kind (E,) of E = 2T + N edges; kinds: 0..R-1 forwards, R..2R-1 backwards, 2R self.
    """
    head, kind, tail = array.unbind(dim=1)
    self_loop = torch.arange(entities, device=array.device)
    source = torch.cat([head, tail, self_loop])
    target = torch.cat([tail, head, self_loop])
    return source, target, torch.cat([kind, kind + types, torch.full_like(self_loop, 2 * types)])


def edge_softmax(logits: Tensor, target: Tensor, nodes: int) -> Tensor:
    """Softmax over the edges that enter the same node: logits (E, H), target (E,) -> (E, H)."""
    index = target[:, None].expand_as(logits)
    empty = logits.new_full((nodes, logits.shape[1]), -torch.inf)
    top = empty.scatter_reduce(0, index, logits.detach(), reduce="amax")  # a shift alone: it needs no gradient
    weight = (logits - top[target]).exp()
    total = torch.zeros_like(empty).index_add(0, target, weight)
    return weight / total[target]


class GatLayer(nn.Module):
    """One attention layer: a node becomes the weighted mean of what its neighbours tell.

    e = LeakyReLU_0.2(a_s . W h_s + a_t . W h_t [+ a_r . r]), weights = softmax of e over the edges into t,
    out_t = sum over edges of weight (W h_s [+ r]) + bias; the parts in brackets, with a learned vector r for each kind
    of edge and head, only if `kinds` > 0.

    Shape: nodes (N, D_in), source (E,), target (E,), kind (E,) -> (N, heads * D_out).
    Reference: Velickovic et al. 2018; the parts in brackets are ours.
    """

    def __init__(self, dim_in: int, dim_out: int, heads: int, kinds: int = 0) -> None:
        super().__init__()
        self.heads, self.dim_out = heads, dim_out
        self.weight = nn.Parameter(torch.empty(dim_in, heads * dim_out))
        self.from_source = nn.Parameter(torch.empty(heads, dim_out))
        self.from_target = nn.Parameter(torch.empty(heads, dim_out))
        self.bias = nn.Parameter(torch.zeros(heads * dim_out))
        self.relation = nn.Parameter(torch.empty(kinds, heads, dim_out)) if kinds else None
        self.from_relation = nn.Parameter(torch.empty(heads, dim_out)) if kinds else None
        for parameter in (self.weight, self.from_source, self.from_target, self.from_relation):
            if parameter is not None:
                nn.init.xavier_uniform_(parameter)
        if self.relation is not None:
            nn.init.normal_(self.relation, std=0.1)

    def forward(self, nodes: Tensor, source: Tensor, target: Tensor, kind: Tensor) -> Tensor:
        hidden = (nodes @ self.weight).view(-1, self.heads, self.dim_out)  # (N, H, O)
        told = hidden[source]  # (E, H, O)
        logits = (hidden * self.from_source).sum(-1)[source] + (hidden * self.from_target).sum(-1)[target]  # (E, H)
        if self.relation is not None and self.from_relation is not None:
            relation = self.relation[kind]
            told = told + relation
            logits = logits + (relation * self.from_relation).sum(-1)
        weight = edge_softmax(F.leaky_relu(logits, 0.2), target, len(nodes))
        heard = torch.zeros_like(hidden).index_add(0, target, weight[..., None] * told)
        return heard.flatten(1) + self.bias


class ConceptGat(nn.Module):
    """The graph encoder of ARL: norm, dropout, 8 heads of D/4, ELU, dropout, one head of D.

    Shape: nodes (N, D), source (E,), target (E,), kind (E,) -> (N, D).
    Reference: Chen et al. 2022 (ARL), whose GAT has D = 256 and knows no relation types: kinds=0.
    """

    def __init__(self, dim: int, *, kinds: int = 0, heads: int = 8, dropout: float = 0.2) -> None:
        super().__init__()
        inner = max(1, dim // 4)
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        self.first = GatLayer(dim, inner, heads, kinds)
        self.second = GatLayer(heads * inner, dim, 1, kinds)

    def forward(self, nodes: Tensor, source: Tensor, target: Tensor, kind: Tensor) -> Tensor:
        hidden = F.elu(self.first(self.dropout(self.norm(nodes)), source, target, kind))
        return self.second(self.dropout(hidden), source, target, kind)
