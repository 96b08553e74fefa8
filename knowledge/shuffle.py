"""The control graph: the same names, but synonyms, definitions, descriptions and relations of other concepts.

A model that gains as much from this graph as from the true one has not used the knowledge in it.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kvlp.knowledge.graph import Concept, KnowledgeGraph, Relation
from kvlp.knowledge.store import MemoryStore

if TYPE_CHECKING:
    from kvlp.knowledge.table_store import TableStore

__all__ = ["shuffled"]


def shuffled(graph: KnowledgeGraph, seed: int, *, synonyms: bool = True, relations: bool = True) -> KnowledgeGraph:
    """Exchange what is known of concepts among those of the same (first) semantic type; ids and names stay.

    Definition and descriptions move together, synonyms with them if `synonyms`. Relations are moved by a second,
    independent exchange of both ends, so that is_a stays free of cycles. No concept keeps its own knowledge, unless
    it is the only one of its type. A pure function of the graph and `seed`.
    """
    rng = random.Random(f"kvlp-shuffled-{seed}")
    ids, types = _ids_and_types(graph)
    giver = _exchange(ids, types, rng)
    moved = _exchange(ids, types, rng) if relations else None
    version = f"{graph.version}+shuffled.{seed}"
    about: dict[str, Any] = {"name": f"{graph.name}-shuffled", "version": version, "licence": graph.licence}
    if not isinstance(graph.store, MemoryStore):
        from kvlp.knowledge.table_store import TableStore

        if isinstance(graph.store, TableStore):
            store = _shuffled_tables(graph.store, giver, moved, synonyms=synonyms)
            return KnowledgeGraph.of_store(store, **about)
    concepts = graph.concepts
    changed = [_with_knowledge_of(c, concepts[g], synonyms=synonyms) for c, g in zip(concepts, giver, strict=True)]
    return KnowledgeGraph(changed, _moved(graph, ids, moved), **about)


def _ids_and_types(graph: KnowledgeGraph) -> tuple[list[str], list[str]]:
    """The id and the first semantic type of each concept."""
    pairs = [(c.id, c.semantic_types[0] if c.semantic_types else "") for c in graph.concepts]
    return [i for i, _ in pairs], [t for _, t in pairs]


def _exchange(ids: list[str], types: list[str], rng: random.Random) -> list[int]:
    """For each row, another row of its type."""
    groups: dict[str, list[int]] = {}
    for row in sorted(range(len(ids)), key=ids.__getitem__):
        groups.setdefault(types[row], []).append(row)
    other = list(range(len(ids)))
    for rows in groups.values():
        for row, taken in zip(rows, _one_cycle(rows, rng), strict=True):
            other[row] = taken
    return other


def _moved(graph: KnowledgeGraph, ids: list[str], moved: list[int] | None) -> list[Relation]:
    if moved is None:
        return list(graph.relations)
    to = {i: ids[row] for i, row in zip(ids, moved, strict=True)}
    return [Relation(to.get(r.head, r.head), r.type, to.get(r.tail, r.tail), r.source) for r in graph.relations]


def _shuffled_tables(store: TableStore, giver: list[int], moved: list[int] | None, *, synonyms: bool) -> TableStore:
    """The same for a graph that stays in its tables, column by column."""
    import numpy as np
    import pyarrow as pa

    from kvlp.knowledge.table_store import TableStore
    from kvlp.knowledge.tables import with_indexes

    concepts, relations = store.tables.batches["concepts"], store.tables.batches["relations"]
    taken = ("definition", "descriptions", *(("synonyms",) if synonyms else ()))
    rows = pa.array(giver, pa.int64())
    columns = {c: concepts.column(c).take(rows) if c in taken else concepts.column(c) for c in concepts.schema.names}
    ends = {c: relations.column(c) for c in relations.schema.names}
    if moved is not None:
        to = np.asarray(moved, np.int32)
        ends |= {"head": pa.array(to[store.heads]), "tail": pa.array(to[store.tails])}
    return TableStore(with_indexes(pa.record_batch(columns), pa.record_batch(ends)))


def _one_cycle(rows: list[int], rng: random.Random) -> list[int]:
    """Sattolo's algorithm: a random permutation that is a single cycle, hence without fixed points."""
    order = list(rows)
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
