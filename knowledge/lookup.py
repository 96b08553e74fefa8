"""Lookup by text at any size: sorted hashes of texts, and the words that stand in them, as arrays on disk.

A hash only proposes: what it finds is compared with the text itself, so that two texts of one hash are told apart.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar, cast

import numpy as np

from kvlp.knowledge.surfaces import fold_all

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from kvlp.typing import IntArray

    Postings: TypeAlias = NDArray[np.uint32]

__all__ = [
    "HashIndex",
    "WordIndex",
    "fold_texts",
    "hash_text",
    "hash_texts",
    "in_pieces",
    "numbers_of",
    "text_buffers",
    "upper_texts",
    "words_of",
]

_BASE = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xD6E8FEB86659FD93)
#: texts hashed at once: what is made on the way stays in the processor's cache
_CHUNK = 1 << 12
#: texts that one core works on at a time
_PIECE = 1 << 17
T = TypeVar("T")
#: a word's number, an entry and whether the word comes first are sorted as one 64-bit number
_ENTRY_BITS = np.uint64(32)
_POST = np.uint32(1)
#: fewer postings than this share of the entries are sorted; more are marked in an array of all entries
_SPARSE = 50


def text_buffers(texts: pa.Array) -> tuple[IntArray, NDArray[np.uint8]]:
    """Return the offsets (int64, one more than texts) and the bytes of an Arrow array of strings, without a copy."""
    import pyarrow as pa

    array = texts if texts.type == pa.large_string() else texts.cast(pa.large_string())
    _, offsets, data = array.buffers()
    if not len(array):
        return np.zeros(1, np.int64), np.zeros(0, np.uint8)
    ends = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    return ends, np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)


def numbers_of(array: pa.Array, dtype: str) -> IntArray:
    """Return the numbers of an Arrow array without nulls, without a copy.

    NumPy could ask for them, but Arrow then imports pandas where it is installed, which takes a second.
    """
    data = array.buffers()[1] if len(array) else None
    whole = np.zeros(0, dtype) if data is None else np.frombuffer(data, dtype)
    return whole[array.offset : array.offset + len(array)]


def in_pieces(make: Callable[[pa.Array, int], T], *columns: pa.Array) -> list[T]:
    """Return what `make` makes of each piece of columns, and of how many texts stand before it; on several cores."""
    pieces, before = [], 0
    for column in columns:
        for at in range(0, len(column), _PIECE):
            pieces.append((column.slice(at, _PIECE), before + at))
        before += len(column)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # NumPy and Arrow work beside each other
        return list(pool.map(lambda piece: make(*piece), pieces))


def hash_texts(texts: pa.Array) -> NDArray[np.uint64]:
    """Return a 64-bit hash of each string (uint64): a polynomial over its bytes, mixed."""
    offsets, data = text_buffers(texts)
    parts = [_hash(offsets[at : at + _CHUNK + 1], data) for at in range(0, len(texts), _CHUNK)]
    return np.concatenate(parts) if parts else np.zeros(0, np.uint64)


def hash_text(text: str) -> np.uint64:
    """Return what `hash_texts` returns for one string."""
    data = np.frombuffer(text.encode("utf-8", "replace"), np.uint8)
    return np.uint64(_hash(np.asarray([0, len(data)]), data)[0])


def _hash(offsets: IntArray, data: NDArray[np.uint8]) -> NDArray[np.uint64]:
    ends = offsets - offsets[0]
    lengths = np.diff(ends)
    values = data[offsets[0] : offsets[-1]].astype(np.uint64) + np.uint64(1)
    powers = np.cumprod(np.full(int(lengths.max(initial=0)), _BASE))
    values *= powers[np.arange(len(values)) - np.repeat(ends[:-1], lengths)]
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(values)])
    mixed = (sums[ends[1:]] - sums[ends[:-1]]) ^ lengths.astype(np.uint64)
    for _ in range(2):
        mixed = (mixed ^ (mixed >> np.uint64(32))) * _MIX
    return np.asarray(mixed ^ (mixed >> np.uint64(32)), np.uint64)


def fold_texts(texts: pa.Array) -> pa.Array:
    """Fold each string as `kvlp.knowledge.surfaces.fold` does; ASCII ones all at once."""
    import pyarrow.compute as pc

    plain = _mapped(texts)
    uneven = pc.match_substring_regex(plain, "['`]|  |^ | $")
    if pc.any(uneven).as_py():
        rest = pc.replace_substring(pc.replace_substring(plain.filter(uneven), "'", ""), "`", "")
        rest = pc.ascii_trim(pc.replace_substring_regex(rest, " +", " "), " ")
        plain = pc.replace_with_mask(plain, uneven, rest)
    return _replaced(texts, plain, fold_all)


def _mapped(texts: pa.Array) -> pa.Array:
    """Bytes of small letters for large ones, and blanks for what `fold` takes as one."""
    import pyarrow as pa

    table = np.arange(256, dtype=np.uint8)
    table[ord("A") : ord("Z") + 1] += 32
    table[[ord(c) for c in "-_/\t\n\v\f\r\x1c\x1d\x1e\x1f"]] = ord(" ")
    offsets, data = text_buffers(texts)
    mapped = table[data[offsets[0] : offsets[-1]]]
    ends = offsets - offsets[0]
    return pa.LargeStringArray.from_buffers(len(texts), pa.py_buffer(ends), pa.py_buffer(mapped))


def upper_texts(texts: pa.Array) -> pa.Array:
    """Upper-case each string as `str.upper` does; ASCII ones all at once."""
    import pyarrow.compute as pc

    return _replaced(texts, pc.ascii_upper(texts), lambda other: [text.upper() for text in other])


def _replaced(texts: pa.Array, plain: pa.Array, convert: Callable[[list[str]], list[str]]) -> pa.Array:
    """Take `plain`, but where a text is not ASCII what Python makes of it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    other = pc.invert(pc.string_is_ascii(texts))
    if not pc.any(other).as_py():
        return plain
    own = pa.array(convert(texts.filter(other).to_pylist()), plain.type)
    return pc.replace_with_mask(plain, other, own)


@dataclass(frozen=True, slots=True)
class HashIndex:
    """Numbers of entries, sorted by the hashes of their texts."""

    hashes: NDArray[np.uint64]
    entries: IntArray

    @classmethod
    def of(cls, hashes: NDArray[np.uint64], entries: IntArray | None = None) -> HashIndex:
        """Sort `hashes`; `entries` are their numbers, by default their places. Equal hashes keep their order."""
        order = np.argsort(hashes, kind="stable")
        numbers = order if entries is None else entries[order]
        return cls(hashes[order], numbers.astype(np.int32))

    def candidates(self, text: str) -> list[int]:
        """Return the entries whose text may be `text`."""
        wanted = hash_text(text)
        first, last = np.searchsorted(self.hashes, wanted, "left"), np.searchsorted(self.hashes, wanted, "right")
        return [int(entry) for entry in self.entries[first:last]]


@dataclass(frozen=True, slots=True)
class WordIndex:
    """Which entries hold which words.

    Attributes:
        words: all words, sorted.
        indptr: int64, words + 1: the postings of word i are `postings[indptr[i]:indptr[i + 1]]`.
        postings: uint32, twice the entry's number, and one more where the word is not its first; ascending.
    """

    words: Sequence[str]
    indptr: IntArray
    postings: NDArray[np.uint32]

    @classmethod
    def build(cls, pieces: Sequence[tuple[pa.Array, NDArray[np.uint32]]]) -> tuple[pa.Array, IntArray, Postings]:
        """Return words, indptr and postings of what `words_of` made of the entries, piece by piece."""
        import pyarrow as pa

        coded, entries = [codes for codes, _ in pieces], [postings for _, postings in pieces]
        if not coded:
            return pa.array([], pa.large_string()), np.zeros(1, np.int64), np.zeros(0, np.uint32)
        unified = pa.chunked_array(coded).unify_dictionaries()
        words, keys = _keys(unified, entries)
        keys.sort()
        counts = np.bincount((keys >> _ENTRY_BITS).astype(np.int64), minlength=len(words))
        indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]).astype(np.int64)
        return words, indptr, keys.astype(np.uint32)

    def tally(self, words: Sequence[str], entries: int) -> tuple[IntArray, IntArray]:
        """Return the entries (of so many) that hold a word begun by any of `words`, and by how many of them."""
        found = [self.beginning(word) >> _POST for word in words]
        if sum(map(len, found)) * _SPARSE < entries:
            numbers, counts = np.unique(np.concatenate([np.unique(f) for f in found]), return_counts=True)
            return numbers.astype(np.int64), counts
        flat = np.zeros(entries, np.uint8 if len(words) < 256 else np.uint16)
        for numbers in found:
            flat[numbers] += flat.dtype.type(1)  # an entry with two such words counts once
        numbers = np.flatnonzero(flat)
        return numbers, cast("IntArray", flat[numbers])

    def leading(self, word: str, numbers: IntArray, entries: int) -> IntArray:
        """Return the places of those `numbers` whose first word begins with `word`."""
        postings = self.beginning(word)
        first = postings[postings & _POST == 0] >> _POST
        if len(first) * _SPARSE < entries:
            return np.flatnonzero(np.isin(numbers, first))
        flat = np.zeros(entries, bool)
        flat[first] = True
        return np.flatnonzero(flat[numbers])

    def beginning(self, word: str) -> NDArray[np.uint32]:
        """Return the postings of all words that begin with `word`."""
        first, last = bisect_left(self.words, word), bisect_left(self.words, word + "\U0010ffff")
        return self.postings[int(self.indptr[first]) : int(self.indptr[last])]

    def holding(self, word: str) -> NDArray[np.uint32]:
        """Return the numbers of the entries that hold just this word."""
        at = bisect_left(self.words, word)
        if at == len(self.words) or self.words[at] != word:
            return np.zeros(0, np.uint32)
        return self.postings[int(self.indptr[at]) : int(self.indptr[at + 1])] >> _POST

    def alike(self, word: str) -> list[str]:
        """Return the words that begin with the same two letters and have a similar length."""
        first, last = bisect_left(self.words, word[:2]), bisect_left(self.words, word[:2] + "\U0010ffff")
        least, most = 0.6 * len(word), 1.7 * len(word)
        return [w for w in self.words[first:last] if least <= len(w) <= most]


def words_of(folded: pa.Array, start: int) -> tuple[pa.Array, NDArray[np.uint32]]:
    """Return the words of folded texts, dictionary-encoded, and their postings; the first text is entry `start`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    lists = pc.split_pattern(folded.cast(pa.large_string()), " ")
    bounds = np.asarray(lists.offsets, np.int64)
    entries = np.repeat(np.arange(start, start + len(folded), dtype=np.uint32), np.diff(bounds))
    later = np.ones(len(entries), np.uint32)
    later[bounds[:-1] - bounds[0]] = 0
    return lists.flatten().dictionary_encode(), (entries << _POST) | later


def _keys(coded: pa.ChunkedArray, entries: list[NDArray[np.uint32]]) -> tuple[pa.Array, NDArray[np.uint64]]:
    """Return the words in order, and (word, posting) pairs as one number each; empties what it was given."""
    import pyarrow as pa
    import pyarrow.compute as pc

    words = coded.chunk(0).dictionary.cast(pa.large_string())
    order = pc.sort_indices(words)
    rank = np.empty(len(words), np.uint64)
    rank[np.asarray(order)] = np.arange(len(words), dtype=np.uint64)
    keys = np.empty(sum(map(len, entries)), np.uint64)
    at = 0
    for chunk in coded.chunks:
        numbers = entries.pop(0)
        keys[at : at + len(numbers)] = (rank[np.asarray(chunk.indices)] << _ENTRY_BITS) | numbers
        at += len(numbers)
    return words.take(order), keys
