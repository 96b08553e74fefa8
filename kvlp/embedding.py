"""Embedding many images or texts: good ones go through, bad ones are named; the result can be written to a folder."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from kvlp.errors import DataError, ImageError, KvlpError

if TYPE_CHECKING:
    from kvlp.checkpoints import Model

__all__ = [
    "Embedded",
    "Encoder",
    "Flag",
    "embed_image_folder",
    "embed_images",
    "embed_text_file",
    "image_files",
    "read_images",
    "require_free",
    "write_embeddings",
]

#: marks a folder of embeddings and says which model made them
ABOUT = "embeddings.json"


class Encoder(Protocol):
    """What is asked of a model here."""

    def encode_image(self, images: Sequence[Any], *, batch_size: int = 64) -> NDArray[Any]:
        """Unit vectors (N, D) of grey images."""
        ...


@dataclass(frozen=True, slots=True)
class Flag:
    """What is wrong with one input: "unreadable" (no score) or "implausible" (no frontal radiograph, it seems)."""

    kind: Literal["unreadable", "implausible"]
    reason: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}"


@dataclass(slots=True)
class Embedded:
    """Vectors of N inputs, NaN where one could not be read, and the flags by position."""

    vectors: NDArray[np.float32]
    flags: dict[int, Flag] = field(default_factory=dict)

    @property
    def read(self) -> NDArray[np.bool_]:
        """Which of the N inputs were read: bool (N,)."""
        return np.isfinite(self.vectors).all(axis=1)


def image_files(paths: Iterable[str | Path]) -> list[Path]:
    """Return files, and the images in folders (by their ending, in order of name, hidden ones and links out left out).

    Raises:
        DataError: a path that does not exist, or a folder without images.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found = list(_walk(path))
            if not found:
                raise DataError(f"{path}: no images in this folder; expected .png, .jpg or .dcm files")
            files += found
        elif path.exists():
            files.append(path)
        else:
            raise DataError(f"{path}: no such file or folder; check the path")
    return files


def _walk(folder: Path) -> Iterator[Path]:
    from kvlp.datasets.images import IMAGE_ENDINGS

    root = folder.resolve()
    for here, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(here) / name
            if name.startswith(".") or path.suffix.lower() not in IMAGE_ENDINGS:
                continue
            if not path.is_symlink() or path.resolve().is_relative_to(root):
                yield path


def read_images(
    sources: Sequence[object], *, errors: Literal["raise", "flag"] = "raise", start: int = 0
) -> tuple[dict[int, NDArray[np.uint8]], dict[int, Flag]]:
    """Read images as grey bytes and look whether they are plausible; both results by position, counted from `start`.

    Args:
        sources: paths, bytes, PIL images, arrays, tensors or DICOM files, see kvlp.datasets.images.decode.
        errors: what an image that cannot be read does: end everything, or get a flag.
        start: position of the first.

    Raises:
        ImageError: with errors="raise"; the message names position or path.
    """
    from kvlp.datasets.images import inspect_image

    greys: dict[int, NDArray[np.uint8]] = {}
    flags: dict[int, Flag] = {}
    for position, source in enumerate(sources, start):
        try:
            grey, plausible = inspect_image(source)
        except (KvlpError, OSError) as error:
            reason = " ".join(str(error).split())
            if errors == "raise":
                raise ImageError(reason if isinstance(source, str | Path) else f"image {position}: {reason}") from error
            flags[position] = Flag("unreadable", reason)
            continue
        greys[position] = grey
        if not plausible.ok:
            flags[position] = Flag("implausible", plausible.reason)
    return greys, flags


def embed_images(
    model: Encoder,
    sources: Sequence[object],
    *,
    batch_size: int = 64,
    errors: Literal["raise", "flag"] = "raise",
    progress: Callable[[int, int], None] | None = None,
) -> Embedded:
    """Read and embed images batch by batch, so that memory holds one batch of pictures.

    Args:
        model: a dual encoder.
        sources: see `read_images`.
        batch_size: images read and encoded at once.
        errors: see `read_images`.
        progress: called with (done, total) after each batch.
    """
    parts: list[NDArray[np.float32]] = []
    flags: dict[int, Flag] = {}
    for start in range(0, len(sources), batch_size):
        chunk = [sources[i] for i in range(start, min(start + batch_size, len(sources)))]
        greys, found = read_images(chunk, errors=errors, start=start)
        flags.update(found)
        vectors = np.asarray(model.encode_image(list(greys.values()), batch_size=batch_size), np.float32)
        rows = np.full((len(chunk), vectors.shape[1]), np.nan, np.float32)
        rows[[position - start for position in greys]] = vectors
        parts.append(rows)
        if progress is not None:
            progress(start + len(chunk), len(sources))
    if not parts:
        return Embedded(np.asarray(model.encode_image([]), np.float32), flags)
    return Embedded(np.concatenate(parts), flags)


def embed_image_folder(
    model: Model,
    paths: Sequence[Path],
    out: Path,
    *,
    batch_size: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[int, dict[str, str]]:
    """Embed images, folders and manifests, and write the vectors and their metadata to `out`.

    Returns:
        How many were written, and path -> reason of those that could not be read.
    """
    columns = _image_columns(paths)
    files = columns["image_path"]
    embedded = embed_images(model, files, batch_size=batch_size, errors="flag", progress=progress)
    kept = [position for position in range(len(files)) if embedded.read[position]]
    columns["flag"] = [str(embedded.flags.get(position, "")) for position in range(len(files))]
    rows = {name: [values[position] for position in kept] for name, values in columns.items()}
    write_embeddings(out, "img", embedded.vectors[kept], rows, model)
    failed = {files[i]: flag.reason for i, flag in embedded.flags.items() if flag.kind == "unreadable"}
    return len(kept), failed


def _image_columns(paths: Sequence[Path]) -> dict[str, list[str]]:
    columns: dict[str, list[str]] = {"image_path": [], "key": [], "caption": []}
    for path in paths:
        if path.suffix.lower() in (".csv", ".jsonl", ".parquet"):
            from kvlp.datasets.manifest import Manifest

            manifest = Manifest.load(path)
            rows = [(str(manifest.path_of(record)), record.id, record.report) for record in manifest]
        else:
            rows = [(str(file), file.stem, "") for file in (image_files([path]) if path.is_dir() else [path])]
        for column, values in zip(columns.values(), zip(*rows)):
            column += values
    return columns


def embed_text_file(model: Model, path: Path, out: Path) -> int:
    """Embed the lines of a UTF-8 file, write vectors and lines to `out`, and return how many.

    Raises:
        DataError: not UTF-8, or without a line.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected UTF-8 text, one text a line; save the file as UTF-8") from error
    if not lines:
        raise DataError(f"{path}: no text in this file; expected one text a line")
    write_embeddings(out, "text", model.encode_text(lines), {"caption": lines}, model)
    return len(lines)


def require_free(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder that holds something, unless that is embeddings which may be replaced.

    Raises:
        DataError: `out` is a file, or a folder with content.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise DataError(f"{out}: expected a folder, got a file; choose another name")
    if not any(out.iterdir()):
        return
    if not (out / ABOUT).is_file():
        raise DataError(f"{out}: the folder holds other files; choose a new or empty one")
    if not overwrite:
        raise DataError(f"{out}: holds embeddings already; add --overwrite to replace them")
    for name in ("img_emb", "text_emb", "metadata"):
        shutil.rmtree(out / name, ignore_errors=True)


def write_embeddings(
    out: Path,
    kind: Literal["img", "text"],
    vectors: NDArray[np.float32],
    columns: Mapping[str, Sequence[str]],
    model: Model,
) -> None:
    """Write vectors in clip-retrieval's layout: KIND_emb/KIND_emb_0.npy and metadata/metadata_0.parquet.

    Args:
        out: a folder; files of an earlier run there are replaced.
        kind: images or texts.
        vectors: float32 (N, D), rows of length 1.
        columns: name -> N values, such as image_path or caption.
        model: its name and hash go to `embeddings.json`.
    """
    import pyarrow as pa
    from pyarrow import parquet

    arrays, metadata = out / f"{kind}_emb", out / "metadata"
    for folder in (arrays, metadata):
        folder.mkdir(parents=True, exist_ok=True)
    with (arrays / f"{kind}_emb_0.npy").open("wb") as file:
        np.save(file, vectors.astype(np.float32))
    table = pa.table({name: pa.array(list(values), pa.string()) for name, values in columns.items()})
    parquet.write_table(table, metadata / "metadata_0.parquet")
    about = {"model": model.source, "model_hash": model.hash, "dim": int(vectors.shape[1]), "count": len(vectors)}
    (out / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
