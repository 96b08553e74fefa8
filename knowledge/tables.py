"""A graph as Arrow tables and integer arrays: what stands in them, how they are made, how single values are read.

Nothing here makes a Python object for each row, so that a graph may have many millions of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import numpy as np

from kvlp.errors import KnowledgeError
from kvlp.knowledge.lookup import (
    HashIndex,
    WordIndex,
    fold_texts,
    hash_texts,
    in_pieces,
    numbers_of,
    text_buffers,
    upper_texts,
    words_of,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from kvlp.knowledge.graph import Concept, Relation
    from kvlp.typing import IntArray

__all__ = ["ARRAYS", "COLUMNS", "Coded", "LazyRows", "Lists", "Tables", "Texts", "tables_of", "with_indexes"]

T = TypeVar("T")

#: table -> its columns
COLUMNS = {
    "concepts": ("id", "name", "definition", "number", "types", "source_ids", "synonyms", "descriptions"),
    "relations": ("head", "type", "tail", "source"),
    "words": ("word",),
}
#: array -> its dtype
ARRAYS = {
    "out_indptr": "int64",
    "out_relations": "int32",
    "in_indptr": "int64",
    "in_relations": "int32",
    "id_hash": "uint64",
    "id_row": "int32",
    "source_hash": "uint64",
    "source_row": "int32",
    "surface_hash": "uint64",
    "surface_entry": "int32",
    "surface_length": "int32",
    "word_indptr": "int64",
    "word_postings": "uint32",
}
#: rows made at once when all are gone through
_TOGETHER = 1024


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables of a graph: one record batch each (see COLUMNS), and its arrays (see ARRAYS)."""

    batches: Mapping[str, pa.RecordBatch]
    arrays: Mapping[str, Any]

    def column(self, table: str, name: str) -> pa.Array:
        """One column."""
        return self.batches[table].column(name)


class Texts(Sequence[str]):
    """Strings of an Arrow array, made when asked for."""

    def __init__(self, array: pa.Array) -> None:
        offsets, data = text_buffers(array)
        self._offsets, self._data = np.ascontiguousarray(offsets).data, data.data
        self._length = len(array)

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(self._length))]
        if at < 0 or at >= self._length:
            raise IndexError(at)
        try:
            return str(self._data[self._offsets[at] : self._offsets[at + 1]], "utf-8")
        except UnicodeDecodeError:
            raise _damaged() from None

    def between(self, first: int, last: int) -> list[str]:
        """The strings from number `first` to before `last`, made together."""
        bounds = self._offsets[first : last + 1].tolist()
        raw = bytes(self._data[bounds[0] : bounds[-1]])
        try:
            if raw.isascii():
                text = raw.decode()
                return [text[a - bounds[0] : b - bounds[0]] for a, b in pairwise(bounds)]
            return [raw[a - bounds[0] : b - bounds[0]].decode() for a, b in pairwise(bounds)]
        except UnicodeDecodeError:
            raise _damaged() from None


def _damaged() -> KnowledgeError:
    return KnowledgeError("a graph table holds a damaged text; `kvlp kg validate` names the file")


class Lists:
    """Lists of strings of an Arrow array, made when asked for."""

    def __init__(self, array: pa.Array) -> None:
        self.offsets = numbers_of(array.offsets, "int64") if len(array) else np.zeros(1, np.int64)
        self.texts = Texts(array.values)
        self._bounds = np.ascontiguousarray(self.offsets).data

    def between(self, first: int, last: int) -> list[tuple[str, ...]]:
        """The lists from number `first` to before `last`."""
        bounds = self._bounds[first : last + 1].tolist()
        texts = self.texts.between(bounds[0], bounds[-1])
        return [tuple(texts[a - bounds[0] : b - bounds[0]]) for a, b in pairwise(bounds)]

    def owner(self, at: IntArray) -> IntArray:
        """The rows to whose lists the texts number `at` belong."""
        return np.asarray(np.searchsorted(self.offsets, at, "right") - 1)


class Coded:
    """A column of few different strings: `codes` (a number for each row) and `dictionary`."""

    def __init__(self, array: pa.Array) -> None:
        self.codes = numbers_of(array.indices, "int32")
        self.dictionary = list(Texts(array.dictionary))

    def between(self, first: int, last: int) -> list[str]:
        """The strings from row `first` to before `last`."""
        return [self.dictionary[code] for code in self.codes[first:last].tolist()]

    def code(self, text: str) -> int:
        """The number of a string; -1 where no row has it."""
        return self.dictionary.index(text) if text in self.dictionary else -1


class LazyRows(Sequence[T], Generic[T]):
    """A sequence whose members are made when asked for; equal to any sequence with equal members."""

    def __init__(self, length: int, make: Callable[[int, int], Sequence[T]]) -> None:
        """`make(first, last)` makes the members from `first` to before `last`."""
        self._length, self._make = length, make

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, at: int) -> T: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[T, ...]: ...
    def __getitem__(self, at: int | slice) -> T | tuple[T, ...]:
        if isinstance(at, slice):
            return tuple(self[i] for i in range(*at.indices(self._length)))
        row = at + self._length if at < 0 else at
        if not 0 <= row < self._length:
            raise IndexError(f"row {at} of {self._length}")
        return self._make(row, row + 1)[0]

    def __iter__(self) -> Iterator[T]:
        for first in range(0, self._length, _TOGETHER):
            yield from self._make(first, min(first + _TOGETHER, self._length))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or len(other) != self._length:
            return NotImplemented if not isinstance(other, Sequence) else False
        return all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{self._length} rows>"


def tables_of(concepts: Sequence[Concept], relations: Sequence[Relation]) -> Tables:
    """Return the tables of a graph whose relations have two concepts each.

    Raises:
        KnowledgeError: a text cannot be written as UTF-8.
    """
    import pyarrow as pa

    row = {c.id: i for i, c in enumerate(concepts)}
    text, texts = pa.large_string(), pa.large_list(pa.large_string())
    coded = pa.dictionary(pa.int32(), pa.large_string())
    try:
        about = {
            "id": pa.array([c.id for c in concepts], text),
            "name": pa.array([c.name for c in concepts], text),
            "definition": pa.array([c.definition for c in concepts], text),
            "number": pa.array([c.number for c in concepts], text).cast(coded),
            "types": pa.array([c.semantic_types for c in concepts], texts),
            "source_ids": pa.array([c.source_ids for c in concepts], texts),
            "synonyms": pa.array([c.synonyms for c in concepts], texts),
            "descriptions": pa.array([c.descriptions for c in concepts], texts),
        }
        links = {
            "head": pa.array([row[r.head] for r in relations], pa.int32()),
            "type": pa.array([r.type for r in relations], text).cast(coded),
            "tail": pa.array([row[r.tail] for r in relations], pa.int32()),
            "source": pa.array([r.source for r in relations], text).cast(coded),
        }
    except UnicodeEncodeError:
        raise KnowledgeError("a text of the graph cannot be written as UTF-8 (a lone surrogate)") from None
    return with_indexes(pa.record_batch(about), pa.record_batch(links))


def with_indexes(
    concepts: pa.RecordBatch, relations: pa.RecordBatch, say: Callable[[str], None] = lambda line: None
) -> Tables:
    """Add to the tables of concepts and relations what finds their rows: adjacency, hashes, words."""
    import pyarrow as pa

    arrays: dict[str, Any] = {}
    for side, end in (("out", "head"), ("in", "tail")):
        arrays[f"{side}_indptr"], arrays[f"{side}_relations"] = _csr(relations.column(end), len(concepts))
    say("adjacency")
    ids = HashIndex.of(hash_texts(concepts.column("id")))
    arrays |= {"id_hash": ids.hashes, "id_row": ids.entries}
    sources = _source_index(concepts.column("source_ids"))
    arrays |= {"source_hash": sources.hashes, "source_row": sources.entries}
    say("ids")
    surfaces, lengths, words = _surface_indexes(concepts, say)
    arrays |= {"surface_hash": surfaces.hashes, "surface_entry": surfaces.entries, "surface_length": lengths}
    arrays |= {"word_indptr": words[1], "word_postings": words[2]}
    batches = {"concepts": concepts, "relations": relations, "words": pa.record_batch({"word": words[0]})}
    return Tables(batches, arrays)


def _csr(ends: pa.Array, count: int) -> tuple[IntArray, IntArray]:
    """Rows of relations by one of their ends, in their order."""
    rows = np.asarray(ends, np.int64)
    indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.bincount(rows, minlength=count))])
    if (np.diff(rows) >= 0).all():
        return indptr, np.arange(len(rows), dtype=np.int32)
    keys = (rows << 32) | np.arange(len(rows))
    keys.sort()
    return indptr, (keys & 0xFFFFFFFF).astype(np.int32)


def _source_index(source_ids: pa.Array) -> HashIndex:
    texts = source_ids.values
    owners = np.repeat(np.arange(len(source_ids)), np.diff(np.asarray(source_ids.offsets)))
    return HashIndex.of(hash_texts(upper_texts(texts)), owners) if len(texts) else HashIndex.of(np.zeros(0, np.uint64))


def _surface_indexes(
    concepts: pa.RecordBatch, say: Callable[[str], None]
) -> tuple[HashIndex, IntArray, tuple[pa.Array, IntArray, Any]]:
    """Index every surface: names first, then synonyms, then ids (see TableStore.entry for their numbers)."""
    import pyarrow.compute as pc

    def indexed(texts: pa.Array, start: int) -> tuple[Any, Any, Any]:
        folded = fold_texts(texts)
        return hash_texts(folded), np.asarray(pc.utf8_length(folded)).astype(np.int32), words_of(folded, start)

    made = in_pieces(indexed, concepts.column("name"), concepts.column("synonyms").values, concepts.column("id"))
    hashes = np.concatenate([np.zeros(0, np.uint64), *(m[0] for m in made)])
    lengths = np.concatenate([np.zeros(0, np.int32), *(m[1] for m in made)])
    words = WordIndex.build([m[2] for m in made])
    say("words")
    return HashIndex.of(hashes), lengths, words
