"""Text pairs of KAD's first stage as they were published: names with definitions, and triples split in two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from kvlp.errors import KnowledgeError
from kvlp.knowledge.graph import KnowledgeGraph, Relation

if TYPE_CHECKING:
    from kvlp.typing import IntArray

__all__ = ["PublishedPairs", "mask_words"]

MASK = "[MASK]"


class PublishedPairs:
    """Definitions and triples of a graph, drawn in proportion to how many there are.

    A definition pairs with its concept's name; a triple is (head, relation) with tail or (relation, tail) with head,
    half of the time each. A pair is about the concept that its second text names.

    Raises:
        KnowledgeError: the graph has neither.
    """

    def __init__(self, graph: KnowledgeGraph) -> None:
        self.graph = graph
        self.number = {concept.id: i for i, concept in enumerate(graph.concepts)}
        self.defined = [concept for concept in graph.concepts if concept.definition]
        self.relations = [r for r in graph.relations if r.head in self.number and r.tail in self.number]
        if not self.defined and not self.relations:
            raise KnowledgeError(
                f"graph '{graph.name}': expected definitions or relations to make text pairs of, got none"
            )

    def sample(self, rng: np.random.Generator, count: int) -> tuple[list[str], list[str], IntArray]:
        """`count` pairs: first texts, second texts, and (count,) numbers of the concept that each pair is about."""
        pairs = []
        for index in rng.integers(len(self.defined) + len(self.relations), size=count):
            if index < len(self.defined):
                concept = self.defined[index]
                pairs.append((concept.name, concept.definition, self.number[concept.id]))
            else:
                pairs.append(self._halves(self.relations[index - len(self.defined)], whole_head=rng.random() < 0.5))
        first, second, about = zip(*pairs, strict=True)
        return list(first), list(second), np.array(about, dtype=np.int64)

    def _halves(self, relation: Relation, *, whole_head: bool) -> tuple[str, str, int]:
        head, tail = self.graph[relation.head].name, self.graph[relation.tail].name
        words = relation.type.replace("_", " ")
        if whole_head:
            return f"{head} {words}", tail, self.number[relation.tail]
        return f"{words} {tail}", head, self.number[relation.head]


def mask_words(texts: Sequence[str], share: float, rng: np.random.Generator) -> list[str]:
    """Copies of texts in which each word is hidden with the chance `share`."""
    return [" ".join(MASK if rng.random() < share else word for word in text.split()) for text in texts]
