"""The manifest: one table of image-report records, as CSV, JSON Lines or Parquet."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path

from kvlp.datasets.tables import RowProblem, read_table, write_table
from kvlp.errors import ManifestError
from kvlp.typing import PathLike

__all__ = ["Manifest", "Record", "Study", "format_labels", "label_problem", "parse_labels"]

_TEXT_COLUMNS = ("text", "findings", "impression")
_LABEL_PREFIX = "label:"


@dataclass(frozen=True, slots=True)
class Record:
    """One image with what is known of it. Every field but `labels` is a string: "007" is not 7.

    Attributes:
        image: path, absolute or relative to the manifest's folder; empty in a manifest of texts alone.
        text: the whole report; or `findings` and `impression` hold its two parts.
        labels: name -> 1.0 present, 0.0 absent, -1.0 uncertain; a name that is missing was not mentioned.
        extra: further columns of the file, kept as they are.
    """

    id: str
    image: str = ""
    text: str = ""
    findings: str = ""
    impression: str = ""
    patient_id: str = ""
    study_id: str = ""
    view: str = ""
    split: str = ""
    labels: Mapping[str, float] = field(default_factory=dict)
    source: str = ""
    licence: str = ""
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def report(self) -> str:
        """The report: `text`, or else findings and impression under their headers; empty if there is none."""
        if self.text:
            return self.text
        parts = (("FINDINGS", self.findings), ("IMPRESSION", self.impression))
        return "\n".join(f"{header}: {part}" for header, part in parts if part)


@dataclass(frozen=True, slots=True)
class Study:
    """The images of one examination, which share one report."""

    study_id: str
    records: tuple[Record, ...]

    @property
    def report(self) -> str:
        """The first report among the records; empty if there is none."""
        return next((record.report for record in self.records if record.report), "")


class Manifest(Sequence[Record]):
    """An ordered, unchanging list of records with the folder that their relative paths start from.

    `problems` holds the faults of single rows that `load(strict=False)` met; it is empty after a strict load.
    """

    def __init__(self, records: Iterable[Record], root: PathLike = ".", *, problems: Iterable[RowProblem] = ()) -> None:
        self._records = tuple(records)
        self.root = Path(root)
        self.problems = tuple(problems)

    @classmethod
    def load(cls, path: PathLike, *, strict: bool = True) -> Manifest:
        """Read a manifest (.csv, .jsonl, .parquet).

        Args:
            path: the file; relative image paths start from its folder.
            strict: refuse a file with any faulty row; otherwise keep the faults in `problems`, for `kvlp data check`.

        Raises:
            ManifestError: the file cannot be read as a manifest, or (strict) a row is faulty.
        """
        path = Path(path)
        table = read_table(path)
        _require_columns(path, table.columns)
        problems = list(table.problems)
        records = [_record(row, number, problems) for number, row in enumerate(table.rows, 1)]
        if strict:
            problems += (
                RowProblem(number, "label_range", fault)
                for number, record in enumerate(records, 1)
                if (fault := label_problem(record.labels))
            )
        if strict and problems:
            first = min(problems, key=lambda problem: problem.row)
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise ManifestError(f"{path}: row {first.row}: {first.message}{more}; see: kvlp data check {path}")
        return cls(records, path.parent, problems=problems)

    def save(self, path: PathLike) -> None:
        """Write the manifest atomically, in the format of the file's ending. Paths are written as they are."""
        records = self._records
        names = [f.name for f in fields(Record) if f.name != "extra"]
        used = [n for n in names if n in ("id", "image") or any(getattr(r, n) for r in records)]
        extra = dict.fromkeys(name for record in records for name in record.extra)
        clash = next((name for name in extra if name in names or name.startswith(_LABEL_PREFIX)), None)
        if clash:
            raise ManifestError(f"extra column {clash!r} has the name of a manifest column; rename it")
        write_table(path, [*used, *extra], (_row(record, used) for record in records))

    def subset(
        self,
        split: str | None = None,
        source: str | None = None,
        where: Callable[[Record], bool] | None = None,
    ) -> Manifest:
        """Return the records of one split and source for which `where` holds, in order; None means any.

        Raises: ManifestError if no record has that split or source (names those that exist).
        """
        records: Iterable[Record] = self._records
        for name, wanted in (("split", split), ("source", source)):
            if wanted is None:
                continue
            records = [record for record in records if getattr(record, name) == wanted]
            if not records:
                known = sorted({getattr(record, name) for record in self._records} - {""})
                raise ManifestError(f"no record has {name} {wanted!r}; the manifest has: {', '.join(known) or 'none'}")
        return Manifest(filter(where, records) if where else records, self.root)

    def studies(self) -> list[Study]:
        """Group records that share patient and study id, in order of first appearance; one without is its own."""
        groups: dict[tuple[str, ...], list[Record]] = {}
        for number, record in enumerate(self._records):
            key = (record.patient_id, record.study_id) if record.study_id else ("", "", str(number))
            groups.setdefault(key, []).append(record)
        return [Study(group[0].study_id or group[0].id, tuple(group)) for group in groups.values()]

    def path_of(self, record: Record) -> Path:
        """Return the path of a record's image. Raises: ManifestError if it has none."""
        if not record.image:
            raise ManifestError(f"record {record.id!r} has no image")
        return self.root / record.image

    @property
    def content_hash(self) -> str:
        """SHA-256 (hex) over all records, whatever their order; of image paths only the file name counts."""
        digests = sorted(hashlib.sha256(_canonical(record)).digest() for record in self._records)
        return hashlib.sha256(b"".join(digests)).hexdigest()

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]  # int -> Record, slice -> Manifest
        if isinstance(index, slice):
            return Manifest(self._records[index], self.root)
        return self._records[index]

    def __repr__(self) -> str:
        return f"Manifest({len(self)} records, root={str(self.root)!r})"


def parse_labels(text: str) -> dict[str, float]:
    """Read "Pneumonia;Viral Pneumonia" (all present) or "Edema=0;Mass=-1" into name -> value.

    Raises: ManifestError for an empty name, a name that occurs twice, or a value that is not a number.
    """
    labels: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, equals, value = part.rpartition("=")
        name = name.strip() if equals else part
        if not name:
            raise ManifestError(f"label {part!r}: expected NAME or NAME=VALUE")
        if name in labels:
            raise ManifestError(f"label {name!r} is given twice")
        number = _number(name, value) if equals else 1.0
        if not math.isnan(number):
            labels[name] = number
    return labels


def format_labels(labels: Mapping[str, float]) -> str:
    """The inverse of `parse_labels`. NaN values (not mentioned) are left out."""
    known = {name: value for name, value in labels.items() if not math.isnan(value)}
    bad = next((name for name in known if ";" in name or name != name.strip() or not name), None)
    if bad is not None:
        raise ManifestError(f"label name {bad!r} cannot be written: it is empty, padded or holds a ';'")
    if all(value == 1 and "=" not in name for name, value in known.items()):
        return ";".join(known)
    return ";".join(f"{name}={value:g}" for name, value in known.items())


def label_problem(labels: Mapping[str, float]) -> str:
    """Return what is wrong with label values in one line; empty when all are 1, 0, -1 or NaN."""
    wrong = [f"{n!r} is {v:g}" for n, v in labels.items() if v not in (1.0, 0.0, -1.0) and not math.isnan(v)]
    return f"label {', '.join(wrong)}; expected 1 present, 0 absent, -1 uncertain or empty" if wrong else ""


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as problem:
        raise ManifestError(f"label {name!r}: expected 1, 0, -1 or empty, got {text[:40]!r}") from problem


def _require_columns(path: Path, columns: Sequence[str]) -> None:
    if "image" in columns or any(name in columns for name in _TEXT_COLUMNS):
        return
    near = get_close_matches("image", [c.lower() for c in columns], n=1, cutoff=0.5)
    near = [c for c in columns if c.lower() in (*near, "path", "file", "filename", "image_path")]
    hint = f"; rename {near[0]!r} to 'image'" if near else ""
    listed = ", ".join(repr(name[:40]) for name in columns[:12]) or "none that can be read"
    raise ManifestError(f"{path}: expected a column 'image' or 'text', got {listed}{hint}")


def _record(row: Mapping[str, str], number: int, problems: list[RowProblem]) -> Record:
    known = {f.name for f in fields(Record)} - {"labels", "extra"}
    values = {name: cell for name, cell in row.items() if name in known}
    labels: dict[str, float] = {}
    extra: dict[str, str] = {}
    try:
        labels = parse_labels(row.get("labels", ""))
        for name, cell in row.items():
            if name.startswith(_LABEL_PREFIX):
                if cell.strip() and not math.isnan(value := _number(name, cell)):
                    labels[name.removeprefix(_LABEL_PREFIX)] = value
            elif name not in known and name != "labels":
                extra[name] = cell
    except ManifestError as problem:
        problems.append(RowProblem(number, "bad_label", str(problem)))
    if "id" in row and not row["id"].strip():
        problems.append(RowProblem(number, "missing_id", "the id is empty"))
    # without an id column the image's path names the record; a text alone is named by its row
    values["id"] = values.get("id") or values.get("image") or f"row-{number}"
    return Record(**values, labels=labels, extra=extra)


def _row(record: Record, used: Sequence[str]) -> dict[str, str]:
    cells = {name: getattr(record, name) for name in used if name != "labels"}
    if "labels" in used:
        cells["labels"] = format_labels(record.labels)
    return cells | dict(record.extra)


def _canonical(record: Record) -> bytes:
    values = {f.name: getattr(record, f.name) for f in fields(Record)}
    values["image"] = Path(record.image).name
    values["labels"] = {name: float(value) for name, value in record.labels.items() if not math.isnan(value)}
    values["extra"] = dict(record.extra)
    return json.dumps(values, sort_keys=True, ensure_ascii=True).encode()
