"""NIH ChestX-ray14: `Data_Entry_2017_v2020.csv`, `test_list.txt` and the PNG images.

The labels were mined from reports. A finding that is not listed was not found by the mining; it is not written as
absent, except in images of "No Finding", which denies all fourteen.
"""

from __future__ import annotations

from collections.abc import Mapping

from kvlp.datasets.files import read_text
from kvlp.datasets.manifest import Manifest, Record
from kvlp.datasets.readers.common import finish, require_folder
from kvlp.datasets.readers.sources import ImageIndex, find_file, read_rows, require_images
from kvlp.typing import ABSENT, PRESENT, PathLike

__all__ = ["read"]

_FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
)  # fmt: skip
_NO_FINDING = "No Finding"
_WHAT = "ChestX-ray14"
_LICENCE = "NIH: no restriction on use, attribution asked"


def read(
    src: PathLike, out: PathLike, *, licence: str | None = None, copy: bool = False, overwrite: bool = False
) -> Manifest:
    """Write `out/manifest.csv`: a row for each image of the table, split "test" by the official list, else "train".

    Args:
        src: the folder; images lie in `images_001/images` to `images_012/images`, `images`, or anywhere below.
        out: the folder of the new manifest.
        licence, copy, overwrite: see `kvlp.datasets.readers.common.finish`.
    """
    root = require_folder(src)
    table = find_file(root, "Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv", what=_WHAT)
    tested = set(read_text(find_file(root, "test_list.txt", what=_WHAT), max_bytes=1 << 26).split())
    where = ImageIndex(root, (".png", ".jpg"))
    rows = read_rows(table, ("Image Index", "Finding Labels", "Patient ID", "View Position"))
    records = [_record(row, tested, where) for row in rows]
    require_images(root, (r.image for r in records), what=_WHAT)
    return finish(records, root, out, licence=licence, copy=copy, overwrite=overwrite)


def _record(row: Mapping[str, str], tested: set[str], where: ImageIndex) -> Record:
    name = row["Image Index"]
    stem = name.rpartition(".")[0]
    return Record(
        id=stem,
        image=where(stem, expected=f"images/{name}"),
        patient_id=row["Patient ID"],
        view=row["View Position"],
        split="test" if name in tested else "train",
        labels=_labels(row["Finding Labels"]),
        source="chestxray14",
        licence=_LICENCE,
        extra={"age": row.get("Patient Age", ""), "sex": row.get("Patient Gender") or row.get("Patient Sex", "")},
    )


def _labels(cell: str) -> dict[str, float]:
    named = [name.strip() for name in cell.split("|") if name.strip()]
    if _NO_FINDING in named:
        return {**dict.fromkeys(_FINDINGS, ABSENT), _NO_FINDING: PRESENT}
    return {**dict.fromkeys(named, PRESENT), _NO_FINDING: ABSENT} if named else {}
