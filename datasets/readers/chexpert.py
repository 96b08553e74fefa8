"""CheXpert's test set: radiologists' labels of 500 studies, and the frontal JPEG images.

Two tables are in use: `groundtruth.csv` (column Study, one row a study) and `test_labels.csv` of CheXlocalize (column
Path, one row an image). Below the folder lies `test/patient64741/study1/view1_frontal.jpg`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from kvlp.datasets.manifest import Manifest, Record
from kvlp.datasets.readers.common import finish, require_folder
from kvlp.datasets.readers.sources import find_file, find_folder, label_values, read_rows, require_images
from kvlp.errors import DataError
from kvlp.typing import PathLike

__all__ = ["read"]

_WHAT = "CheXpert test"
_TABLES = ("groundtruth.csv", "test_labels.csv")
_LICENCE = "Stanford University Dataset Research Use Agreement"


def read(
    src: PathLike, out: PathLike, *, licence: str | None = None, copy: bool = False, overwrite: bool = False
) -> Manifest:
    """Write `out/manifest.csv`: a row for each frontal image of the test set. Lateral images are left out.

    Args:
        src: the folder that holds the table and, in `test` or `CheXpert-v1.0/test`, the images.
        out: the folder of the new manifest.
        licence, copy, overwrite: see `kvlp.datasets.readers.common.finish`.
    """
    root = require_folder(src)
    table = find_file(root, *_TABLES, what=_WHAT)
    key = "Study" if table.name == _TABLES[0] else "Path"
    rows = read_rows(table, (key, "Cardiomegaly", "Pleural Effusion"))
    classes = [name for name in rows[0] if name != key]
    folder = find_folder(root, "test", "CheXpert-v1.0/test", "CheXpert/test")
    base = (folder or root / "test").relative_to(root)
    records = [
        record
        for row in rows
        for record in _records(root, base, _below_test(row[key], table), label_values(row, classes, table))
    ]
    require_images(root, (r.image for r in records), what=_WHAT)
    return finish(records, root, out, licence=licence, copy=copy, overwrite=overwrite)


def _below_test(cell: str, table: Path) -> Path:
    """`patient64741/study1` or `patient64741/study1/view1_frontal.jpg` of a path that may begin anywhere."""
    parts = cell.replace("\\", "/").split("/")
    if "test" not in parts[:-2] or ".." in parts:
        raise DataError(f"{table}: expected paths such as test/patient64741/study1, got {cell[:60]!r}")
    return Path(*parts[parts.index("test") + 1 :])


def _records(root: Path, base: Path, within: Path, labels: dict[str, float]) -> Iterator[Record]:
    patient, study = within.parts[:2]
    if within.suffix:
        images = [within] if "frontal" in within.name else []
    else:
        seen = sorted((root / base / within).glob("*frontal.*"))
        images = [within / path.name for path in seen] or [within / "view1_frontal.jpg"]
    for image in images:
        yield Record(
            id=image.with_suffix("").as_posix(),
            image=(base / image).as_posix(),
            patient_id=patient,
            study_id=f"{patient}/{study}",
            view="frontal",
            split="test",
            labels=labels,
            source="chexpert",
            licence=_LICENCE,
        )
