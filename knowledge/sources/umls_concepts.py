"""Concepts of a UMLS release: names from MRCONSO, types from MRSTY, definitions from MRDEF."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kvlp.errors import KnowledgeError
from kvlp.knowledge.lookup import fold_texts, text_buffers
from kvlp.knowledge.sources.rrf import cui_keys, cui_texts, read_table
from kvlp.knowledge.sources.umls_rows import (
    SUPPRESSED,
    Report,
    Selection,
    among,
    first_of_each,
    listed,
    places,
    require_known,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from kvlp.typing import IntArray

__all__ = ["Concepts", "Cuis", "read_concepts"]

#: places of MRRANK in a rank; a vocabulary and term type that it does not have come last
_RANKS = 1 << 12
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Cuis:
    """CUIs as sorted numbers: those of the graph's concepts (number i is row i), and all of MRCONSO."""

    kept: NDArray[np.uint64]
    all: NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Concepts:
    """The table of concepts, and their CUIs."""

    table: pa.RecordBatch
    cuis: Cuis


@dataclass(frozen=True, slots=True)
class _Types:
    """Rows of MRSTY: CUI and the type's name; `allowed` are the CUIs that have a wanted type, None for all."""

    keys: NDArray[np.uint64]
    names: pa.Array
    allowed: NDArray[np.uint64] | None


@dataclass(slots=True)
class _Names:
    """Kept rows of MRCONSO: CUI, rank (less is better), text, and the code in its vocabulary ("" if it has none)."""

    allowed: NDArray[np.uint64] | None
    ranking: pa.Array
    keys: list[NDArray[np.uint64]] = field(default_factory=list)
    ranks: list[NDArray[np.uint32]] = field(default_factory=list)
    texts: list[pa.Array] = field(default_factory=list)
    codes: list[pa.Array] = field(default_factory=list)
    seen: list[NDArray[np.uint64]] = field(default_factory=list)
    languages: set[str] = field(default_factory=set)
    vocabularies: set[str] = field(default_factory=set)
    kept_vocabularies: set[str] = field(default_factory=set)


def read_concepts(folder: Path, wanted: Selection, report: Report, say: Say) -> Concepts:
    """Read MRSTY, MRCONSO and MRDEF.

    Raises:
        KnowledgeError: a table is damaged, or a filter names what the release does not have.
    """
    import pyarrow as pa

    types = _read_types(folder, wanted, report)
    names = _read_names(folder, wanted, types, report, say)
    keys = np.concatenate(names.keys)
    cuis = Cuis(np.unique(keys), np.unique(np.concatenate(names.seen)))
    rows = np.searchsorted(cuis.kept, keys).astype(np.int32)
    texts, codes = pa.concat_arrays(names.texts), pa.concat_arrays(names.codes)
    ranks = np.concatenate(names.ranks)
    vocabularies = names.kept_vocabularies
    del names, keys
    ids = cui_texts(cuis.kept)
    source_ids = _source_ids(ids, rows, codes)
    del codes
    title, synonyms = _named(rows, ranks, texts, len(ids))
    del texts, ranks, rows
    say(f"{len(ids):,} concepts, {len(ids) + len(synonyms.values):,} different names")
    columns = {
        "id": ids,
        "name": title,
        "definition": _definitions(folder, wanted, cuis, vocabularies, report),
        "number": pa.DictionaryArray.from_arrays(np.zeros(len(ids), np.int32), pa.array(["count"], pa.large_string())),
        "types": _types_of(cuis.kept, types),
        "source_ids": source_ids,
        "synonyms": synonyms,
        "descriptions": listed(np.zeros(0, np.int64), pa.array([], pa.large_string()), len(ids)),
    }
    report.kept |= {"concepts": len(ids), "names": len(ids) + len(synonyms.values)}
    return Concepts(pa.record_batch(columns), cuis)


# ---- names ---------------------------------------------------------------------------------------------------------


def _read_names(folder: Path, wanted: Selection, types: _Types, report: Report, say: Say) -> _Names:
    path = folder / "MRCONSO.RRF"
    names = _Names(types.allowed, _ranking(folder))
    for line, batch in read_table(path, ("CUI", "LAT", "TS", "STT", "ISPREF", "SAB", "TTY", "CODE", "STR", "SUPPRESS")):
        _take_names(names, batch, cui_keys(batch.column("CUI"), path, line), wanted, report)
        say(f"MRCONSO.RRF: {line + len(batch) - 1:,} rows")
    require_known("language", wanted.languages, names.languages, path)
    require_known("vocabulary", wanted.vocabularies, names.vocabularies, path)
    if not sum(map(len, names.keys)):
        raise KnowledgeError(f"{path}: no row is left; the filters fit nothing together")
    return names


def _take_names(
    names: _Names,
    batch: pa.RecordBatch,
    keys: NDArray[np.uint64],
    wanted: Selection,
    report: Report,
) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    names.seen.append(np.unique(keys))
    names.languages.update(pc.unique(batch.column("LAT")).to_pylist())
    names.vocabularies.update(pc.unique(batch.column("SAB")).to_pylist())
    kept = report.sieve(
        "MRCONSO.RRF",
        {
            "language": among(batch.column("LAT"), wanted.languages),
            "suppressed": ~among(batch.column("SUPPRESS"), () if wanted.suppressed else SUPPRESSED),
            "vocabulary": among(batch.column("SAB"), wanted.vocabularies),
            "semantic_type": np.ones(len(keys), bool) if names.allowed is None else places(keys, names.allowed)[1],
            "blank": np.asarray(pc.not_equal(pc.utf8_trim_whitespace(batch.column("STR")), ""), bool),
        },
    )
    batch = batch.take(pa.array(np.flatnonzero(kept)))
    names.kept_vocabularies.update(pc.unique(batch.column("SAB")).to_pylist())
    names.keys.append(keys[kept])
    names.ranks.append(_ranks(batch, wanted.languages or ("ENG",), names.ranking))
    names.texts.append(batch.column("STR").cast(pa.large_string()))
    names.codes.append(_codes(batch))


def _codes(batch: pa.RecordBatch) -> pa.Array:
    """ "SAB:CODE", or "" where that is no code of another vocabulary."""
    import pyarrow as pa
    import pyarrow.compute as pc

    coded = pc.and_(pc.not_equal(batch.column("SAB"), "MTH"), pc.not_equal(batch.column("CODE"), "NOCODE"))
    codes = pc.binary_join_element_wise(batch.column("SAB"), batch.column("CODE"), ":")
    return pc.if_else(coded, codes, "").cast(pa.large_string())


def _ranking(folder: Path) -> pa.Array:
    """Return "SAB|TTY" in the order of MRRANK, the most preferred first; none if the table is missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    path = folder / "MRRANK.RRF"
    if not path.is_file():
        return pa.array([], pa.string())
    batches = [batch for _, batch in read_table(path, ("MRRANK_RANK", "SAB", "TTY"))]
    table = pa.Table.from_batches(batches)
    try:
        order = pc.sort_indices(pc.cast(table["MRRANK_RANK"], pa.int64()), sort_keys=[("", "descending")])
    except pa.ArrowInvalid:
        raise KnowledgeError(f"{path}: expected numbers in the first column") from None
    pairs = pc.binary_join_element_wise(table["SAB"], table["TTY"], "|").take(order)
    return pc.unique(pairs.slice(0, _RANKS - 1))


def _ranks(batch: pa.RecordBatch, languages: tuple[str, ...], ranking: pa.Array) -> NDArray[np.uint32]:
    """Less is better: language, then TS, STT, ISPREF, then MRRANK."""
    import pyarrow as pa
    import pyarrow.compute as pc

    def number(texts: pa.Array, order: pa.Array, missing: int) -> NDArray[np.uint32]:
        return np.asarray(pc.fill_null(pc.index_in(texts, value_set=order), missing)).astype(np.uint32)

    ranks = number(batch.column("LAT"), pa.array(languages, pa.string()), len(languages))
    for column, best in (("TS", "P"), ("STT", "PF"), ("ISPREF", "Y")):
        ranks = ranks * np.uint32(2) + ~among(batch.column(column), (best,))
    pairs = pc.binary_join_element_wise(batch.column("SAB"), batch.column("TTY"), "|")
    return np.asarray(ranks * np.uint32(_RANKS) + number(pairs, ranking, _RANKS - 1), np.uint32)


def _named(rows: IntArray, ranks: NDArray[np.uint32], texts: pa.Array, count: int) -> tuple[pa.Array, pa.Array]:
    """Return the best name of each concept, and its other names, each folded form once."""
    scores = (ranks.astype(np.uint64) << np.uint64(32)) | np.arange(len(rows), dtype=np.uint64)
    best = np.full(count, np.iinfo(np.uint64).max)
    np.minimum.at(best, rows, scores)
    names = (best & np.uint64(0xFFFFFFFF)).astype(np.int64)
    other = np.ones(len(rows), bool)
    other[names] = False
    order = np.concatenate([names, np.flatnonzero(other)])  # names first, so that no synonym repeats one
    kept = first_of_each(order, rows, texts, fold_texts)[count:]
    return texts.take(names), listed(rows[kept], texts.take(kept), count)


def _source_ids(ids: pa.Array, rows: IntArray, codes: pa.Array) -> pa.Array:
    """The CUI, then the codes in other vocabularies, each once."""
    import pyarrow as pa
    import pyarrow.compute as pc

    text = pa.large_string()
    kept = first_of_each(np.flatnonzero(np.diff(text_buffers(codes)[0])), rows, codes, lambda texts: texts)
    own = pc.binary_join_element_wise(pa.scalar("UMLS", text), ids, pa.scalar(":", text))
    owners = np.concatenate([np.arange(len(ids), dtype=rows.dtype), rows[kept]])
    return listed(owners, pa.concat_arrays([own, codes.take(kept)]), len(ids))


# ---- semantic types and definitions --------------------------------------------------------------------------------


def _read_types(folder: Path, wanted: Selection, report: Report) -> _Types:
    import pyarrow as pa

    path, chosen = folder / "MRSTY.RRF", wanted.semantic_types
    keys, names, allowed = [np.zeros(0, np.uint64)], [pa.array([], pa.large_string())], [np.zeros(0, np.uint64)]
    known: set[str] = set()
    if chosen and not path.is_file():
        raise KnowledgeError(f"{path}: missing; choosing semantic types needs it")
    for line, batch in read_table(path, ("CUI", "TUI", "STY")) if path.is_file() else ():
        report.read["MRSTY.RRF"] += len(batch)
        keys.append(cui_keys(batch.column("CUI"), path, line))
        names.append(batch.column("STY").cast(pa.large_string()))
        allowed.append(keys[-1][among(batch.column("STY"), chosen) | among(batch.column("TUI"), chosen)])
        known.update(batch.column("STY").unique().to_pylist(), batch.column("TUI").unique().to_pylist())
    require_known("semantic type", chosen, known, path)
    return _Types(np.concatenate(keys), pa.concat_arrays(names), np.unique(np.concatenate(allowed)) if chosen else None)


def _types_of(kept: NDArray[np.uint64], types: _Types) -> pa.Array:
    rows, there = places(types.keys, kept)
    order = first_of_each(np.flatnonzero(there), rows, types.names, lambda texts: texts)
    return listed(rows[order], types.names.take(order), len(kept))


def _definitions(folder: Path, wanted: Selection, cuis: Cuis, vocabularies: set[str], report: Report) -> pa.Array:
    """The first definition of each concept by a vocabulary that also names concepts in the wanted languages."""
    import pyarrow as pa
    import pyarrow.compute as pc

    path = folder / "MRDEF.RRF"
    rows: list[IntArray] = [np.zeros(0, np.int64)]
    texts = [pa.array([], pa.large_string())]
    for line, batch in read_table(path, ("CUI", "SAB", "DEF", "SUPPRESS")) if path.is_file() else ():
        place, there = places(cui_keys(batch.column("CUI"), path, line), cuis.kept)
        kept = report.sieve(
            "MRDEF.RRF",
            {
                "vocabulary": among(batch.column("SAB"), vocabularies),
                "suppressed": ~among(batch.column("SUPPRESS"), () if wanted.suppressed else SUPPRESSED),
                "not_kept": there,
            },
        )
        rows.append(place[kept])
        texts.append(batch.column("DEF").cast(pa.large_string()).take(np.flatnonzero(kept)))
    owners, first = np.unique(np.concatenate(rows), return_index=True)
    at = np.full(len(cuis.kept), -1)
    at[owners] = first
    report.kept["definitions"] = len(owners)
    return pc.fill_null(pa.concat_arrays(texts).take(pa.array(at, mask=at < 0)), "")
