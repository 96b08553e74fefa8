"""A graph's relations as integers, and their split into parts that do not tell of each other."""

from __future__ import annotations

from array import array as packed
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kvlp.errors import ConfigError, KnowledgeError
from kvlp.knowledge.graph import KnowledgeGraph

if TYPE_CHECKING:
    from kvlp.typing import IntArray

__all__ = ["Triples", "split_triples", "triples_of"]


@dataclass(frozen=True)
class Triples:
    """Statements head, type, tail as row numbers.

    Attributes:
        array: (T, 3) int64: row of the head among the graph's concepts, number of the type, row of the tail.
        types: names of the R relation types, sorted.
        entities: how many concepts the graph has.
    """

    array: IntArray
    types: tuple[str, ...]
    entities: int

    def __len__(self) -> int:
        return len(self.array)

    def with_array(self, array: IntArray) -> Triples:
        """Return other statements over the same concepts and types."""
        return Triples(np.asarray(array, dtype=np.int64).reshape(-1, 3), self.types, self.entities)

    def with_shuffled_tails(self, seed: int) -> Triples:
        """Return the control: within each relation type the tails are handed round at random.

        Heads and tails of a type stay the same, with how often each comes; who belongs to whom is lost.
        """
        rng = np.random.default_rng([seed, 41])
        array = self.array.copy()
        for number in range(len(self.types)):
            rows = np.flatnonzero(array[:, 1] == number)
            array[rows, 2] = array[rng.permutation(rows), 2]
        return self.with_array(array)


def triples_of(graph: KnowledgeGraph, *, relation_types: bool = True) -> Triples:
    """Return the relations between concepts of the graph, each once; ones with a dangling end are left out.

    Args:
        graph: any graph.
        relation_types: False makes all relations one type, "related".

    Raises:
        KnowledgeError: the graph has no relation.
    """
    row = {concept.id: i for i, concept in enumerate(graph.concepts)}
    number: dict[str, int] = {}
    flat = packed("q")  # integers side by side: a full UMLS has tens of millions of relations
    for relation in graph.relations:
        head, tail = row.get(relation.head), row.get(relation.tail)
        if head is not None and tail is not None:
            kind = number.setdefault(relation.type if relation_types else "related", len(number))
            flat.extend((head, kind, tail))
    if not flat:
        raise KnowledgeError(
            f"graph '{graph.name}' has no relations to learn vectors from; use method='text', which reads names"
        )
    found = np.array(flat, dtype=np.int64).reshape(-1, 3)
    types = tuple(sorted(number))
    place = np.argsort([number[kind] for kind in types])  # place[number as met] = number by name
    found[:, 1] = place[found[:, 1]]
    return Triples(np.unique(found, axis=0), types, len(row))


def split_triples(triples: Triples, share: float, seed: int) -> tuple[IntArray, IntArray]:
    """Choose which statements are held out.

    All statements between the same two concepts, in either direction, go to one side: an inverse, a symmetric twin or
    a second relation of the pair would tell what is held out. Every concept and every relation type that the
    statements know keeps at least one on the training side.

    Args:
        triples: the statements.
        share: how much to hold out, above 0 and below 1; less is held out where the graph is too thin.
        seed: of the order in which pairs are tried.

    Returns:
        Row numbers of the training statements and of the held-out ones, each sorted.

    Raises:
        ConfigError: a share that is no share; KnowledgeError: nothing can be held out.
    """
    if not 0 < share < 1:
        raise ConfigError(f"holdout: expected a share above 0 and below 1, got {share}")
    array = triples.array
    pair = np.sort(array[:, [0, 2]], axis=1)
    _, group = np.unique(pair, axis=0, return_inverse=True)
    order = np.argsort(group.reshape(-1), kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(group.reshape(-1)[order])) + 1)
    left_at = np.bincount(array[:, [0, 2]].reshape(-1), minlength=triples.entities)
    left_of = np.bincount(array[:, 1], minlength=len(triples.types))
    wanted = round(share * len(array))
    held: list[int] = []
    for number in np.random.default_rng([seed, 17]).permutation(len(members)):
        rows = members[number]
        if len(held) >= wanted:
            break
        ends, at = np.unique(array[rows][:, [0, 2]], return_counts=True)
        kinds, of = np.unique(array[rows, 1], return_counts=True)
        if len(held) + len(rows) <= wanted and (left_at[ends] > at).all() and (left_of[kinds] > of).all():
            left_at[ends] -= at
            left_of[kinds] -= of
            held += rows.tolist()
    if not held:
        raise KnowledgeError(
            f"expected a graph from which a share of {share} can be held out while every concept keeps a relation; "
            f"it has {len(array)} relations between {int((left_at > 0).sum())} concepts; leave the evaluation out"
        )
    out = np.sort(np.array(held, dtype=np.int64))
    return np.setdiff1d(np.arange(len(array)), out), out
