"""Trains the graph attention network: what is hidden of the graph must be told from the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kvlp.knowledge.embedding.gat import ConceptGat, edges_of
from kvlp.knowledge.embedding.ranking import VectorScorer

if TYPE_CHECKING:
    from kvlp.knowledge.embedding.fit import Step
    from kvlp.knowledge.embedding.triples import Triples
    from kvlp.typing import FloatArray

__all__ = ["LinkGat", "fit_gat"]

#: Share of the statements that a step hides from the network and asks for.
HIDDEN = 0.3
#: At most so many statements are asked for in a step, and so many other concepts stand beside the true ends.
ASKED, CANDIDATES = 4096, 4096
WEIGHT_DECAY = 1e-3


class LinkGat(nn.Module):
    """Nodes, the network and a vector for each direction of each relation (DistMult's score).

    score(head, relation, tail) = sum of out_head * relation * out_tail; a relation read from tail to head has another
    vector, so that direction is not lost.
    """

    def __init__(self, nodes: Tensor, types: int, *, relation_types: bool) -> None:
        super().__init__()
        dim = nodes.shape[1]
        self.types = types
        self.nodes = nn.Parameter(nodes.clone())
        self.gat = ConceptGat(dim, kinds=2 * types + 1 if relation_types else 0)
        self.relations = nn.Parameter(torch.ones(2, types, dim) + 0.1 * torch.randn(2, types, dim))

    def forward(self, told: Tensor) -> Tensor:
        """Vectors (N, D) of all concepts, given the statements (T, 3) that may be read."""
        return self.gat(self.nodes, *edges_of(told, len(self.nodes), self.types))

    def loss(self, told: Tensor, asked: Tensor) -> Tensor:
        """Cross-entropy of the true tail and the true head of each asked statement among candidates."""
        out = self(told)
        head, kind, tail = asked.unbind(dim=1)
        total = out.new_zeros(())
        for side, given, target in ((0, head, tail), (1, tail, head)):
            candidates, place = _candidates(target, len(out))
            logits = (out[given] * self.relations[side][kind]) @ out[candidates].T
            total = total + F.cross_entropy(logits, place)
        return total / 2


def fit_gat(triples: Triples, start: FloatArray, settings: Mapping[str, Any], step: Step) -> VectorScorer:
    """Train on `triples` from the node vectors `start` (N, D); the vectors are those of the whole training graph.

    The caller has seeded torch.
    """
    model = LinkGat(torch.from_numpy(start), len(triples.types), relation_types=settings["relation_types"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings["lr"], weight_decay=WEIGHT_DECAY)
    array = torch.from_numpy(triples.array)
    asked = max(1, min(ASKED, round(HIDDEN * len(array))))
    model.train()
    for epoch in range(settings["epochs"]):
        order = torch.randperm(len(array))
        loss = model.loss(array[order[asked:]], array[order[:asked]])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        step(epoch + 1, settings["epochs"], float(loss.detach()))
    model.eval()
    with torch.no_grad():
        vectors = model(array)
    return VectorScorer(vectors.numpy(), model.relations.detach().numpy(), "multiply", "dot")


def _candidates(target: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
    """The true ends and random others, and where each true end stands among them; all concepts if they are few."""
    if nodes <= CANDIDATES:
        return torch.arange(nodes), target
    candidates, place = torch.unique(torch.cat([target, torch.randint(nodes, (CANDIDATES,))]), return_inverse=True)
    return candidates, place[: len(target)]
