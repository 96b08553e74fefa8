"""SLAKE, its English questions: `test.json` (and train, validate or validation) and `imgs/xmlab102/source.jpg`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kvlp.datasets.manifest import Manifest, Record
from kvlp.datasets.readers.common import finish, require_folder
from kvlp.datasets.readers.questions import question_record
from kvlp.datasets.readers.sources import find_file, find_folder, read_json, require_images
from kvlp.errors import DataError
from kvlp.typing import PathLike

__all__ = ["read"]

_WHAT = "SLAKE"
_FILES = {"test.json": "test", "train.json": "train", "validate.json": "dev", "validation.json": "dev"}
_LICENCE = "CC BY 4.0"
_NEEDED = ("qid", "img_name", "question", "answer", "q_lang", "answer_type", "content_type")


def read(
    src: PathLike, out: PathLike, *, licence: str | None = None, copy: bool = False, overwrite: bool = False
) -> Manifest:
    """Write `out/manifest.csv`: a row for each English question; Chinese ones are left out.

    Columns beside a manifest's own: question, answer, answer_type (closed or open), kind, modality, organ. The
    patient is the image's folder: the data set does not say more.

    Args:
        src: the folder with the JSON files and `imgs`.
        out: the folder of the new manifest.
        licence, copy, overwrite: see `kvlp.datasets.readers.common.finish`.
    """
    root = require_folder(src)
    folder = find_file(root, "test.json", what=_WHAT).parent
    images = (find_folder(root, "imgs") or root / "imgs").relative_to(root)
    records = [
        _record(entry, images, split)
        for name, split in _FILES.items()
        if (folder / name).is_file()
        for entry in read_json(folder / name, _NEEDED)
        if entry["q_lang"] == "en"
    ]
    if not records:
        raise DataError(f"{folder}: no question has q_lang 'en'")
    require_images(root, (r.image for r in records), what=_WHAT)
    return finish(records, root, out, licence=licence, copy=copy, overwrite=overwrite)


def _record(entry: Mapping[str, Any], images: Path, split: str) -> Record:
    name = Path(str(entry["img_name"]))
    return question_record(
        id=str(entry["qid"]),
        image=(images / Path(*name.parts[-2:])).as_posix(),
        question=str(entry["question"]).strip(),
        answer=str(entry["answer"]).strip(),
        closed=str(entry["answer_type"]).strip().upper() == "CLOSED",
        kind=str(entry["content_type"]).strip(),
        patient_id=name.parts[-2] if len(name.parts) > 1 else name.stem,
        split=split,
        source="slake",
        licence=_LICENCE,
        modality=str(entry.get("modality", "")),
        organ=str(entry.get("location", "")),
    )
