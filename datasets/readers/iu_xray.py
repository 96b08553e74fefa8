"""Indiana University chest radiograph reports (Open-i): `iu_xray_reports.csv`, with or without the image files.

Columns: uid, findings, impression, indication, comparison, images (`Frontal:FILE;Lateral:FILE`), gold_* (0/1), split.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from kvlp.datasets.manifest import Manifest, Record
from kvlp.datasets.readers.common import finish, require_columns
from kvlp.datasets.tables import read_table
from kvlp.errors import DataError
from kvlp.typing import PathLike

__all__ = ["read"]

_FILE = "iu_xray_reports.csv"
_IMAGE_FOLDERS = ("images", "images_normalized", ".")
_LICENCE = "CC BY-NC-ND 4.0"


def read(
    src: PathLike,
    out: PathLike,
    *,
    licence: str | None = None,
    copy: bool = False,
    overwrite: bool = False,
    lateral: bool = False,
) -> Manifest:
    """Write `out/manifest.csv`: a row for each frontal image found (with `lateral`, every image), else one a report.

    Args:
        src: the CSV file or the folder that holds it; image files lie beside it, in `images/` or `images_normalized/`.
        out: the folder of the new manifest.
        licence, copy, overwrite: see `kvlp.datasets.readers.common.finish`.
        lateral: keep the lateral images too.
    """
    path = Path(src) / _FILE if Path(src).is_dir() else Path(src)
    table = read_table(path)
    require_columns(path, table.columns, ("uid", "findings", "impression", "images", "split"))
    if table.problems:
        raise DataError(f"{path}: row {table.problems[0].row}: {table.problems[0].message}")
    records = [record for row in table.rows for record in _records(row, path.parent, lateral=lateral)]
    return finish(records, path.parent, out, licence=licence, copy=copy, overwrite=overwrite)


def _records(row: Mapping[str, str], root: Path, *, lateral: bool) -> Iterator[Record]:
    uid = row["uid"]
    shared = {
        "findings": row["findings"],
        "impression": row["impression"],
        "patient_id": uid,
        "study_id": uid,
        "split": row["split"],
        "source": "iu-xray",
        "licence": _LICENCE,
        "labels": _labels(row),
        "extra": {name: row[name] for name in ("indication", "comparison") if row.get(name)},
    }
    found = [(view, file) for view, name in _images(row["images"]) if (file := _find(root, name))]
    wanted = [(view, file) for view, file in found if lateral or view.lower() == "frontal"]
    for number, (view, file) in enumerate(wanted):
        yield Record(id=f"{uid}-{number}", image=file, view=view.lower(), **shared)  # type: ignore[arg-type]
    if not wanted:
        yield Record(id=uid, **shared)  # type: ignore[arg-type]


def _images(cell: str) -> Iterator[tuple[str, str]]:
    for part in filter(None, cell.split(";")):
        view, _, name = part.partition(":")
        yield view.strip(), Path(name.strip()).name


def _find(root: Path, name: str) -> str:
    return next((f"{folder}/{name}" for folder in _IMAGE_FOLDERS if name and (root / folder / name).is_file()), "")


def _labels(row: Mapping[str, str]) -> dict[str, float]:
    """Gold labels 1 and 0. `gold_normal` 0 does not say that something is wrong, so only its 1 is kept."""
    labels = {}
    for column, cell in row.items():
        name = column.removeprefix("gold_").replace("_", " ")
        if name == column or cell not in ("0", "1"):
            continue
        if name != "normal":
            labels[name] = float(cell)
        elif cell == "1":
            labels["No Finding"] = 1.0
    return labels
