"""Tables of strings with known columns, CSV or TSV, plain or gzip: what is wrong is named with its file and line."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kvlp.errors import KnowledgeError
from kvlp.knowledge.surfaces import near

__all__ = ["Columns", "join_list", "read_rows", "read_text", "split_list", "write_rows"]

Row = dict[str, str]
# a spreadsheet would run such a cell as a formula (CWE-1236); numbers are harmless
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\Z")
_SEPARATORS = ",\t;"


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a table: required ones, optional ones, and other header names that mean the same."""

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    also: Mapping[str, str] = field(default_factory=dict)

    @property
    def known(self) -> tuple[str, ...]:
        """Required, then optional columns."""
        return (*self.required, *self.optional)


def read_text(path: Path, what: str) -> str:
    """Return a UTF-8 text file, plain or gzip, without its byte order mark.

    Args:
        path: the file; one that ends in .gz is unpacked.
        what: what was expected, for the message ("an OBO file").

    Raises:
        KnowledgeError: missing, a folder, cut off, damaged, not UTF-8 or binary; names the file, and the line.
    """
    if not path.is_file():
        raise KnowledgeError(f"{path}: no such file; expected {what}")
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise KnowledgeError(
            f"{path}: not readable as a gzip file ({type(error).__name__}); is it cut off or damaged?"
        ) from None
    if b"\0" in data:
        raise KnowledgeError(f"{path} line {_line(data, data.index(0))}: holds NUL bytes; expected {what}, UTF-8 text")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise KnowledgeError(
            f"{path}: not UTF-8 (byte {error.start}); save the file as UTF-8 (line {_line(data, error.start)} is not)"
        ) from None


def _line(data: bytes, at: int) -> int:
    return data.count(b"\n", 0, at) + 1


def read_rows(path: Path, columns: Columns, what: str = "a table") -> list[tuple[int, Row]]:
    """Read a table: (line number, row) pairs with stripped cells; the separator is comma, tab or semicolon.

    Raises:
        KnowledgeError: as `read_text`, or wrong columns, a row of another length, an empty required cell.
    """
    text = read_text(path, what)
    first = text.split("\n", 1)[0]
    separator = max(_SEPARATORS, key=first.count)
    lines = _lines(path, text, separator)
    header = _header(path, next(lines, (0, []))[1], columns)
    rows = []
    for number, cells in lines:
        if not cells:
            continue
        if len(cells) != len(header):
            raise KnowledgeError(f"{path} line {number}: expected {len(header)} cells, got {len(cells)}")
        row = {name: _unescape(cell.strip()) for name, cell in zip(header, cells, strict=True)}
        empty = next((c for c in columns.required if not row[c]), None)
        if empty:
            raise KnowledgeError(f"{path} line {number}: column '{empty}' is empty")
        rows.append((number, row))
    return rows


def _lines(path: Path, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        for cells in reader:
            yield reader.line_num, cells
    except csv.Error as error:
        raise KnowledgeError(f"{path} line {reader.line_num}: not readable as CSV ({error}); is it cut off?") from None


def _header(path: Path, cells: Sequence[str], columns: Columns) -> list[str]:
    """The table's own names for its columns, checked."""
    also = {**{name: name for name in columns.known}, **columns.also}
    names = [also.get(cell.strip(), also.get(cell.strip().lower(), cell.strip())) for cell in cells]
    unknown = [name for name in names if name not in columns.known]
    missing = [name for name in columns.required if name not in names]
    if missing:
        close = near(missing[0], unknown, n=1)
        hint = f"; is '{close[0]}' meant to be '{missing[0]}'?" if close else ""
        raise KnowledgeError(
            f"{path}: expected the columns {', '.join(columns.required)}; missing {', '.join(missing)}{hint}"
        )
    if len(set(names)) != len(names):
        raise KnowledgeError(f"{path}: a column name is used twice")
    if unknown:
        close = near(unknown[0], columns.known, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else f"; known are {', '.join(columns.known)}"
        raise KnowledgeError(f"{path}: unknown column '{unknown[0]}'{hint}")
    return names


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a CSV table; a cell that a spreadsheet would run as a formula gets a quote, which `read_rows` removes."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([_escape(cell) for cell in row] for row in rows)


def _escape(cell: str) -> str:
    return f"'{cell}" if _FORMULA.match(cell) and not _NUMBER.match(cell) else cell


def _unescape(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def join_list(parts: Iterable[str]) -> str:
    r"""Write several strings into one cell, separated by ";"; a ";" inside becomes "\;" and a "\" becomes "\\"."""
    return "; ".join(part.replace("\\", "\\\\").replace(";", "\\;") for part in parts)


def split_list(cell: str) -> tuple[str, ...]:
    """Read what `join_list` wrote; empty parts and repetitions are dropped."""
    parts = re.findall(r"(?:\\.|[^;\\])+", cell)
    return tuple(dict.fromkeys(plain for p in parts if (plain := re.sub(r"\\(.)", r"\1", p).strip())))
