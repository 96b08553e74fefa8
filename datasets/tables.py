"""Tables of strings: CSV, JSON Lines and Parquet in and out. Row-level faults are collected, not fatal.

A row is a dict column -> cell. Numbers are never guessed: "007" stays "007".
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kvlp.datasets.files import atomic_write, read_bytes, read_text
from kvlp.errors import ManifestError
from kvlp.typing import PathLike

__all__ = ["FORMATS", "RowProblem", "Table", "read_table", "write_table"]

FORMATS = (".csv", ".jsonl", ".parquet")
MAX_BYTES = 4 << 30
# a spreadsheet would run such a cell as a formula (CWE-1236); numbers are harmless
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\Z")


@dataclass(frozen=True, slots=True)
class RowProblem:
    """One fault of one row. `row` counts data rows from 1."""

    row: int
    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class Table:
    """Columns in file order and rows of strings; `problems` holds the faults of single rows."""

    columns: tuple[str, ...]
    rows: list[dict[str, str]]
    problems: tuple[RowProblem, ...] = ()


def read_table(path: PathLike) -> Table:
    """Read a table of strings by the file's ending (.csv, .jsonl, .parquet).

    Raises: ManifestError, one line, for a file that is empty, a folder, not UTF-8, without header, with doubled
    column names, without rows, or of another type.
    """
    path = Path(path)
    readers = {".csv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ManifestError(
            f"{path}: expected a file ending in {', '.join(FORMATS)}, got {path.suffix or 'no ending'!r}"
        )
    table = reader(path)
    if not table.rows:
        raise ManifestError(f"{path}: the table has no rows")
    return table


def write_table(path: PathLike, columns: Sequence[str], rows: Iterable[Mapping[str, str]]) -> None:
    """Write a table of strings in one atomic step; the format follows the file's ending."""
    path = Path(path)
    writers = {".csv": _csv_bytes, ".jsonl": _jsonl_bytes, ".parquet": _parquet_bytes}
    writer = writers.get(path.suffix.lower())
    if writer is None:
        raise ManifestError(
            f"{path}: expected a file ending in {', '.join(FORMATS)}, got {path.suffix or 'no ending'!r}"
        )
    atomic_write(path, writer(columns, rows))


def _read_csv(path: Path) -> Table:
    text = read_text(path, max_bytes=MAX_BYTES, error=ManifestError)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[dict[str, str]] = []
    problems: list[RowProblem] = []
    columns: tuple[str, ...] | None = None
    try:
        for cells in reader:
            if not cells:
                continue
            if columns is None:
                columns = _header(path, cells)
                continue
            if len(cells) != len(columns):
                message = f"line {reader.line_num}: expected {len(columns)} cells, got {len(cells)}"
                problems.append(RowProblem(len(rows) + 1, "ragged_row", message))
            padded = cells + [""] * (len(columns) - len(cells))
            rows.append({name: _unescape(cell) for name, cell in zip(columns, padded)})
    except csv.Error as problem:
        raise ManifestError(f"{path}: line {reader.line_num}: not CSV: {problem}") from problem
    if columns is None:
        raise ManifestError(f"{path}: expected a header line with column names, got blank lines")
    return Table(columns, rows, tuple(problems))


def _header(path: Path, cells: Sequence[str]) -> tuple[str, ...]:
    names = tuple(cell.strip() for cell in cells)
    for number, name in enumerate(names, 1):
        if not name:
            raise ManifestError(f"{path}: column {number} has no name (pandas writes such a one: use index=False)")
        if name in names[: number - 1]:
            raise ManifestError(f"{path}: two columns are called {name!r}; rename or remove one")
    return names


def _read_jsonl(path: Path) -> Table:
    text = read_text(path, max_bytes=MAX_BYTES, error=ManifestError)
    rows: list[dict[str, str]] = []
    problems: list[RowProblem] = []
    columns: dict[str, None] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        row, fault = _json_row(line)
        if fault:
            problems.append(RowProblem(len(rows) + 1, "bad_json", f"line {number}: {fault}"))
        columns.update(dict.fromkeys(row))
        rows.append(row)
    return Table(tuple(columns), [{name: row.get(name, "") for name in columns} for row in rows], tuple(problems))


def _json_row(line: str) -> tuple[dict[str, str], str]:
    try:
        value = json.loads(line, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as problem:
        reason = problem.msg if isinstance(problem, json.JSONDecodeError) else str(problem)
        return {}, f"not JSON: {reason}"
    if not isinstance(value, dict):
        return {}, f"expected one JSON object a line, got {type(value).__name__}"
    row: dict[str, str] = {}
    fault = ""
    for name, cell in value.items():
        if name == "labels" and isinstance(cell, dict):
            row |= {f"label:{key}": _cell(item) or "" for key, item in cell.items()}
            continue
        text = _cell(cell)
        if text is None:
            fault = f"column {name!r}: expected a string or number, got {type(cell).__name__}"
        row[name] = text or ""
    return row, fault


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    row = dict(pairs)
    if len(row) != len(pairs):
        raise ValueError("a key occurs twice")
    return row


def _cell(value: object) -> str | None:
    """A cell as a string; None when it is of a kind that a table of strings cannot hold."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str | int | float):
        return str(value)
    return None


def _read_parquet(path: Path) -> Table:
    _require_pyarrow()
    import pyarrow as pa
    import pyarrow.parquet as pq

    data = read_bytes(path, max_bytes=MAX_BYTES, error=ManifestError)
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        size = sum(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
        if size > MAX_BYTES:
            raise ManifestError(f"{path}: {size} bytes after decompression, above the limit of {MAX_BYTES}")
        columns = _header(path, file.schema_arrow.names)
        table = file.read()
    except (pa.ArrowException, OSError) as problem:
        raise ManifestError(f"{path}: not a Parquet file: {str(problem).splitlines()[0]}") from problem
    cells: list[list[str]] = []
    for name in columns:
        kind = table.schema.field(name).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if not (_is_string(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
            raise ManifestError(f"{path}: column {name!r}: expected strings or numbers, got {kind}")
        cells.append([_cell(value) or "" for value in table.column(name).to_pylist()])
    return Table(columns, [dict(zip(columns, row)) for row in zip(*cells)])


def _require_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError as problem:  # pyarrow 26 refuses NumPy 1 in this way
        raise ManifestError(f"Parquet needs pyarrow: {problem}; save the manifest as .csv or .jsonl") from problem


def _is_string(kind: object) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _csv_bytes(columns: Sequence[str], rows: Iterable[Mapping[str, str]]) -> bytes:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    # a row of one empty cell would be a blank line, which a reader skips; csv quotes it
    writer.writerows([_escape(row.get(name, "")) for name in columns] for row in rows)
    return buffer.getvalue().encode("utf-8")


def _escape(cell: str) -> str:
    return f"'{cell}" if _FORMULA.match(cell) and not _NUMBER.match(cell) else cell


def _unescape(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _jsonl_bytes(columns: Sequence[str], rows: Iterable[Mapping[str, str]]) -> bytes:
    lines = (json.dumps({name: row.get(name, "") for name in columns}, ensure_ascii=False) for row in rows)
    return "".join(f"{line}\n" for line in lines).encode("utf-8")


def _parquet_bytes(columns: Sequence[str], rows: Iterable[Mapping[str, str]]) -> bytes:
    _require_pyarrow()
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = list(rows)
    table = pa.table({name: pa.array([row.get(name, "") for row in rows], pa.string()) for name in columns})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()
