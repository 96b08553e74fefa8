"""VinDr-CXR, test part: `annotations/image_labels_test.csv` and `test/ID.dicom`; five radiologists' consensus."""

from __future__ import annotations

from kvlp.datasets.manifest import Manifest, Record
from kvlp.datasets.readers.common import finish, require_folder
from kvlp.datasets.readers.sources import ImageIndex, find_file, find_folder, label_values, read_rows, require_images
from kvlp.typing import PathLike

__all__ = ["read"]

_WHAT = "VinDr-CXR test"
_LICENCE = "PhysioNet Credentialed Health Data License 1.5.0"


def read(
    src: PathLike, out: PathLike, *, licence: str | None = None, copy: bool = False, overwrite: bool = False
) -> Manifest:
    """Write `out/manifest.csv`: a row for each test image, its 28 labels 1 or 0.

    Args:
        src: the folder; images lie in `test`, as .dicom, .dcm or .png.
        out: the folder of the new manifest.
        licence, copy, overwrite: see `kvlp.datasets.readers.common.finish`.
    """
    root = require_folder(src)
    table = find_file(root, "image_labels_test.csv", what=_WHAT)
    rows = read_rows(table, ("image_id", "Cardiomegaly", "No finding"))
    classes = [name for name in rows[0] if name not in ("image_id", "rad_ID", "rad_id")]
    folder = find_folder(root, "test") or root / "test"
    where = ImageIndex(folder, (".dicom", ".dcm", ".png"))
    base = folder.relative_to(root)
    records = [
        Record(
            id=row["image_id"],
            image=(base / where(row["image_id"], expected=f"{row['image_id']}.dicom")).as_posix(),
            view="PA",
            split="test",
            labels=label_values(row, classes, table),
            source="vindr",
            licence=_LICENCE,
        )
        for row in rows
    ]
    require_images(root, (r.image for r in records), what=_WHAT)
    return finish(records, root, out, licence=licence, copy=copy, overwrite=overwrite)
