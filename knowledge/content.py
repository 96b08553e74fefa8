"""The content hash of a graph: sha256 over the sorted lines (JSON lists) that state its concepts and relations."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from json.encoder import encode_basestring as _quoted
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

    from kvlp.knowledge.graph import Concept, Relation

__all__ = ["hash_of_objects", "hash_of_tables"]

#: concepts told at once
_TOGETHER = 1024


def hash_of_objects(concepts: Iterable[Concept], relations: Iterable[Relation]) -> str:
    """Return the hash (hex); the order of concepts, relations and what a concept lists does not count."""
    lines = [
        _line(
            (_quoted(c.id), _quoted(c.name), _quoted(c.definition), _quoted(c.number)),
            (c.synonyms, c.descriptions, c.semantic_types, c.source_ids),
        )
        for c in concepts
    ]
    lines += [f"[{', '.join(map(_quoted, (r.head, r.type, r.tail, r.source)))}]\n" for r in relations]
    digest = hashlib.sha256()
    for line in sorted(lines):
        digest.update(line.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def hash_of_tables(concepts: pa.RecordBatch, relations: pa.RecordBatch) -> str:
    """Return what `hash_of_objects` returns, from the tables and without an object for each row.

    All lines of a concept begin with its id in quotes, and no quoted id is the beginning of another: so sorting the ids
    and then the lines of each, or of several that follow each other, gives the order of all lines.
    """
    from kvlp.knowledge.tables import Texts

    ids = [_quoted(i) for i in Texts(concepts.column("id"))]
    links, about = _Links(relations, ids), _Concepts(concepts, ids)
    digest = hashlib.sha256()
    for first, last in _runs(sorted(range(len(ids)), key=ids.__getitem__)):
        lines = [*links.lines(first, last), *about.lines(first, last)]
        lines.sort()
        digest.update("".join(lines).encode())
    return digest.hexdigest()


class _Links:
    """Lines of relations by the rows of their heads."""

    def __init__(self, relations: pa.RecordBatch, ids: Sequence[str]) -> None:
        import numpy as np

        from kvlp.knowledge.lookup import numbers_of
        from kvlp.knowledge.tables import Coded

        self._ids = ids
        types, sources = Coded(relations.column("type")), Coded(relations.column("source"))
        self._types, self._sources = ([_quoted(t) for t in coded.dictionary] for coded in (types, sources))
        heads = numbers_of(relations.column("head"), "int32")
        columns = [heads, types.codes, numbers_of(relations.column("tail"), "int32"), sources.codes]
        order = np.argsort(heads, kind="stable") if (np.diff(heads) < 0).any() else slice(None)
        self._columns = [column[order] for column in columns]

    def lines(self, first: int, last: int) -> list[str]:
        """What the concepts from row `first` to before `last` head."""
        import numpy as np

        heads = self._columns[0]
        start, end = heads.searchsorted(np.asarray([first, last], heads.dtype))  # of one type: else all are copied
        numbers = (column[start:end].tolist() for column in self._columns)
        ids, types, sources = self._ids, self._types, self._sources
        return [f"[{ids[h]}, {types[k]}, {ids[t]}, {sources[s]}]\n" for h, k, t, s in zip(*numbers, strict=True)]


class _Concepts:
    """Lines of concepts by their rows."""

    def __init__(self, concepts: pa.RecordBatch, ids: Sequence[str]) -> None:
        from kvlp.knowledge.tables import Coded, Lists, Texts

        self._ids = ids
        self._texts = [Texts(concepts.column(c)) for c in ("name", "definition")]
        self._numbers = Coded(concepts.column("number"))
        self._lists = [Lists(concepts.column(c)) for c in ("synonyms", "descriptions", "types", "source_ids")]

    def lines(self, first: int, last: int) -> list[str]:
        """Of the concepts from row `first` to before `last`."""
        columns = [*(texts.between(first, last) for texts in self._texts), self._numbers.between(first, last)]
        texts = zip(self._ids[first:last], *(map(_quoted, column) for column in columns), strict=True)
        lists = zip(*(lists.between(first, last) for lists in self._lists), strict=True)
        return list(map(_line, texts, lists))


def _runs(order: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Cut a sequence of numbers into runs that go up by one, none longer than _TOGETHER; yield (first, last + 1)."""
    first = 0
    for at in range(1, len(order) + 1):
        if at == len(order) or order[at] != order[at - 1] + 1 or at - first == _TOGETHER:
            yield order[first], order[at - 1] + 1
            first = at


def _line(quoted: Iterable[str], lists: Iterable[Sequence[str]]) -> str:
    """A concept's id, name, definition and number (in quotes), then what it lists, sorted."""
    told = [f"[{', '.join(map(_quoted, sorted(values)))}]" if values else "[]" for values in lists]
    return f"[{', '.join(quoted)}, {', '.join(told)}]\n"
