"""UMLS tables (Rich Release Format) as Arrow batches: rows end with "|", quotes have no meaning, texts are UTF-8."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kvlp.errors import KnowledgeError
from kvlp.knowledge.lookup import text_buffers

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["COLUMNS", "cui_keys", "cui_texts", "read_table"]

_NAMES = {
    "MRCONSO.RRF": "CUI LAT TS LUI STT SUI ISPREF AUI SAUI SCUI SDUI SAB TTY CODE STR SRL SUPPRESS CVF",
    "MRREL.RRF": "CUI1 AUI1 STYPE1 REL CUI2 AUI2 STYPE2 RELA RUI SRUI SAB SL RG DIR SUPPRESS CVF",
    "MRSTY.RRF": "CUI TUI STN STY ATUI CVF",
    "MRDEF.RRF": "CUI AUI ATUI SATUI SAB DEF SUPPRESS CVF",
    "MRRANK.RRF": "MRRANK_RANK SAB TTY SUPPRESS",
}
#: table -> its columns (NLM, UMLS Reference Manual, chapter 3)
COLUMNS = {table: names.split() for table, names in _NAMES.items()}
#: bytes read at once
_BLOCK = 8 << 20
#: a CUI has at most so many bytes, so that it fits into one 64-bit number
_WIDTH = 8


def read_table(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield (number of the first row, from 1; batch of string columns) of an RRF table.

    Raises:
        KnowledgeError: a row of another length (a truncated file) or bytes that are not UTF-8; names the line.
    """
    import pyarrow as pa

    line = 1
    try:
        for batch in _open(path, columns):
            if np.any(np.diff(text_buffers(batch.column("end"))[0])):
                raise _fault(path, "something stands after the last '|'")
            yield line, batch.select(columns)
            line += len(batch)
    except (pa.ArrowException, OSError) as error:
        raise _fault(path, type(error).__name__) from None


def _open(path: Path, columns: Sequence[str]) -> Any:
    import pyarrow as pa
    from pyarrow import csv

    names = [*COLUMNS[path.name], "end"]
    return csv.open_csv(
        path,
        csv.ReadOptions(column_names=names, block_size=_BLOCK),
        csv.ParseOptions(delimiter="|", quote_char=False, newlines_in_values=False, ignore_empty_lines=False),
        csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            include_columns=[*columns, "end"],
            strings_can_be_null=False,
        ),
    )


def _fault(path: Path, reason: str) -> KnowledgeError:
    """Read a table that was refused line by line, and say what is wrong where."""
    expected, number = len(COLUMNS[path.name]), 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            row = line.rstrip(b"\r\n")
            try:
                row.decode("utf-8")
            except UnicodeDecodeError:
                return KnowledgeError(f"{path} line {number}: not UTF-8; RRF tables are UTF-8")
            if row.count(b"|") != expected or not row.endswith(b"|"):
                return KnowledgeError(
                    f"{path} line {number}: expected {expected} columns, each ended by '|', got {row.count(b'|')};"
                    " is the file cut off?"
                )
            if b"\r" in row:
                return KnowledgeError(f"{path} line {number}: holds a carriage return within the row")
    if not number:
        return KnowledgeError(f"{path}: the file is empty; expected rows of {expected} columns")
    return KnowledgeError(f"{path}: not readable as an RRF table ({reason})")


def cui_keys(cuis: pa.Array, path: Path, line: int) -> NDArray[np.uint64]:
    """Return each CUI as a number that sorts as its text does.

    Raises:
        KnowledgeError: a CUI is empty or longer than 8 bytes; names the line, counted from `line`.
    """
    offsets, data = text_buffers(cuis)
    lengths, data = np.diff(offsets), data[offsets[0] : offsets[-1]]
    if (lengths == _WIDTH).all():
        return np.asarray(data.view(">u8").astype(np.uint64))
    wrong = np.flatnonzero((lengths == 0) | (lengths > _WIDTH))
    if wrong.size:
        raise KnowledgeError(
            f"{path} line {line + wrong[0]}: expected a CUI of at most {_WIDTH} characters, got"
            f" '{cuis[int(wrong[0])].as_py()}'"
        )
    padded = np.zeros((len(lengths), _WIDTH), np.uint8)
    place = np.arange(len(data)) - np.repeat(offsets[:-1] - offsets[0], lengths)
    padded[np.repeat(np.arange(len(lengths)), lengths), place] = data
    return np.asarray(padded.view(">u8").astype(np.uint64).ravel())


def cui_texts(keys: NDArray[np.uint64]) -> pa.Array:
    """Return the CUIs of keys as strings."""
    import pyarrow as pa

    data = np.ascontiguousarray(keys.astype(">u8")).view(np.uint8).reshape(-1, _WIDTH)
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.count_nonzero(data, axis=1))]).astype(np.int64)
    return pa.LargeStringArray.from_buffers(len(keys), pa.py_buffer(ends), pa.py_buffer(data[data != 0]))
