"""ChestX-Det10, test part: `test.json` (boxes of three radiologists) and the PNG images."""

from __future__ import annotations

import re

from kvlp.datasets.manifest import Manifest, Record
from kvlp.datasets.readers.common import finish, require_folder
from kvlp.datasets.readers.sources import ImageIndex, find_file, read_json, require_images
from kvlp.errors import DataError
from kvlp.typing import ABSENT, PRESENT, PathLike

__all__ = ["read"]

_WHAT = "ChestX-Det10 test"
_LICENCE = "no licence stated; images NIH, no restriction on use"
_FINDINGS = (
    "Atelectasis", "Calcification", "Consolidation", "Effusion", "Emphysema", "Fibrosis", "Fracture", "Mass", "Nodule",
    "Pneumothorax",
)  # fmt: skip
_NIH = re.compile(r"(\d{8})_\d{3}")


def read(
    src: PathLike, out: PathLike, *, licence: str | None = None, copy: bool = False, overwrite: bool = False
) -> Manifest:
    """Write `out/manifest.csv`: a row for each image of `test.json`; a finding without a box is absent.

    Args:
        src: the folder; images lie anywhere below (`test_data/36199.png`).
        out: the folder of the new manifest.
        licence, copy, overwrite: see `kvlp.datasets.readers.common.finish`.
    """
    root = require_folder(src)
    path = find_file(root, "test.json", what=_WHAT)
    entries = read_json(path, ("file_name", "syms"))
    where = ImageIndex(root, (".png", ".jpg"))
    records = []
    for number, entry in enumerate(entries, 1):
        stem = str(entry["file_name"]).rpartition(".")[0]
        unknown = sorted(set(map(str, entry["syms"])) - set(_FINDINGS))
        if unknown:
            raise DataError(f"{path}: entry {number}: {unknown[0]!r} is none of {', '.join(_FINDINGS)}")
        nih = _NIH.fullmatch(stem)
        records.append(
            Record(
                id=stem,
                image=where(stem, expected=f"test_data/{stem}.png"),
                patient_id=nih[1] if nih else "",
                split="test",
                labels={name: PRESENT if name in entry["syms"] else ABSENT for name in _FINDINGS},
                source="chestxdet10",
                licence=_LICENCE,
            )
        )
    require_images(root, (r.image for r in records), what=_WHAT)
    return finish(records, root, out, licence=licence, copy=copy, overwrite=overwrite)
