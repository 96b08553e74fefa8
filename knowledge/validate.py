"""What can be wrong with a knowledge graph, each fault named with its place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from kvlp.errors import KnowledgeError
from kvlp.knowledge.graph import Concept, KnowledgeGraph, Relation
from kvlp.knowledge.store import MemoryStore
from kvlp.knowledge.surfaces import contains_phrase, fold, near

if TYPE_CHECKING:
    from kvlp.knowledge.table_store import TableStore

__all__ = ["LISTED", "Problem", "find_cycle", "require_sound", "validate"]

#: so many faults of a kind are listed; the rest is counted
LISTED = 1000

#: concepts of these types are what images show: they need a definition
_SHOWN = frozenset({"finding", "disease"})


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault: `kind` (machine-readable), `severity` ("error" or "warning"), `where` (concept or relation)."""

    kind: str
    severity: str
    where: str
    message: str


def validate(graph: KnowledgeGraph) -> list[Problem]:
    """Return all faults of a graph, errors first; of each kind at most LISTED, and how many more there are.

    Errors: altered (a file of the graph's folder is not as it was written; then nothing else is looked at), dangling,
    self_loop, cycle, named_in_description. Warnings: duplicate_relation, duplicate_surface, no_definition,
    named_in_definition.
    """
    altered = list(_altered_files(graph))
    if altered:
        return altered
    faults = chain(_relation_faults(graph), _cycle_fault(graph), _surface_faults(graph), _text_faults(graph))
    return sorted(_at_most(faults, LISTED), key=lambda p: p.severity != "error")


def require_sound(graph: KnowledgeGraph, where: str) -> None:
    """Refuse a graph with dangling relations, self loops or an is_a cycle.

    Raises:
        KnowledgeError: the first fault and how many there are.
    """
    faults = chain(_relation_faults(graph), _cycle_fault(graph))
    errors = [p for p in faults if p.severity == "error"]
    if errors:
        more = f" (and {len(errors) - 1} more; `kvlp kg validate` lists them)" if len(errors) > 1 else ""
        raise KnowledgeError(f"{where}: {errors[0].message}{more}")


def _at_most(faults: Iterable[Problem], most: int) -> Iterator[Problem]:
    """Let `most` of each kind and severity pass, then count."""
    counts: Counter[tuple[str, str]] = Counter()
    for fault in faults:
        counts[fault.kind, fault.severity] += 1
        if counts[fault.kind, fault.severity] <= most:
            yield fault
    for (kind, severity), count in counts.items():
        if count > most:
            yield Problem(kind, severity, "", f"{count - most} more of this kind ({kind})")


def _tables_of(graph: KnowledgeGraph) -> TableStore | None:
    """The store of a graph that stays in tables. (A graph in memory is read without NumPy.)"""
    if isinstance(graph.store, MemoryStore):
        return None
    from kvlp.knowledge.table_store import TableStore

    return graph.store if isinstance(graph.store, TableStore) else None


def _altered_files(graph: KnowledgeGraph) -> Iterator[Problem]:
    store = _tables_of(graph)
    if store is not None and store.folder is not None:
        from kvlp.knowledge.graph_io import altered_files

        for name in altered_files(store.folder):
            where = str(store.folder / name)
            yield Problem("altered", "error", where, f"{where}: not as it was written; build the graph again")


def _relation_faults(graph: KnowledgeGraph) -> Iterator[Problem]:
    seen: set[tuple[str, str, str]] = set()
    for r in graph.relations if (store := _tables_of(graph)) is None else _suspects(store):
        where = f"{r.head} {r.type} {r.tail}"
        for end in (r.head, r.tail):
            if end not in graph:
                close = near(end, (c.id for c in graph.concepts), n=1)
                hint = f"; did you mean '{close[0]}'?" if close else ""
                yield Problem("dangling", "error", where, f"relation '{where}': no concept '{end}'{hint}")
        if r.head == r.tail:
            yield Problem("self_loop", "error", where, f"relation '{where}' relates a concept to itself")
        if (r.head, r.type, r.tail) in seen:
            yield Problem("duplicate_relation", "warning", where, f"relation '{where}' is stated twice")
        seen.add((r.head, r.type, r.tail))


def _suspects(store: TableStore) -> Iterator[Relation]:
    """Relations that a look at the numbers alone does not clear: of a concept to itself, or stated twice."""
    import numpy as np

    heads, tails, types = store.heads, store.tails, store.types.codes
    order = np.lexsort((types, tails, heads))
    again = np.ones(max(len(order) - 1, 0), bool)
    for numbers in (heads, tails, types):
        again &= numbers[order[1:]] == numbers[order[:-1]]
    rows = np.concatenate([np.flatnonzero(heads == tails), order[1:][again], order[:-1][again]])
    return (store.relations[int(row)] for row in np.unique(rows))


def find_cycle(graph: KnowledgeGraph) -> list[str]:
    """Return the ids of one is_a cycle, or an empty list (self loops do not count)."""
    parents: dict[str, set[str]] = {}
    children: dict[str, set[str]] = {}
    for r in graph.relations if (store := _tables_of(graph)) is None else _unpeeled(store):
        if r.type == "is_a" and r.head != r.tail:
            parents.setdefault(r.head, set()).add(r.tail)
            children.setdefault(r.tail, set()).add(r.head)
    ready = [i for i in children if i not in parents]
    while ready:
        top = ready.pop()
        for child in children.get(top, ()):
            parents[child].discard(top)
            if not parents[child]:
                del parents[child]
                ready.append(child)
    # What is left has a parent that is left: going up must come back to a concept seen before.
    path: list[str] = []
    node = min(parents, default="")
    while parents and node not in path:
        path.append(node)
        node = min(parents[node])
    return path[path.index(node) :] if path else []


def _unpeeled(store: TableStore) -> Iterator[Relation]:
    import numpy as np

    from kvlp.knowledge.circles import peel

    rows = np.flatnonzero(store.types.codes == store.types.code("is_a"))
    left = peel(store.heads[rows], store.tails[rows], few=10_000)
    return (store.relations[int(row)] for row in rows[left])


def _cycle_fault(graph: KnowledgeGraph) -> Iterator[Problem]:
    cycle = find_cycle(graph)
    if cycle:
        way = " is_a ".join([*cycle, cycle[0]])
        yield Problem("cycle", "error", cycle[0], f"is_a goes in a circle: {way}")


def _surface_faults(graph: KnowledgeGraph) -> Iterator[Problem]:
    owners: dict[str, str] = {}
    store = _tables_of(graph)
    for concept in graph.concepts if store is None else map(store.concepts.__getitem__, store.rows_of_shared_hashes()):
        for surface in {fold(s): s for s in concept.surfaces}.items():
            owner = owners.setdefault(surface[0], concept.id)
            if owner != concept.id:
                message = f"surface '{surface[1]}' belongs to both '{owner}' and '{concept.id}'"
                yield Problem("duplicate_surface", "warning", concept.id, message)


def _text_faults(graph: KnowledgeGraph) -> Iterator[Problem]:
    for concept in graph.concepts:
        if not concept.definition and _SHOWN & set(concept.semantic_types):
            yield Problem("no_definition", "warning", concept.id, f"'{concept.id}' has no definition")
        if concept.descriptions:
            yield from _naming_faults(graph, concept)


def _naming_faults(graph: KnowledgeGraph, concept: Concept) -> Iterator[Problem]:
    family = [concept, *(graph[i] for i in sorted(graph.descendants(concept.id)))]
    surfaces = [(fold(s), s) for member in family for s in member.surfaces]
    for text in concept.descriptions:
        named = _named(text, surfaces)
        if named:
            message = f"a description of '{concept.id}' names it: '{named}' in '{text}'"
            yield Problem("named_in_description", "error", concept.id, message)
    named = _named(concept.definition, [(fold(s), s) for s in concept.surfaces])
    if named:
        message = f"the definition of '{concept.id}' names it: '{named}'"
        yield Problem("named_in_definition", "warning", concept.id, message)


def _named(text: str, surfaces: list[tuple[str, str]]) -> str:
    folded = fold(text)
    return next((surface for key, surface in surfaces if contains_phrase(folded, key)), "")
