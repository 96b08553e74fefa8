"""The query network: any text asks, the places of an image answer, and the answer is true, false or uncertain."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn

from kvlp.errors import ShapeError
from kvlp.models.plain_attention import PlainAttention

__all__ = ["FALSE", "TRUE", "UNCERTAIN_STATE", "QueryNetwork"]

#: Columns of the logits: what the query says is false of the image, true, or uncertain.
FALSE, TRUE, UNCERTAIN_STATE = 0, 1, 2


class QueryNetwork(nn.Module):
    """Queries look at memory tokens through layers of cross-attention; each ends in logits of what it says.

    A query is the embedding of any text, so that classes are open; memory is the places of an image, or a report's
    embedding as the only token. Queries do not see each other (unless `mix_queries`): the answer to one does not depend
    on what else is asked.

    Shape: queries (C, D), memory (B, T, D), asked (B, C) bool or None for all -> logits (B, C, S), S = `states`: false,
        true and, if 3, uncertain. Pairs that are not asked get zeros, and are not computed unless `mix_queries`.
    Raises: ShapeError if the shapes do not fit.
    Reference: KAD (Zhang et al. 2023, Nature Communications 14:4542), the disease query network.
    Deviation: norms on what comes in; a third state; queries that do not attend to each other.
    """

    def __init__(
        self,
        dim: int,
        *,
        layers: int = 4,
        heads: int = 4,
        ffn: int = 1024,
        dropout: float = 0.1,
        states: int = 3,
        mix_queries: bool = False,
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ShapeError(f"query network: expected a width that {heads} heads divide, got {dim}")
        self.settings: dict[str, Any] = {
            "dim": dim, "layers": layers, "heads": heads, "ffn": ffn, "dropout": dropout, "states": states,
            "mix_queries": mix_queries,
        }  # fmt: skip
        self.dim = dim
        self.query_norm, self.memory_norm, self.last_norm = (nn.LayerNorm(dim) for _ in range(3))
        self.layers = nn.ModuleList(_Layer(dim, heads, ffn, dropout, mix_queries=mix_queries) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(dim, states)

    def forward(self, queries: Tensor, memory: Tensor, asked: Tensor | None = None) -> Tensor:
        if asked is not None and asked.shape != (len(memory), len(queries)):
            raise ShapeError(
                f"query network: expected asked of shape ({len(memory)}, {len(queries)}), got {tuple(asked.shape)}"
            )
        some = None if asked is None or self.settings["mix_queries"] else _Pairs.of(asked)
        answers = self._looked(queries, memory, some)[0]
        logits: Tensor = self.head(self.dropout(answers))
        if asked is None:
            return logits
        if some is None:
            return logits.masked_fill(~asked[:, :, None], 0)
        return logits.new_zeros((*asked.shape, logits.shape[1])).masked_scatter(asked[:, :, None], logits)

    def attention(self, queries: Tensor, memory: Tensor) -> Tensor:
        """Where the last layer looks: (B, C, T), mean over its heads; each row sums to 1."""
        weights = self._looked(queries, memory, weights=True)[1]
        assert weights is not None
        return weights

    def _looked(
        self, queries: Tensor, memory: Tensor, some: _Pairs | None = None, *, weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """What each pair has seen, (B, C, D) or, of `some` pairs, (P, D)."""
        if queries.ndim != 2 or memory.ndim != 3 or queries.shape[1] != self.dim or memory.shape[2] != self.dim:
            raise ShapeError(
                f"query network: expected queries (C, {self.dim}) and memory (B, T, {self.dim}), "
                f"got {tuple(queries.shape)} and {tuple(memory.shape)}"
            )
        x = self.query_norm(queries)
        x = x[None].expand(len(memory), -1, -1) if some is None else x.index_select(0, some.query)
        seen, looked = self.memory_norm(memory), None
        for layer in self.layers:
            x, looked = layer(x, seen, some, weights=weights)
        return self.last_norm(x), looked


class _Pairs(NamedTuple):
    """P pairs of an image and a query, image by image: the query of each, and where it stands among (B, most) rows."""

    query: Tensor
    place: Tensor
    images: int
    most: int

    @classmethod
    def of(cls, asked: Tensor) -> _Pairs:
        """The pairs that are True in (B, C)."""
        image, query = asked.nonzero(as_tuple=True)
        most = int(asked.sum(dim=1).max()) if len(query) else 1
        place = image * most + asked.cumsum(dim=1)[image, query] - 1
        return cls(query, place, len(asked), most)

    def apart(self, x: Tensor) -> Tensor:
        """(P, D) -> (B, most, D), with zeros where an image has fewer."""
        rows = x.new_zeros(self.images * self.most, x.shape[1])
        return rows.index_copy(0, self.place, x).unflatten(0, (self.images, self.most))

    def together(self, x: Tensor) -> Tensor:
        """(B, most, D) -> (P, D)."""
        return x.flatten(0, 1).index_select(0, self.place)


class _Layer(nn.Module):
    """Norm first: (queries among each other,) queries to memory, a network of two layers."""

    def __init__(self, dim: int, heads: int, ffn: int, dropout: float, *, mix_queries: bool) -> None:
        super().__init__()
        self.mix = PlainAttention(dim, heads, dropout=dropout, batch_first=True) if mix_queries else None
        self.mix_norm = nn.LayerNorm(dim) if mix_queries else None
        self.look = PlainAttention(dim, heads, dropout=dropout, batch_first=True)
        self.look_norm, self.ffn_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.ffn = nn.Sequential(nn.Linear(dim, ffn), nn.ReLU(), nn.Dropout(dropout), nn.Linear(ffn, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, memory: Tensor, some: _Pairs | None = None, *, weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        if self.mix is not None and self.mix_norm is not None:
            y = self.mix_norm(x)
            x = x + self.dropout(self.mix(y, y, y, need_weights=False)[0])
        y = self.look_norm(x)
        y, looked = self.look(y if some is None else some.apart(y), memory, memory, need_weights=weights)
        x = x + self.dropout(y if some is None else some.together(y))
        return x + self.dropout(self.ffn(self.ffn_norm(x))), looked
