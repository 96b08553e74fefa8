"""RSNA Pneumonia Detection Challenge: `stage_2_train_labels.csv` and `stage_2_train_images/ID.dcm`.

The challenge's column patientId names an image. Who the patient is, only RSNA's mapping to ChestX-ray14 says
(`pneumonia-challenge-dataset-mappings_2018.json`); it is used if it lies in the folder.
"""

from __future__ import annotations

from pathlib import Path

from kvlp.datasets.manifest import Manifest, Record
from kvlp.datasets.readers.common import finish, require_folder
from kvlp.datasets.readers.sources import (
    ImageIndex,
    find_file,
    label_values,
    optional_file,
    read_json,
    read_rows,
    require_images,
)
from kvlp.typing import ABSENT, PRESENT, PathLike

__all__ = ["read"]

_WHAT = "RSNA Pneumonia"
_LICENCE = "RSNA challenge terms; images NIH, no restriction on use"


def read(
    src: PathLike, out: PathLike, *, licence: str | None = None, copy: bool = False, overwrite: bool = False
) -> Manifest:
    """Write `out/manifest.csv`: a row for each image, Pneumonia 1 where a box was drawn (Target 1), else 0.

    With `stage_2_detailed_class_info.csv`, "Normal" is No Finding 1 and the other two classes are No Finding 0.

    Args:
        src: the folder; images lie anywhere below, as .dcm, .png or .jpg.
        out: the folder of the new manifest.
        licence, copy, overwrite: see `kvlp.datasets.readers.common.finish`.
    """
    root = require_folder(src)
    table = find_file(root, "stage_2_train_labels.csv", what=_WHAT)
    targets: dict[str, float] = {}
    for row in read_rows(table, ("patientId", "Target")):  # an image has a row for each of its boxes
        value = label_values(row, ["Target"], table).get("Target", ABSENT)
        targets[row["patientId"]] = max(value, targets.get(row["patientId"], ABSENT))
    normal, patient = _normal(root), _patients(root)
    where = ImageIndex(root, (".dcm", ".png", ".jpg"))
    records = [
        Record(
            id=name,
            image=where(name, expected=f"stage_2_train_images/{name}.dcm"),
            patient_id=patient.get(name, ""),
            split="train",
            labels={"Pneumonia": target, **({"No Finding": normal[name]} if name in normal else {})},
            source="rsna",
            licence=_LICENCE,
        )
        for name, target in targets.items()
    ]
    require_images(root, (r.image for r in records), what=_WHAT)
    return finish(records, root, out, licence=licence, copy=copy, overwrite=overwrite)


def _normal(root: Path) -> dict[str, float]:
    table = optional_file(root, "stage_2_detailed_class_info.csv")
    rows = read_rows(table, ("patientId", "class")) if table else []
    return {row["patientId"]: PRESENT if row["class"] == "Normal" else ABSENT for row in rows}


def _patients(root: Path) -> dict[str, str]:
    """Image -> the patient of its ChestX-ray14 image: `00000013_004.png` is of 00000013."""
    path = optional_file(root, "pneumonia-challenge-dataset-mappings_2018.json")
    entries = read_json(path, ("subset_img_id", "img_id")) if path else []
    return {str(entry["subset_img_id"]): str(entry["img_id"]).partition("_")[0] for entry in entries}
