"""Where a graph keeps its concepts and relations: `MemoryStore` in Python objects; table_store.py on disk.

A row is a concept's number, from 0, in the order of the graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol

from kvlp.errors import KnowledgeError
from kvlp.knowledge.surfaces import fold, near

if TYPE_CHECKING:
    from kvlp.knowledge.graph import Concept, Relation

__all__ = ["NUMBERS", "Direction", "MemoryStore", "Side", "Store", "fit"]

#: grammar of a concept's name: "a nodule" (count), "edema" (mass), "low lung volumes" (plural)
NUMBERS = ("count", "mass", "plural")
Side = Literal["out", "in"]
Direction = Literal["out", "in", "both"]


class Store(Protocol):
    """What KnowledgeGraph asks of its keeper."""

    @property
    def concepts(self) -> Sequence[Concept]:
        """All concepts, in the graph's order."""
        ...

    @property
    def relations(self) -> Sequence[Relation]:
        """All relations, in the graph's order."""
        ...

    def row(self, concept_id: str) -> int | None:
        """The row of an id."""
        ...

    def row_of_source_id(self, source_id: str) -> int | None:
        """The first row with this source id (upper case; "UMLS:" may be left out)."""
        ...

    def row_of_surface(self, folded: str) -> int | None:
        """The first row whose name folds to this, else whose synonym or id does."""
        ...

    def search(self, wanted: str, k: int) -> list[int]:
        """At most `k` rows by how a surface fits the folded words (see `fit`), best first; none where none fits."""
        ...

    def similar(self, wanted: str, n: int) -> list[int]:
        """Rows of at most `n` surfaces that look like a folded text, best first; a row may come twice."""
        ...

    def relations_at(self, row: int, side: Side, type: str | None) -> list[Relation]:
        """Relations that the concept heads ("out") or that point to it ("in")."""
        ...

    def closure(self, row: int, side: Side) -> set[str]:
        """Ids of all that is above ("out") or below ("in") by is_a, without the concept itself."""
        ...

    def linked(self, rows: set[int]) -> set[int]:
        """Rows that are one relation away from any of these, in any direction."""
        ...

    def content_hash(self) -> str:
        """sha256 (hex) of the content, whatever its order."""
        ...


@dataclass(slots=True)
class _Links:
    """Relations by their ends."""

    out: dict[str, list[Relation]] = field(default_factory=dict)
    into: dict[str, list[Relation]] = field(default_factory=dict)


class MemoryStore:
    """Concepts and relations as Python objects, for graphs that fit. Relations may have ends that are no concepts.

    Raises:
        KnowledgeError: a concept without id or name, an unknown `number`, or an id used twice.
    """

    def __init__(self, concepts: Iterable[Concept], relations: Iterable[Relation], name: str) -> None:
        self.concepts = tuple(concepts)
        self.relations = tuple(relations)
        self._row: dict[str, int] = {}
        for row, concept in enumerate(self.concepts):
            _require_usable(concept, row, name)
            if self._row.setdefault(concept.id, row) != row:
                raise KnowledgeError(f"graph '{name}': concept id '{concept.id}' is used twice; ids must be unique")

    def row(self, concept_id: str) -> int | None:
        """The row of an id."""
        return self._row.get(concept_id)

    def row_of_source_id(self, source_id: str) -> int | None:
        """The first row with this source id."""
        return self._by_source_id.get(source_id)

    def row_of_surface(self, folded: str) -> int | None:
        """The first row whose name folds to this, else whose synonym or id does."""
        return self._by_surface.get(folded)

    def search(self, wanted: str, k: int) -> list[int]:
        """Compare with every surface."""
        best: dict[int, float] = {}
        for surface, row in self._surfaces:
            score = fit(wanted, surface)
            if score > best.get(row, 0.0):
                best[row] = score
        return sorted(best, key=lambda row: (-best[row], row))[:k]

    def similar(self, wanted: str, n: int) -> list[int]:
        """Compare with every surface by its letters."""
        return [self._by_surface[s] for s in near(wanted, self._by_surface, n=n)]

    def relations_at(self, row: int, side: Side, type: str | None) -> list[Relation]:
        """Relations at a concept."""
        ends = self._links.out if side == "out" else self._links.into
        return [r for r in ends.get(self.concepts[row].id, ()) if type is None or r.type == type]

    def closure(self, row: int, side: Side) -> set[str]:
        """Go up or down by is_a until nothing new comes."""
        start = self.concepts[row].id
        seen, todo = {start}, [start]
        while todo:
            at = self._row[todo.pop()]
            ends = (r.tail if side == "out" else r.head for r in self.relations_at(at, side, "is_a"))
            fresh = {i for i in ends if i in self._row} - seen
            seen |= fresh
            todo += fresh
        return seen - {start}

    def linked(self, rows: set[int]) -> set[int]:
        """Rows one relation away."""
        found: set[int] = set()
        for row in rows:
            ends = [r.tail for r in self.relations_at(row, "out", None)]
            ends += [r.head for r in self.relations_at(row, "in", None)]
            found.update(self._row[i] for i in ends if i in self._row)
        return found

    def content_hash(self) -> str:
        """sha256 of the content."""
        from kvlp.knowledge.content import hash_of_objects

        return hash_of_objects(self.concepts, self.relations)

    @cached_property
    def _surfaces(self) -> list[tuple[str, int]]:
        return [(fold(s), row) for row, c in enumerate(self.concepts) for s in (*c.surfaces, c.id)]

    @cached_property
    def _by_surface(self) -> dict[str, int]:
        rows: dict[str, int] = {}
        for row, concept in enumerate(self.concepts):
            rows.setdefault(fold(concept.name), row)
        for surface, row in self._surfaces:
            rows.setdefault(surface, row)
        return rows

    @cached_property
    def _by_source_id(self) -> dict[str, int]:
        rows: dict[str, int] = {}
        for row, concept in enumerate(self.concepts):
            for source_id in concept.source_ids:
                rows.setdefault(source_id.upper(), row)
                if source_id.upper().startswith("UMLS:"):
                    rows.setdefault(source_id.upper().removeprefix("UMLS:"), row)
        return rows

    @cached_property
    def _links(self) -> _Links:
        links = _Links()
        for relation in self.relations:
            links.out.setdefault(relation.head, []).append(relation)
            links.into.setdefault(relation.tail, []).append(relation)
        return links


def _require_usable(concept: Concept, row: int, graph: str) -> None:
    if not concept.id or not concept.name.strip():
        raise KnowledgeError(f"graph '{graph}': concept {row + 1} ('{concept.id}') has no id or no name")
    if concept.number not in NUMBERS:
        raise KnowledgeError(
            f"graph '{graph}': concept '{concept.id}' has number '{concept.number}'; expected {', '.join(NUMBERS)}"
        )


def fit(wanted: str, surface: str) -> float:
    """Score folded words against a folded surface.

    3 equal, 2 to 3 the surface begins with them, 1 to 2 each begins a word of it, else the share of words that do, if
    it is half of them, else 0.
    """
    if surface == wanted:
        return 3.0
    closeness = len(wanted) / max(len(surface), len(wanted))
    if surface.startswith(wanted):
        return 2.0 + closeness
    words, there = wanted.split(), surface.split()
    begun = sum(any(t.startswith(w) for t in there) for w in words) / len(words)
    return 1.0 + closeness if begun == 1.0 else begun if begun >= 0.5 else 0.0
