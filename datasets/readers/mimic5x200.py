"""MIMIC-CXR 5x200: 200 images for each of five findings, each with that finding alone, and their reports.

There is no one list: the scripts that draw it (MedCLIP's and others) write a CSV over MIMIC-CXR-JPG. Needed are the
five columns of labels, `report`, and where the image is: `dicom_id`, or a path that ends in it (`imgpath`, `Path`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from kvlp.datasets.manifest import Manifest, Record
from kvlp.datasets.readers.common import finish, require_folder
from kvlp.datasets.readers.sources import ImageIndex, find_file, label_values, read_rows, require_images
from kvlp.errors import DataError
from kvlp.typing import PRESENT, PathLike

__all__ = ["read"]

_WHAT = "MIMIC-CXR 5x200"
_TABLES = ("mimic-5x200-meta.csv", "mimic_5x200_test.csv", "mimic_5x200.csv")
_FIVE = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
_LICENCE = "PhysioNet Credentialed Health Data License 1.5.0"


def read(
    src: PathLike, out: PathLike, *, licence: str | None = None, copy: bool = False, overwrite: bool = False
) -> Manifest:
    """Write `out/manifest.csv`: a row for each image of the list, with its one finding and its report.

    Args:
        src: the folder; images lie as in MIMIC-CXR-JPG (`files/p10/p10000032/s50414267/DICOM_ID.jpg`) or anywhere.
        out: the folder of the new manifest.
        licence, copy, overwrite: see `kvlp.datasets.readers.common.finish`.

    Raises:
        DataError: a row has none of the five findings, or several.
    """
    root = require_folder(src)
    table = find_file(root, *_TABLES, what=_WHAT)
    rows = read_rows(table, (*_FIVE, "report"))
    key = next((name for name in ("dicom_id", "imgpath", "Path", "path") if name in rows[0]), "")
    if not key:
        raise DataError(f"{table}: expected a column dicom_id, imgpath or Path that names the image")
    place = _finder(root)
    records = [_record(row, key, table, number, place) for number, row in enumerate(rows, 1)]
    require_images(root, (r.image for r in records), what=_WHAT)
    return finish(records, root, out, licence=licence, copy=copy, overwrite=overwrite)


def _record(
    row: Mapping[str, str], key: str, table: Path, number: int, place: Callable[[str, str, str], str]
) -> Record:
    labels = label_values(row, _FIVE, table)
    if list(labels.values()).count(PRESENT) != 1:
        raise DataError(f"{table}: row {number}: expected exactly one of {', '.join(_FIVE)} to be 1")
    name = PurePosixPath(row[key].replace("\\", "/")).stem
    patient, study = _whole(row.get("subject_id", "")), _whole(row.get("study_id", ""))
    return Record(
        id=name,
        image=place(name, patient, study),
        text=row["report"],
        patient_id=patient,
        study_id=study,
        view=row.get("ViewPosition", ""),
        split="test",
        labels=labels,
        source="mimic5x200",
        licence=_LICENCE,
    )


def _whole(cell: str) -> str:
    """pandas writes ids as 10000032.0 where a column had gaps."""
    return cell.removesuffix(".0")


def _finder(root: Path) -> Callable[[str, str, str], str]:
    """Where an image lies: by MIMIC-CXR-JPG's own way, else by looking through the folder once."""
    index: list[ImageIndex] = []

    def find(name: str, patient: str, study: str) -> str:
        own = f"files/p{patient[:2]}/p{patient}/s{study}/{name}.jpg"
        if (root / own).is_file():
            return own
        if not index:
            index.append(ImageIndex(root, (".jpg", ".jpeg", ".png")))
        return index[0](name, expected=own)

    return find
