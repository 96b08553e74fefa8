"""PadChest: one CSV of 160,868 images, and 16-bit PNG files. Only what physicians labelled, only frontal views."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

from kvlp.datasets.manifest import Manifest, Record
from kvlp.datasets.readers.common import finish, require_folder
from kvlp.datasets.readers.sources import ImageIndex, find_file, read_rows, require_images
from kvlp.errors import DataError
from kvlp.typing import ABSENT, PRESENT, PathLike

__all__ = ["read"]

_WHAT = "PadChest"
_TABLE = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
_LICENCE = "PadChest Dataset Research Use Agreement"
_FRONTAL = ("PA", "AP", "AP_horizontal")
#: said of the study, not of the patient
_NORMAL, _NO_FINDING = "normal", "No Finding"


def read(
    src: PathLike, out: PathLike, *, licence: str | None = None, copy: bool = False, overwrite: bool = False
) -> Manifest:
    """Write `out/manifest.csv`: a row for each frontal image whose labels a physician gave (MethodLabel Physician).

    Labels are present; "normal" is No Finding. What a report does not name is not written as absent. Rows without
    a label are left out.

    Args:
        src: the folder; images lie in `IMAGEDIR/` (0 to 54), or anywhere below.
        out: the folder of the new manifest.
        licence, copy, overwrite: see `kvlp.datasets.readers.common.finish`.
    """
    root = require_folder(src)
    table = find_file(root, _TABLE, f"{_TABLE}.gz", what=_WHAT)
    rows = read_rows(table, ("ImageID", "PatientID", "Projection", "MethodLabel", "Labels"))
    where = ImageIndex(root, (".png",))
    records = [
        _record(row, labels, where)
        for number, row in enumerate(rows, 1)
        if row["MethodLabel"] == "Physician"
        and row["Projection"] in _FRONTAL
        and (labels := _labels(row["Labels"], table, number))
    ]
    if not records:
        raise DataError(f"{table}: no row has MethodLabel Physician and Projection {', '.join(_FRONTAL)}")
    require_images(root, (r.image for r in records), what=_WHAT)
    return finish(records, root, out, licence=licence, copy=copy, overwrite=overwrite)


def _record(row: Mapping[str, str], labels: dict[str, float], where: ImageIndex) -> Record:
    name = row["ImageID"]
    stem = name.rpartition(".")[0]
    return Record(
        id=stem,
        image=where(stem, expected=f"{row.get('ImageDir', '')}/{name}".lstrip("/")),
        patient_id=row["PatientID"],
        study_id=row.get("StudyID", ""),
        view=row["Projection"],
        split="test",
        labels=labels,
        source="padchest",
        licence=_LICENCE,
        extra={"sex": row.get("PatientSex_DICOM", ""), "birth_year": row.get("PatientBirth", "")},
    )


def _labels(cell: str, table: Path, number: int) -> dict[str, float]:
    """The labels of a cell such as "['cardiomegaly', ' pleural effusion', '']"; none for an empty cell."""
    if cell in ("", "nan"):
        return {}
    try:
        named = ast.literal_eval(cell) if len(cell) < 4096 else None
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        named = None
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise DataError(f"{table}: row {number}: expected Labels such as ['cardiomegaly', 'nodule']")
    present = dict.fromkeys(filter(None, (" ".join(name.lower().split()) for name in named)), PRESENT)
    if not present:
        return {}
    return {_NO_FINDING: present.pop(_NORMAL, ABSENT), **present}
