"""What the readers of benchmarks share: finding a file or an image in a folder, and tables as they are published.

Published tables have columns without a name (pandas' index), names with a blank before them, and may be gzipped;
`kvlp.datasets.tables` is stricter, because a manifest is ours.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kvlp.datasets.files import read_bytes, read_text
from kvlp.errors import DataError
from kvlp.typing import PathLike

__all__ = [
    "ImageIndex",
    "find_file",
    "find_folder",
    "label_values",
    "optional_file",
    "read_json",
    "read_rows",
    "require_images",
]

_MAX_BYTES = 1 << 30
#: how deep below the folder a table may lie
_DEPTH = 2


def find_file(root: PathLike, *names: str, what: str) -> Path:
    """Return the first of the names that lies in the folder or up to two folders below it.

    Args:
        root: the folder that the user gave.
        names: file names, the best first.
        what: what is being read, for the error: "ChestX-ray14".

    Raises:
        DataError: one line that says what was looked for, where, and what the folder holds.
    """
    found = _found(Path(root), names, Path.is_file)
    if found is None:
        raise DataError(f"{what}: looked for {' or '.join(names)} in {root} and {_DEPTH} levels below; {_held(root)}")
    return found


def optional_file(root: PathLike, name: str) -> Path | None:
    """The file of that name in the folder or up to two levels below; None if there is none."""
    return _found(Path(root), (name,), Path.is_file)


def find_folder(root: PathLike, *names: str) -> Path | None:
    """Return the first of the folders (`images` or `a/b`) that lies in `root` or up to two levels below, else None."""
    return _found(Path(root), names, Path.is_dir)


def _found(root: Path, names: Sequence[str], kind: Callable[[Path], bool]) -> Path | None:
    layer = [root]
    for depth in range(_DEPTH + 1):
        for name in names:
            for folder in layer:
                if kind(folder / name):
                    return folder / name
        if depth < _DEPTH:
            layer = sorted(inner for folder in layer for inner in _folders(folder))
    return None


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir()]
    except OSError:
        return []


def _held(root: PathLike) -> str:
    """What a folder holds, in words for an error; names only, the first few."""
    if not Path(root).is_dir():
        return f"{root} is {'a file' if Path(root).exists() else 'not there'}"
    names = sorted(entry.name for entry in os.scandir(root))
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return f"it holds {', '.join(names[:6])}{more}" if names else "it is empty"


def read_rows(path: Path, needed: Iterable[str]) -> list[dict[str, str]]:
    """Read a published CSV (also .csv.gz): rows as dicts of strings; columns without a name are left out.

    Raises:
        DataError: not such a file, or a column of `needed` is missing; the columns that there are, are named.
    """
    text = _gunzipped(path) if path.suffix == ".gz" else read_text(path, max_bytes=_MAX_BYTES)
    lines = csv.reader(io.StringIO(text, newline=""))
    try:
        header = [cell.strip() for cell in next(lines, [])]
        missing = [name for name in needed if name not in header]
        if missing:
            shown = ", ".join(filter(None, header[:10])) or "none"
            raise DataError(f"{path}: expected the column {missing[0]!r}; its columns are {shown}")
        rows = [dict(zip(header, cells)) for cells in lines if cells]
    except csv.Error as problem:
        raise DataError(f"{path}: line {lines.line_num}: not CSV: {problem}") from problem
    short = next((n for n, row in enumerate(rows, 1) if not set(needed) <= set(row)), None)
    if short is not None or not rows:
        raise DataError(f"{path}: " + (f"row {short} ends early" if rows else "the table has no rows"))
    return [{name: cell.strip() for name, cell in row.items() if name} for row in rows]


def _gunzipped(path: Path) -> str:
    packed = io.BytesIO(read_bytes(path, max_bytes=_MAX_BYTES))
    try:
        data = gzip.GzipFile(fileobj=packed).read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise DataError(f"{path}: more than {_MAX_BYTES} bytes when unpacked")
        return data.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as problem:
        raise DataError(f"{path}: not a gzipped UTF-8 table: {problem}") from problem


def read_json(path: Path, needed: Iterable[str]) -> list[dict[str, Any]]:
    """Read a JSON list of objects.

    Raises:
        DataError: not JSON, no list of objects, or an entry without one of the keys `needed`.
    """
    text = read_text(path, max_bytes=_MAX_BYTES)
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise DataError(f"{path}: not JSON: {problem}") from problem
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(f"{path}: expected a list of objects")
    for number, entry in enumerate(entries, 1):
        missing = [key for key in needed if key not in entry]
        if missing:
            raise DataError(f"{path}: entry {number} has no {missing[0]!r}; its keys are {', '.join(entry)}")
    return entries


class ImageIndex:
    """Where the images of a folder lie, by file name without its ending.

    Args:
        root: the folder; links to folders are followed, each folder once.
        endings: which files count: (".png", ".jpg").
    """

    def __init__(self, root: Path, endings: Sequence[str]) -> None:
        self._root = root
        self._where: dict[str, str] = {}
        self._second: dict[str, str] = {}
        for folder, names in _walk(root):
            for name in names:
                stem, dot, ending = name.rpartition(".")
                if dot + ending.lower() in endings and not name.startswith("."):
                    path = Path(folder, name).relative_to(root).as_posix()
                    (self._second if stem in self._where else self._where)[stem] = path

    def __call__(self, stem: str, *, expected: str) -> str:
        """The path of an image from the root; the `expected` one if it is not there, which `kvlp eval` will name.

        Raises:
            DataError: two files have that name, in two folders (two sizes of one data set).
        """
        if stem in self._second:
            one, other = Path(self._where[stem]).parent, Path(self._second[stem]).parent
            raise DataError(f"{self._root}: images lie twice, in {one} and {other}; leave one of them in the folder")
        return self._where.get(stem, expected)


def _walk(root: Path) -> Iterator[tuple[str, list[str]]]:
    seen: set[str] = set()
    for folder, inner, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            inner.clear()
            continue
        seen.add(real)
        inner.sort()
        yield folder, names


def require_images(root: Path, images: Iterable[str], *, what: str) -> None:
    """Refuse a folder in which none of the listed images lies.

    Raises:
        DataError: how many were looked for, and where the first was expected.
    """
    listed = list(images)
    if not any((root / image).is_file() for image in listed):
        first = listed[0] if listed else "none"
        raise DataError(f"{what}: none of {len(listed):,} listed images lies below {root}; looked for {first}")


def label_values(row: Mapping[str, str], columns: Iterable[str], path: Path) -> dict[str, float]:
    """The labels of a row: 1, 0 and -1 as they stand, empty cells left out.

    Raises:
        DataError: another value.
    """
    labels: dict[str, float] = {}
    for name in columns:
        cell = row.get(name, "")
        if cell:
            try:
                labels[name] = float(cell)
            except ValueError:
                labels[name] = 9.0
            if labels[name] not in (1.0, 0.0, -1.0):
                raise DataError(f"{path}: column {name!r}: expected 1, 0, -1 or nothing, got {cell[:20]!r}")
    return labels
