"""VQA-RAD: the JSON of its OSF page with "VQA_RAD Image Folder", or copies with train.json, test.json and images/."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kvlp.datasets.manifest import Manifest, Record
from kvlp.datasets.readers.common import finish, require_folder
from kvlp.datasets.readers.questions import question_record
from kvlp.datasets.readers.sources import find_file, find_folder, read_json, require_images
from kvlp.typing import PathLike

__all__ = ["read"]

_WHAT = "VQA-RAD"
_PUBLIC = "VQA_RAD Dataset Public.json"
_TEST, _TRAIN = ("test.json", "testset.json"), ("train.json", "trainset.json")
_LICENCE = "CC0 1.0"
_NEEDED = ("qid", "image_name", "question", "answer", "answer_type", "question_type")


def read(
    src: PathLike, out: PathLike, *, licence: str | None = None, copy: bool = False, overwrite: bool = False
) -> Manifest:
    """Write `out/manifest.csv`: a row for each question; test is what the data set's phrase_type (or file) says.

    Columns beside a manifest's own: question, answer, answer_type (closed or open), kind, organ. The patient is the
    MedPix case where the file gives its address, else the image.

    Args:
        src: the folder with the JSON file and, in "VQA_RAD Image Folder" or `images`, the pictures.
        out: the folder of the new manifest.
        licence, copy, overwrite: see `kvlp.datasets.readers.common.finish`.
    """
    root = require_folder(src)
    first = find_file(root, _PUBLIC, *_TEST, *_TRAIN, what=_WHAT)
    names = (first.name,) if first.name == _PUBLIC else (*_TEST, *_TRAIN)
    paths = [first.parent / name for name in names if (first.parent / name).is_file()]
    images = (find_folder(root, "VQA_RAD Image Folder", "images") or root).relative_to(root)
    records = [
        _record(entry, images, "test" if path.name in _TEST else "train")
        for path in paths
        for entry in read_json(path, _NEEDED)
    ]
    require_images(root, (r.image for r in records), what=_WHAT)
    return finish(records, root, out, licence=licence, copy=copy, overwrite=overwrite)


def _record(entry: Mapping[str, Any], images: Path, split: str) -> Record:
    kinds = [part.strip().upper() for part in str(entry["question_type"]).split(",")]
    tested = str(entry.get("phrase_type", "")).startswith("test")
    return question_record(
        id=str(entry["qid"]),
        image=(images / Path(str(entry["image_name"])).name).as_posix(),
        question=str(entry["question"]).strip(),
        answer=str(entry["answer"]).strip(),
        closed=str(entry["answer_type"]).strip().upper() == "CLOSED",
        kind=";".join(filter(None, kinds)),
        patient_id=str(entry.get("image_case_url") or entry["image_name"]),
        split="test" if tested else split,
        source="vqa-rad",
        licence=_LICENCE,
        organ=str(entry.get("image_organ", "")),
    )
