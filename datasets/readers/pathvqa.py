"""PathVQA, test part: Parquet with the pictures in it, or a JSON list beside `images/test`. Its pickles are refused."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kvlp.datasets.codestreams import PNG_MAGIC
from kvlp.datasets.files import atomic_write
from kvlp.datasets.manifest import Manifest, Record
from kvlp.datasets.readers.common import finish, require_folder
from kvlp.datasets.readers.questions import question_record
from kvlp.datasets.readers.sources import find_file, find_folder, optional_file, read_json, require_images
from kvlp.errors import DataError
from kvlp.typing import PathLike

__all__ = ["read"]

_WHAT = "PathVQA"
_JSON = ("test_qa.json", "test.json")
_OTHER = (
    "use the Parquet files data/test-*.parquet of flaviagiammarino/path-vqa (Hugging Face), or write test_qa.json, "
    "a list of {image, question, answer}, beside images/test"
)
_LICENCE = "MIT as stated by its copies; pictures from textbooks and PEIR"
_MAX_BYTES = 1 << 26


def read(
    src: PathLike, out: PathLike, *, licence: str | None = None, copy: bool = False, overwrite: bool = False
) -> Manifest:
    """Write `out/manifest.csv`: a row for each test question; yes and no are closed, other answers open.

    Pictures that lie in Parquet files are written once each to `out/images`. The patient is the image: the data set
    does not say more.

    Args:
        src: the folder.
        out: the folder of the new manifest.
        licence, copy, overwrite: see `kvlp.datasets.readers.common.finish`.

    Raises:
        DataError: only a pickle is there (it could run code), or nothing that was looked for.
    """
    root = require_folder(src)
    tables = sorted({*root.glob("test-*.parquet"), *root.glob("*/test-*.parquet")})
    if tables:
        records = list(_from_parquet(tables, Path(out)))
        return finish(records, Path(out), out, licence=licence, overwrite=overwrite)
    if optional_file(root, "test_qa.pkl") and not any(optional_file(root, name) for name in _JSON):
        raise DataError(f"{_WHAT}: {root} holds test_qa.pkl; a pickle can run code and is not read: {_OTHER}")
    path = find_file(root, *_JSON, "test-*.parquet", what=_WHAT)
    images = (find_folder(root, "images/test", "images") or root / "images").relative_to(root)
    entries = read_json(path, ("image", "question", "answer"))
    records = [
        _record(number, _named(images, str(entry["image"])), entry["question"], entry["answer"])
        for number, entry in enumerate(entries)
    ]
    require_images(root, (r.image for r in records), what=_WHAT)
    return finish(records, root, out, licence=licence, copy=copy, overwrite=overwrite)


def _named(images: Path, name: str) -> str:
    """The pickles' successors name images without an ending."""
    file = Path(name).name
    return (images / (file if "." in file else f"{file}.jpg")).as_posix()


def _record(number: int, image: str, question: Any, answer: Any) -> Record:
    said = str(answer).strip()
    closed = said.lower() in ("yes", "no")
    return question_record(
        id=f"test-{number:05}",
        image=image,
        question=str(question).strip(),
        answer=said,
        closed=closed,
        kind="yes/no" if closed else (str(question).split() or ["?"])[0].lower().strip("?,."),
        patient_id=image,
        split="test",
        source="pathvqa",
        licence=_LICENCE,
    )


def _from_parquet(tables: list[Path], out: Path) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    written: dict[str, str] = {}
    for table in tables:
        try:
            file = pq.ParquetFile(table)
            missing = {"image", "question", "answer"} - set(file.schema_arrow.names)
            if missing:
                raise DataError(f"{table}: expected the column {min(missing)!r}")
            for batch in file.iter_batches(batch_size=64, columns=["image", "question", "answer"]):
                for row in batch.to_pylist():
                    image = _written(row["image"], out, written, table)
                    yield _record(number, image, row["question"], row["answer"])
                    number += 1
        except (pa.ArrowException, OSError) as problem:
            raise DataError(f"{table}: not a Parquet file: {str(problem).splitlines()[0]}") from problem


def _written(image: Any, out: Path, written: dict[str, str], table: Path) -> str:
    """Write a picture once, named by its content; its path from `out`."""
    data = image.get("bytes") if isinstance(image, dict) else None
    if not isinstance(data, bytes) or len(data) > _MAX_BYTES:
        raise DataError(f"{table}: expected pictures as bytes in the column image")
    key = hashlib.sha256(data).hexdigest()[:24]
    if key not in written:
        ending = "png" if data.startswith(PNG_MAGIC) else "jpg"
        written[key] = f"images/{key}.{ending}"
        atomic_write(out / written[key], data)
    return written[key]
