"""SIIM-ACR Pneumothorax: `train-rle.csv` (a mask, or -1 for none) and DICOM files by study and series."""

from __future__ import annotations

from kvlp.datasets.manifest import Manifest, Record
from kvlp.datasets.readers.common import finish, require_folder
from kvlp.datasets.readers.sources import ImageIndex, find_file, read_rows, require_images
from kvlp.errors import DataError
from kvlp.typing import ABSENT, PRESENT, PathLike

__all__ = ["read"]

_WHAT = "SIIM-ACR Pneumothorax"
_LICENCE = "SIIM-ACR challenge terms; images NIH, no restriction on use"


def read(
    src: PathLike, out: PathLike, *, licence: str | None = None, copy: bool = False, overwrite: bool = False
) -> Manifest:
    """Write `out/manifest.csv`: a row for each image, Pneumothorax 1 where it has a mask, 0 where the cell is -1.

    Args:
        src: the folder; images lie anywhere below (`dicom-images-train/STUDY/SERIES/ID.dcm`), also as .png.
        out: the folder of the new manifest.
        licence, copy, overwrite: see `kvlp.datasets.readers.common.finish`.
    """
    root = require_folder(src)
    table = find_file(root, "train-rle.csv", "stage_2_train.csv", what=_WHAT)
    masked: dict[str, bool] = {}
    for number, row in enumerate(read_rows(table, ("ImageId", "EncodedPixels")), 1):
        cell = row["EncodedPixels"]
        if cell != "-1" and not cell.replace(" ", "").isdigit():
            raise DataError(f"{table}: row {number}: expected run lengths or -1 in EncodedPixels, got {cell[:20]!r}")
        masked[row["ImageId"]] = masked.get(row["ImageId"], False) or cell != "-1"
    where = ImageIndex(root, (".dcm", ".png"))
    records = [
        Record(
            id=name,
            image=where(name, expected=f"dicom-images-train/{name}.dcm"),
            split="train",
            labels={"Pneumothorax": PRESENT if mask else ABSENT},
            source="siim",
            licence=_LICENCE,
        )
        for name, mask in masked.items()
    ]
    require_images(root, (r.image for r in records), what=_WHAT)
    return finish(records, root, out, licence=licence, copy=copy, overwrite=overwrite)
