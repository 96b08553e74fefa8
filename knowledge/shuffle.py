"""The control graph: the same names, but synonyms, definitions, descriptions and relations of other concepts.

A model that gains as much from this graph as from the true one has not used the knowledge in it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace

from kvlp.knowledge.graph import Concept, KnowledgeGraph, Relation

__all__ = ["shuffled"]


def shuffled(graph: KnowledgeGraph, seed: int, *, synonyms: bool = True, relations: bool = True) -> KnowledgeGraph:
    """Exchange what is known of concepts among those of the same (first) semantic type; ids and names stay.

    Definition and descriptions move together, synonyms with them if `synonyms`. Relations are moved by a second,
    independent exchange of both ends, so that is_a stays free of cycles. No concept keeps its own knowledge, unless
    it is the only one of its type. A pure function of the graph and `seed`.
    """
    rng = random.Random(f"kvlp-shuffled-{seed}")
    giver = _exchange(graph.concepts, rng)
    concepts = [_with_knowledge_of(c, graph[giver[c.id]], synonyms=synonyms) for c in graph.concepts]
    edges = list(graph.relations)
    if relations:
        moved = _exchange(graph.concepts, rng)
        edges = [
            Relation(moved.get(r.head, r.head), r.type, moved.get(r.tail, r.tail), r.source) for r in graph.relations
        ]
    version = f"{graph.version}+shuffled.{seed}"
    return KnowledgeGraph(concepts, edges, name=f"{graph.name}-shuffled", version=version, licence=graph.licence)


def _exchange(concepts: Iterable[Concept], rng: random.Random) -> dict[str, str]:
    groups: dict[str, list[str]] = {}
    for concept in sorted(concepts, key=lambda c: c.id):
        groups.setdefault(concept.semantic_types[0] if concept.semantic_types else "", []).append(concept.id)
    mapping: dict[str, str] = {}
    for ids in groups.values():
        mapping.update(zip(ids, _one_cycle(ids, rng), strict=True))
    return mapping


def _one_cycle(ids: list[str], rng: random.Random) -> list[str]:
    """Sattolo's algorithm: a random permutation that is a single cycle, hence without fixed points."""
    order = list(ids)
    for i in range(len(order) - 1, 0, -1):
        j = rng.randrange(i)
        order[i], order[j] = order[j], order[i]
    return order


def _with_knowledge_of(concept: Concept, giver: Concept, *, synonyms: bool) -> Concept:
    return replace(
        concept,
        synonyms=giver.synonyms if synonyms else concept.synonyms,
        definition=giver.definition,
        descriptions=giver.descriptions,
    )
