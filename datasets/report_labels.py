"""Labels of a table of reports: text columns in, one column a class out, row by row in the same order."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kvlp.datasets.tables import RowProblem, Table, read_table, write_table
from kvlp.errors import DataError, KvlpError, ManifestError
from kvlp.knowledge.sections import SECTION_NAMES
from kvlp.knowledge.surfaces import near
from kvlp.typing import PathLike

if TYPE_CHECKING:
    from kvlp.knowledge.labels import ReportLabeler

__all__ = ["LabelledTable", "Reports", "label_table", "read_reports"]

#: columns that say which row is which; of these, those that a table has are kept beside the labels
_IDS = ("id", "uid", "report_id", "study_id", "image_id", "image", "accession", "patient_id", "subject_id", "split")


@dataclass(frozen=True, slots=True)
class Reports:
    """A table and the report text of each of its rows.

    Attributes:
        table: columns and rows, strings.
        texts: one a row; the columns joined, each under its name as a header if it is a section's name.
    """

    table: Table
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LabelledTable:
    """What `label_table` did.

    Attributes:
        path: the file written.
        rows: how many rows it has, as many as the input.
        counts: class -> label value as written ("1", "0", "-1", "" for not mentioned) -> rows.
        problems: rows whose text was not read, with the reason; their labels are empty.
    """

    path: Path
    rows: int
    counts: Mapping[str, Mapping[str, int]]
    problems: tuple[RowProblem, ...]


def read_reports(path: PathLike, columns: Sequence[str]) -> Reports:
    """Read a table (CSV, JSON Lines, Parquet) and join its text columns.

    Raises:
        ManifestError: not such a table, a faulty row, or no such column; the message holds near names.
    """
    table = read_table(path)
    if table.problems:
        first = table.problems[0]
        raise ManifestError(f"{path}: row {first.row}: {first.message} ({len(table.problems)} faulty rows in all)")
    for column in columns:
        if column not in table.columns:
            close = near(column, table.columns, n=1)
            hint = f"; did you mean '{close[0]}'?" if close else f"; there are {', '.join(table.columns)}"
            raise ManifestError(f"{path}: no column '{column}'{hint}")
    if not columns:
        raise ManifestError(f"{path}: name at least one column that holds report text")
    return Reports(table, tuple(_joined(row, columns) for row in table.rows))


def label_table(
    path: PathLike,
    out: PathLike,
    labeler: ReportLabeler,
    *,
    columns: Sequence[str],
    keep: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> LabelledTable:
    """Label every row of a table and write the labels: 1, 0, -1, or an empty cell for "not mentioned".

    Args:
        path: table with report text.
        out: table to write, in one step when all rows are done; report text never goes into it.
        labeler: what reads the texts.
        columns: text columns, in the order in which they are read.
        keep: columns to copy; default: those that identify a row (id, uid, study_id, ...), else a column "row" from 1.
        progress: receives rows done and rows in all.

    Raises:
        ManifestError: not a table, or no such column.
        DataError: a label would overwrite a kept column of the same name.
    """
    reports = read_reports(path, columns)
    kept = _kept(reports.table, keep, columns, Path(path))
    clash = [c for c in labeler.classes if c in kept]
    if clash:
        raise DataError(f"{path}: '{clash[0]}' is a kept column and a class; keep other columns")
    counts: dict[str, dict[str, int]] = {c: {"1": 0, "0": 0, "-1": 0, "": 0} for c in labeler.classes}
    problems: list[RowProblem] = []

    def rows() -> Iterator[dict[str, str]]:
        for number, (row, text) in enumerate(zip(reports.table.rows, reports.texts, strict=True), 1):
            cells = _labels(labeler, number, text, problems)
            for name, cell in cells.items():
                counts[name][cell] += 1
            if progress is not None:
                progress(number, len(reports.texts))
            yield {**{c: row.get(c, "") if c in row else str(number) for c in kept}, **cells}

    write_table(out, [*kept, *labeler.classes], list(rows()))
    return LabelledTable(Path(out), len(reports.texts), counts, tuple(problems))


def _joined(row: Mapping[str, str], columns: Sequence[str]) -> str:
    parts = [(c, (row.get(c) or "").strip()) for c in columns]
    return "\n".join(f"{c.upper()}: {text}" if c.lower() in SECTION_NAMES else text for c, text in parts if text)


def _kept(table: Table, keep: Sequence[str], text: Sequence[str], path: Path) -> list[str]:
    for column in keep:
        if column not in table.columns:
            raise ManifestError(f"{path}: no column '{column}' to keep; there are {', '.join(table.columns)}")
    return list(keep) or [c for c in _IDS if c in table.columns and c not in text] or ["row"]


def _labels(labeler: ReportLabeler, number: int, text: str, problems: list[RowProblem]) -> dict[str, str]:
    try:
        labels = labeler(text)
    except KvlpError as error:
        problems.append(RowProblem(number, "text", str(error)))
        labels = dict.fromkeys(labeler.classes, math.nan)
    return {name: "" if math.isnan(value) else str(int(value)) for name, value in labels.items()}
