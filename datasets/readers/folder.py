"""Any folder of PNG, JPEG and DICOM files; a text file of the same name beside an image is its report."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from kvlp.datasets.dicom import DicomFacts, looks_like_dicom, read_facts
from kvlp.datasets.files import read_text
from kvlp.datasets.images import IMAGE_ENDINGS
from kvlp.datasets.manifest import Manifest, Record
from kvlp.datasets.readers.common import finish, require_folder
from kvlp.errors import DataError, DicomError
from kvlp.typing import PathLike

__all__ = ["read"]

_MAX_TEXT_BYTES = 1 << 20


def read(
    src: PathLike, out: PathLike, *, licence: str | None = None, copy: bool = False, overwrite: bool = False
) -> Manifest:
    """Write `out/manifest.csv` with a row for each image below `src`; links are not followed.

    The id is the path without the ending. DICOM files give their view, and patient and study as hashes.
    """
    root = require_folder(src)
    paths = sorted(_images(root))
    if not paths:
        raise DataError(f"{root}: no file ends in {', '.join(IMAGE_ENDINGS)}")
    return finish(_records(root, paths), root, out, licence=licence, copy=copy, overwrite=overwrite)


def _images(root: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder) / name
            if path.suffix.lower() in IMAGE_ENDINGS and not path.is_symlink() and not name.startswith("."):
                yield path


def _records(root: Path, paths: list[Path]) -> Iterator[Record]:
    names = [path.relative_to(root).with_suffix("").as_posix() for path in paths]
    shared = Counter(names)
    for path, name in zip(paths, names):
        relative = path.relative_to(root).as_posix()
        text = path.with_suffix(".txt")
        facts = _facts(path)
        yield Record(
            id=relative if shared[name] > 1 else name,
            image=relative,
            text=read_text(text, max_bytes=_MAX_TEXT_BYTES).strip() if text.is_file() else "",
            patient_id=facts.patient_id,
            study_id=facts.study_id,
            view=facts.view,
            source=root.resolve().name,
        )


def _facts(path: Path) -> DicomFacts:
    """A DICOM file's facts; nothing of another file or of one that `kvlp data check` will name."""
    with path.open("rb") as file:
        if not looks_like_dicom(file.read(4096)):
            return DicomFacts("", "", "")
    try:
        return read_facts(path)
    except DicomError:
        return DicomFacts("", "", "")
