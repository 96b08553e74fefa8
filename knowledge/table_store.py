"""A graph that stays in its tables: rows become objects when asked for, and every lookup goes through an index.

Entries number the surfaces: the name of row r is entry r, then come all synonyms in order, then the id of each row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps
from itertools import islice
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar, cast

import numpy as np

from kvlp.errors import KnowledgeError
from kvlp.knowledge.graph import Concept, Relation
from kvlp.knowledge.lookup import HashIndex, WordIndex, numbers_of
from kvlp.knowledge.surfaces import FUZZY_LIMIT, fold, near
from kvlp.knowledge.tables import ARRAYS, Coded, LazyRows, Lists, Tables, Texts

if TYPE_CHECKING:
    from pathlib import Path

    from kvlp.knowledge.store import Side
    from kvlp.typing import IntArray

__all__ = ["READ", "TableStore"]

#: a search reads at most so many texts: in a large graph each may lie on another page of the disk
READ = 500

P = ParamSpec("P")
T = TypeVar("T")


def _whole(method: Callable[Concatenate[TableStore, P], T]) -> Callable[Concatenate[TableStore, P], T]:
    """Say in one line that a folder is damaged where a number points to nothing. (Large ones are not read before.)"""

    @wraps(method)
    def call(self: TableStore, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(self, *args, **kwargs)
        except IndexError:
            raise KnowledgeError(
                f"{self.where}: a number points to nothing; `kvlp kg validate` names the damaged file"
            ) from None

    return cast("Callable[Concatenate[TableStore, P], T]", call)


class TableStore:
    """Answers for a graph from its tables (see kvlp.knowledge.store.Store).

    Attributes:
        tables: what it reads.
        where: what to call it in messages.
        folder: where they lie; None for tables in memory.
        ids: id by row.
        heads, tails: rows of concepts by row of relations.
        types, sources: the relations' types and sources.
        synonyms: synonyms by row.

    Raises:
        KnowledgeError: the arrays do not fit the tables; names `where` they came from.
    """

    def __init__(self, tables: Tables, where: str = "graph", folder: Path | None = None) -> None:
        self.tables, self.where, self.folder = tables, where, folder
        self._arrays = tables.arrays
        self.ids, self._names = Texts(tables.column("concepts", "id")), Texts(tables.column("concepts", "name"))
        self._definitions = Texts(tables.column("concepts", "definition"))
        self._numbers = Coded(tables.column("concepts", "number"))
        self._lists = [Lists(tables.column("concepts", c)) for c in ("synonyms", "descriptions", "types", "source_ids")]
        self.synonyms = self._lists[0]
        self.types, self.sources = (
            Coded(tables.column("relations", "type")),
            Coded(tables.column("relations", "source")),
        )
        self.heads = numbers_of(tables.column("relations", "head"), "int32")
        self.tails = numbers_of(tables.column("relations", "tail"), "int32")
        self._require_fitting()
        self._by_id = HashIndex(self._arrays["id_hash"], self._arrays["id_row"])
        self._by_source_id = HashIndex(self._arrays["source_hash"], self._arrays["source_row"])
        self._by_surface = HashIndex(self._arrays["surface_hash"], self._arrays["surface_entry"])
        words = Texts(tables.column("words", "word"))
        self._words = WordIndex(words, self._arrays["word_indptr"], self._arrays["word_postings"])
        self.concepts: Sequence[Concept] = LazyRows(len(self.ids), self.concepts_between)
        self.relations: Sequence[Relation] = LazyRows(len(self.heads), self.relations_between)

    def _require_fitting(self) -> None:
        concepts, relations, entries = len(self.ids), len(self.heads), self.entries
        words, postings = len(self.tables.batches["words"]), len(self._arrays["word_postings"])
        lengths = {"out_indptr": concepts + 1, "in_indptr": concepts + 1, "out_relations": relations}
        lengths |= {"in_relations": relations, "id_hash": concepts, "id_row": concepts, "word_indptr": words + 1}
        lengths |= {"source_hash": len(self._lists[3].texts), "source_row": len(self._lists[3].texts)}
        lengths |= {f"surface_{what}": entries for what in ("hash", "entry", "length")} | {"word_postings": postings}
        for name, dtype in ARRAYS.items():
            array = self._arrays[name]
            if array.shape != (lengths[name],) or array.dtype != dtype:
                raise KnowledgeError(
                    f"{self.where}: {name} does not fit the tables (expected {lengths[name]} of {dtype}, got"
                    f" {array.size} of {array.dtype}); build the graph again"
                )
        for name, last in (("out_indptr", relations), ("in_indptr", relations), ("word_indptr", postings)):
            if self._arrays[name][-1] != last:
                raise KnowledgeError(f"{self.where}: {name} does not fit the tables; build the graph again")

    def __reduce__(self) -> tuple[Callable[..., TableStore], tuple[object, ...]]:
        """Another process opens the folder itself; tables in memory are copied to it."""
        if self.folder is None:
            return TableStore, (self.tables, self.where)
        from kvlp.knowledge.graph_io import open_store

        return open_store, (self.folder,)

    # ---- rows ----------------------------------------------------------------------------------------------------

    @property
    def entries(self) -> int:
        """How many surfaces there are, ids among them."""
        return 2 * len(self.ids) + len(self.synonyms.texts)

    def concepts_between(self, first: int, last: int) -> list[Concept]:
        """Make the concepts from row `first` to before `last`."""
        synonyms, descriptions, types, source_ids = (lists.between(first, last) for lists in self._lists)
        ids, names = self.ids.between(first, last), self._names.between(first, last)
        definitions, numbers = self._definitions.between(first, last), self._numbers.between(first, last)
        columns = (ids, names, synonyms, definitions, descriptions, types, source_ids, numbers)
        return [Concept(*values) for values in zip(*columns, strict=True)]

    @_whole
    def relations_between(self, first: int, last: int) -> list[Relation]:
        """Make the relations from row `first` to before `last` of relations.arrow."""
        heads, tails = self.heads[first:last].tolist(), self.tails[first:last].tolist()
        types, sources = self.types.between(first, last), self.sources.between(first, last)
        return [
            Relation(self.ids[head], type, self.ids[tail], source)
            for head, type, tail, source in zip(heads, types, tails, sources, strict=True)
        ]

    def entry(self, number: int) -> tuple[int, str]:
        """Return the row and the text of a surface."""
        first, last = len(self.ids), len(self.ids) + len(self.synonyms.texts)
        if number < first:
            return number, self._names[number]
        if number < last:
            return int(self.synonyms.owner(np.asarray(number - first))), self.synonyms.texts[number - first]
        return number - last, self.ids[number - last]

    def owners(self, numbers: IntArray) -> IntArray:
        """Return the rows of surfaces."""
        first, last = len(self.ids), len(self.ids) + len(self.synonyms.texts)
        rows = np.where(numbers < first, numbers, numbers - last)
        middle = (numbers >= first) & (numbers < last)
        rows[middle] = self.synonyms.owner(numbers[middle] - first)
        return rows

    # ---- lookup --------------------------------------------------------------------------------------------------

    @_whole
    def row(self, concept_id: str) -> int | None:
        """The row of an id."""
        return next((row for row in self._by_id.candidates(concept_id) if self.ids[row] == concept_id), None)

    @_whole
    def row_of_source_id(self, source_id: str) -> int | None:
        """The first row with this source id."""
        texts = (source_id, f"UMLS:{source_id}")
        found = [row for text in texts for row in self._by_source_id.candidates(text) if self._has_id(row, text)]
        return min(found, default=None)

    def _has_id(self, row: int, text: str) -> bool:
        return any(s.upper() == text for s in self._lists[3].between(row, row + 1)[0])

    @_whole
    def row_of_surface(self, folded: str) -> int | None:
        """The first row whose name folds to this, else whose synonym or id does."""
        places = []
        for number in self._by_surface.candidates(folded):
            row, text = self.entry(number)
            if fold(text) == folded:
                places.append((number >= len(self.ids), row))
        return min(places)[1] if places else None

    @_whole
    def search(self, wanted: str, k: int) -> list[int]:
        """Find surfaces through their words; few texts are read, see READ."""
        words = wanted.split()
        numbers, counts = self._words.tally(words, self.entries)
        whole = numbers[counts == len(words)]
        rows = self.owners(whole)
        lengths = np.maximum(self._arrays["surface_length"][whole], len(wanted)).astype(np.int64)
        keys = (lengths << 32) | rows  # the shortest is the closest, then the first row comes first
        leading = self._words.leading(words[0], whole, self.entries)
        best: dict[int, None] = {}
        _fill(best, self._beginning(wanted, whole[leading], keys[leading]), k)
        _fill(best, (int(rows[at]) for at in _ascending(keys)), k)
        for count in range(len(words) - 1, (len(words) - 1) // 2, -1):
            if len(best) < k:
                _fill(best, iter(np.unique(self.owners(numbers[counts == count])).tolist()), k)
        return list(best)

    def _beginning(self, wanted: str, numbers: IntArray, keys: IntArray) -> Iterator[int]:
        """Yield rows of surfaces that begin with `wanted`, of those that hold its words and begin with the first.

        A single word needs no second look. For several words the closest READ texts are read, no more.
        """
        if " " not in wanted:
            yield from (int(keys[at] & 0xFFFFFFFF) for at in _ascending(keys))
            return
        for at in islice(_ascending(keys), READ):
            row, text = self.entry(int(numbers[at]))
            if fold(text).startswith(wanted):
                yield row

    @_whole
    def similar(self, wanted: str, n: int) -> list[int]:
        """Compare letters: with all surfaces, or with those that share words that look like the wanted ones."""
        numbers: Iterable[int] = range(self.entries) if self.entries <= FUZZY_LIMIT else self._with_like_words(wanted)
        close = near(wanted, (fold(self.entry(number)[1]) for number in numbers), n=n)
        rows = (self.row_of_surface(surface) for surface in close)
        return [row for row in rows if row is not None]

    def _with_like_words(self, wanted: str) -> list[int]:
        found = [np.zeros(0, np.uint32)]
        for word in wanted.split():
            found += [self._words.holding(w) for w in near(word, self._words.alike(word), n=4)]
        numbers, counts = np.unique(np.concatenate(found), return_counts=True)
        far = np.abs(self._arrays["surface_length"][numbers] - len(wanted))
        return [int(number) for number in numbers[np.lexsort((far, -counts))][:READ]]

    def rows_of_shared_hashes(self) -> list[int]:
        """Rows of concepts that may share a name or synonym with another, ascending."""
        hashes, numbers = self._by_surface.hashes, np.asarray(self._by_surface.entries)
        twin = np.flatnonzero(hashes[1:] == hashes[:-1])
        numbers = np.unique(np.concatenate([numbers[twin], numbers[twin + 1]]))
        numbers = numbers[numbers < len(self.ids) + len(self.synonyms.texts)]
        return [int(row) for row in np.unique(self.owners(numbers.astype(np.int64)))]

    # ---- relations -----------------------------------------------------------------------------------------------

    @_whole
    def relations_at(self, row: int, side: Side, type: str | None) -> list[Relation]:
        """Relations at a concept."""
        found = self._at(np.asarray([row]), side)
        if type is not None:
            found = found[self.types.codes[found] == self.types.code(type)]
        return [self.relations[int(at)] for at in found]

    @_whole
    def closure(self, row: int, side: Side) -> set[str]:
        """Go up or down by is_a, a step for all at once."""
        is_a, ends = self.types.code("is_a"), self.tails if side == "out" else self.heads
        seen = np.zeros(len(self.ids), bool)
        edge = np.asarray([row])
        while edge.size:
            seen[edge] = True
            found = self._at(edge, side)
            edge = np.unique(ends[found[self.types.codes[found] == is_a]])
            edge = edge[~seen[edge]]
        seen[row] = False
        return {self.ids[int(i)] for i in np.flatnonzero(seen)}

    @_whole
    def linked(self, rows: set[int]) -> set[int]:
        """Rows one relation away."""
        start = np.fromiter(rows, np.int64, len(rows))
        ends = [self.tails[self._at(start, "out")], self.heads[self._at(start, "in")]]
        return set(np.unique(np.concatenate(ends)).tolist())

    def _at(self, rows: IntArray, side: Side) -> IntArray:
        """Rows of relations.arrow at these concepts, concept by concept."""
        indptr, relations = self._arrays[f"{side}_indptr"], self._arrays[f"{side}_relations"]
        if len(rows) == 1:
            return np.asarray(relations[int(indptr[rows[0]]) : int(indptr[rows[0] + 1])])
        starts = indptr[rows]
        lengths = indptr[rows + 1] - starts
        before = np.cumsum(lengths) - lengths
        return np.asarray(relations[np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))])

    def content_hash(self) -> str:
        """sha256 of the content."""
        from kvlp.knowledge.content import hash_of_tables

        return hash_of_tables(self.tables.batches["concepts"], self.tables.batches["relations"])


def _fill(best: dict[int, None], rows: Iterator[int], k: int) -> None:
    """Add rows until there are `k` different ones."""
    while len(best) < k and (row := next(rows, None)) is not None:
        best[row] = None


def _ascending(keys: IntArray) -> Iterator[int]:
    """Yield the places of keys from the least up, and sort no more of them than are asked for."""
    done, most = 0, 256
    while 4 * most < len(keys):
        places = np.argpartition(keys, most)[:most]
        limit = keys[places].max()  # all that are less come now, those that equal it with the next
        places = np.flatnonzero(keys < limit) if limit > keys[places].min() else places[:0]
        places = places[np.argsort(keys[places], kind="stable")]
        yield from places[done:].tolist()
        done, most = len(places), 16 * most
    yield from np.argsort(keys, kind="stable")[done:].tolist()
