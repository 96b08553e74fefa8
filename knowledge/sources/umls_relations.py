"""Relations of a UMLS release from MRREL: which way they read, what they are called, and is_a without circles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kvlp.errors import KnowledgeError
from kvlp.knowledge.circles import in_circles
from kvlp.knowledge.sources.rrf import cui_keys, cui_texts, read_table
from kvlp.knowledge.sources.umls_rows import SUPPRESSED, Report, Selection, among, places, require_known

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from kvlp.knowledge.sources.umls_concepts import Cuis
    from kvlp.typing import IntArray

__all__ = ["meaning", "read_relations"]

#: REL values that say nothing typed: siblings, qualifiers, synonymy, not related
_SAME_LEVEL = frozenset({"SIB", "AQ", "QB", "SY", "XR", "DEL"})
#: a relation is sorted as one number: head, type and source together, tail
_KIND_BITS = 16
Say = Callable[[str], None]


def meaning(rel: str, rela: str) -> tuple[str, bool]:
    """Return the type of a row of MRREL, and whether it leads from CUI1 to CUI2; ("", ...) if it says nothing typed.

    "C1 REL C2" reads from right to left: C2 has the relation to C1. So "C1 PAR C2" means that C2 is the parent of C1,
    and "C1 CHD C2 isa" that C2 isa C1.
    """
    if rela == "isa" or (rel == "CHD" and not rela):
        return "is_a", False
    if rela == "inverse_isa" or (rel == "PAR" and not rela):
        return "is_a", True
    return ("" if rel in _SAME_LEVEL else rela), False


@dataclass(slots=True)
class _Kinds:
    """Numbers for pairs of type and source, in the order in which they came."""

    numbers: dict[tuple[str, str], int] = field(default_factory=dict)
    types: set[str] = field(default_factory=set)

    def __call__(self, type: str, source: str) -> int:
        return self.numbers.setdefault((type, source), len(self.numbers))


def read_relations(folder: Path, wanted: Selection, cuis: Cuis, report: Report, say: Say) -> pa.RecordBatch:
    """Read MRREL into the table of relations, sorted by head, type, source and tail, each once.

    Raises:
        KnowledgeError: the table is damaged, or `relations` names a type that it does not have.
    """
    path, kinds, parts = folder / "MRREL.RRF", _Kinds(), [np.zeros(0, np.uint64)]
    bits = len(cuis.kept).bit_length()
    if 2 * bits + _KIND_BITS > 64:
        raise KnowledgeError(f"{folder}: {len(cuis.kept):,} concepts are more than a graph holds; choose vocabularies")
    columns = ("CUI1", "REL", "CUI2", "RELA", "SAB", "SUPPRESS")
    for line, batch in read_table(path, columns) if path.is_file() else ():
        parts.append(_keys(batch, path, line, wanted, cuis, kinds, report))
        say(f"MRREL.RRF: {line + len(batch) - 1:,} rows")
    if path.is_file():
        require_known("relation", wanted.relations, kinds.types, path)
    if len(kinds.numbers) >= 1 << _KIND_BITS:
        raise KnowledgeError(f"{path}: more than {1 << _KIND_BITS} pairs of type and source")
    pairs, keys = _sorted(parts, kinds, bits)
    say(f"{len(keys):,} different relations")
    mask = np.uint64((1 << bits) - 1)
    heads, tails = (keys >> np.uint64(bits + _KIND_BITS)).astype(np.int32), (keys & mask).astype(np.int32)
    codes = ((keys >> np.uint64(bits)) & np.uint64((1 << _KIND_BITS) - 1)).astype(np.int32)
    del keys
    straight = _without_circles(heads, tails, codes, pairs, cuis, report)
    report.kept["relations"] = int(np.count_nonzero(straight))
    return _table(heads[straight], tails[straight], codes[straight], pairs)


def _keys(
    batch: pa.RecordBatch, path: Path, line: int, wanted: Selection, cuis: Cuis, kinds: _Kinds, report: Report
) -> NDArray[np.uint64]:
    """Return the kept rows of a batch as numbers."""
    one, two = (cui_keys(batch.column(c), path, line) for c in ("CUI1", "CUI2"))
    (row1, there1), (row2, there2) = places(one, cuis.kept), places(two, cuis.kept)
    known = _named(one, there1, cuis) & _named(two, there2, cuis)
    types, forward = _meanings(batch)
    named = np.asarray([bool(t) for t in types.values], bool)[types.codes]
    kinds.types.update(t for t in types.values if t)
    chosen = np.asarray([wanted.relations is None or t in wanted.relations for t in types.values], bool)[types.codes]
    fits = {
        "suppressed": ~among(batch.column("SUPPRESS"), () if wanted.suppressed else SUPPRESSED),
        "vocabulary": among(batch.column("SAB"), wanted.vocabularies),
        "untyped": named,
        "relation": chosen,
        "dangling": known,
        "not_kept": there1 & there2,
        "self_loop": one != two,
    }
    kept = report.sieve("MRREL.RRF", fits)
    _examples(report, batch, fits, line)
    bits = np.uint64(len(cuis.kept).bit_length())
    head, tail = (np.where(forward, a, b)[kept].astype(np.uint64) for a, b in ((row1, row2), (row2, row1)))
    kind = _kind_numbers(batch.column("SAB"), types, kinds, kept)
    return np.asarray((head << (bits + np.uint64(_KIND_BITS))) | (kind << bits) | tail, np.uint64)


def _named(keys: NDArray[np.uint64], kept: NDArray[np.bool_], cuis: Cuis) -> NDArray[np.bool_]:
    """Say which CUIs stand in MRCONSO, if only in rows that were left out."""
    known = kept.copy()
    known[~kept] = places(keys[~kept], cuis.all)[1]
    return known


@dataclass(frozen=True, slots=True)
class _Coded:
    codes: IntArray
    values: list[str]


def _meanings(batch: pa.RecordBatch) -> tuple[_Coded, NDArray[np.bool_]]:
    """Return each row's type, and whether it leads from CUI1 to CUI2."""
    rels, relas = (batch.column(c).dictionary_encode() for c in ("REL", "RELA"))
    pairs = [meaning(rel, rela) for rel in rels.dictionary.to_pylist() for rela in relas.dictionary.to_pylist()]
    number = np.asarray(rels.indices) * len(relas.dictionary) + np.asarray(relas.indices)
    return _Coded(number, [p[0] for p in pairs]), np.asarray([p[1] for p in pairs], bool)[number]


def _kind_numbers(sources: pa.Array, types: _Coded, kinds: _Kinds, kept: NDArray[np.bool_]) -> NDArray[np.uint64]:
    coded = sources.dictionary_encode()
    names = coded.dictionary.to_pylist()
    pairs = (types.codes * len(names) + np.asarray(coded.indices))[kept]
    there, place = np.unique(pairs, return_inverse=True)
    numbers = [kinds(types.values[p // len(names)], names[p % len(names)]) for p in there.tolist()]
    return np.asarray(numbers, np.uint64)[place] if numbers else np.zeros(0, np.uint64)


def _examples(report: Report, batch: pa.RecordBatch, fits: dict[str, NDArray[np.bool_]], line: int) -> None:
    """Name a few rows that are wrong: with a dangling CUI, or about one concept only."""
    before = fits["suppressed"] & fits["vocabulary"] & fits["untyped"] & fits["relation"]
    for reason, wrong in (("dangling", ~fits["dangling"]), ("self_loop", fits["dangling"] & ~fits["self_loop"])):
        rows = np.flatnonzero(before & wrong)[:5].tolist()
        if rows:
            report.example(reason, (_told(batch, row, line) for row in rows))


def _told(batch: pa.RecordBatch, row: int, line: int) -> str:
    one, rel, two, rela = (batch.column(c)[row].as_py() for c in ("CUI1", "REL", "CUI2", "RELA"))
    return f"'{one} {rel} {two}{' ' + rela if rela else ''}' in line {line + row}"


def _sorted(
    parts: list[NDArray[np.uint64]], kinds: _Kinds, bits: int
) -> tuple[list[tuple[str, str]], NDArray[np.uint64]]:
    """Number the pairs of type and source in their order, and return the relations sorted, each once."""
    pairs = sorted(kinds.numbers)
    place = np.zeros(max(len(pairs), 1), np.uint64)
    for number, pair in enumerate(pairs):
        place[kinds.numbers[pair]] = number
    low, kind = np.uint64(bits), np.uint64((1 << _KIND_BITS) - 1)
    keys = np.empty(sum(map(len, parts)), np.uint64)
    at = 0
    while parts:
        part = parts.pop(0)
        renumbered = place[((part >> low) & kind).astype(np.int64)]
        keys[at : at + len(part)] = (part & ~(kind << low)) | (renumbered << low)
        at += len(part)
    keys.sort()
    fresh = np.ones(len(keys), bool)
    fresh[1:] = keys[1:] != keys[:-1]
    return pairs, keys[fresh]


def _without_circles(
    heads: IntArray, tails: IntArray, codes: IntArray, pairs: list[tuple[str, str]], cuis: Cuis, report: Report
) -> NDArray[np.bool_]:
    """Say which relations to keep: no is_a that another contradicts, then none that still lies on a circle."""
    kept = np.ones(len(heads), bool)
    is_a = np.flatnonzero(np.asarray([p[0] == "is_a" for p in pairs] or [False], bool)[codes])
    head, tail = heads[is_a].astype(np.int64), tails[is_a].astype(np.int64)
    stated = (head << 32) | tail
    wrong = np.isin(stated, np.intersect1d(stated, (tail << 32) | head))
    report.example("circle", _circles(cuis, head[wrong], tail[wrong]))
    rest = np.flatnonzero(~wrong)
    circle = rest[in_circles(head[rest], tail[rest])]
    report.example("circle", _circles(cuis, head[circle], tail[circle]))
    wrong[circle] = True
    kept[is_a[wrong]] = False
    report.leave_out("MRREL.RRF", "circle", int(np.count_nonzero(wrong)))
    return kept


def _circles(cuis: Cuis, heads: IntArray, tails: IntArray) -> Iterator[str]:
    for head, tail in zip(heads.tolist(), tails.tolist(), strict=True):
        one, two = cui_texts(cuis.kept[[head, tail]]).to_pylist()
        yield f"{one} is_a {two}"


def _table(heads: IntArray, tails: IntArray, codes: IntArray, pairs: list[tuple[str, str]]) -> pa.RecordBatch:
    import pyarrow as pa

    columns = {"head": pa.array(heads)}
    for name, side in (("type", 0), ("source", 1)):
        values = sorted({pair[side] for pair in pairs})
        place = np.asarray([values.index(pair[side]) for pair in pairs] or [0], np.int32)
        columns[name] = pa.DictionaryArray.from_arrays(pa.array(place[codes]), pa.array(values, pa.large_string()))
    return pa.record_batch({**columns, "tail": pa.array(tails)}).select(["head", "type", "tail", "source"])
