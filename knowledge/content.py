"""The content hash of a graph: sha256 over the sorted lines that state its concepts and relations."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from json.encoder import encode_basestring as _quoted  # type: ignore[attr-defined]
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvlp.knowledge.graph import Concept, Relation
    from kvlp.knowledge.table_store import TableStore

__all__ = ["hash_of_objects", "hash_of_tables"]

_ENCODE = json.JSONEncoder(ensure_ascii=False).encode
#: lines hashed at once
_BLOCK = 20_000


def hash_of_objects(concepts: Iterable[Concept], relations: Iterable[Relation]) -> str:
    """Return the hash (hex); the order of concepts, relations and what a concept lists does not count."""
    lines = [_concept_line(c) for c in concepts]
    lines += [_ENCODE([r.head, r.type, r.tail, r.source]) for r in relations]
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
    block: list[str] = []
    for row in sorted(range(len(ids)), key=ids.__getitem__):
        own, ends = ids[row], store.numbers_at(row)
        lines = [f"[{own}, {types[t]}, {ids[tail]}, {sources[s]}]" for t, tail, s in zip(*ends, strict=True)]
        lines.append(_concept_line(store.concept(row)))
        lines.sort()
        block += lines
        if len(block) > _BLOCK:
            digest.update(("\n".join(block) + "\n").encode())
            block.clear()
    digest.update("".join(f"{line}\n" for line in block).encode())
    return digest.hexdigest()


def _concept_line(c: Concept) -> str:
    parts = [c.id, c.name, c.definition, c.number, *map(sorted, (c.synonyms, c.descriptions, c.semantic_types))]
    return _ENCODE([*parts, sorted(c.source_ids)])
