"""The content hash of a graph: sha256 over the sorted lines (JSON lists) that state its concepts and relations."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from json.encoder import encode_basestring as _quoted
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvlp.knowledge.graph import Concept, Relation
    from kvlp.knowledge.table_store import TableStore

__all__ = ["hash_of_objects", "hash_of_tables"]

#: concepts told at once
_TOGETHER = 1024


def hash_of_objects(concepts: Iterable[Concept], relations: Iterable[Relation]) -> str:
    """Return the hash (hex); the order of concepts, relations and what a concept lists does not count."""
    lines = [_concept_line(c) for c in concepts]
    lines += [f"[{', '.join(map(_quoted, (r.head, r.type, r.tail, r.source)))}]" for r in relations]
    digest = hashlib.sha256()
    for line in sorted(lines):
        digest.update(line.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def hash_of_tables(store: TableStore) -> str:
    """Return what `hash_of_objects` returns, without an object for each row.

    All lines of a concept begin with its id in quotes, and no quoted id is the beginning of another: so sorting the ids
    and then the lines of each gives the order of all lines.
    """
    ids = [_quoted(i) for i in store.ids]
    types = [_quoted(t) for t in store.types.dictionary]
    sources = [_quoted(s) for s in store.sources.dictionary]
    digest = hashlib.sha256()
    for first, last in _runs(sorted(range(len(ids)), key=ids.__getitem__)):
        numbers = zip(*store.numbers_between(first, last), strict=True)
        lines = [f"[{ids[head]}, {types[t]}, {ids[tail]}, {sources[s]}]\n" for head, t, tail, s in numbers]
        lines += [_concept_line(concept) + "\n" for concept in store.concepts_between(first, last)]
        lines.sort()
        digest.update("".join(lines).encode())
    return digest.hexdigest()


def _runs(order: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Cut a sequence of numbers into runs that go up by one, none longer than _TOGETHER; yield (first, last + 1)."""
    first = 0
    for at in range(1, len(order) + 1):
        if at == len(order) or order[at] != order[at - 1] + 1 or at - first == _TOGETHER:
            yield order[first], order[at - 1] + 1
            first = at


def _concept_line(c: Concept) -> str:
    lists = (sorted(values) for values in (c.synonyms, c.descriptions, c.semantic_types, c.source_ids))
    told = [f"[{', '.join(map(_quoted, values))}]" for values in lists]
    return f"[{', '.join(map(_quoted, (c.id, c.name, c.definition, c.number)))}, {', '.join(told)}]"
