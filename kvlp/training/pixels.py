"""Every image decoded once, letterboxed to the model's size, and kept as one memory-mapped uint8 array."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from kvlp.datasets.files import atomic_write
from kvlp.datasets.images import load_grey_uint8, pixel_hash
from kvlp.datasets.manifest import Manifest
from kvlp.datasets.shards import Sample, ShardReader
from kvlp.errors import DataError, ImageError
from kvlp.models.preprocess import Preprocess

__all__ = ["cached_pixels"]

Progress = Callable[[int, int, float], None]
_Fitted = tuple[np.ndarray, str]
_Row = tuple[int, _Fitted | str]


def cached_pixels(
    manifest: Manifest,
    preprocess: Preprocess,
    folder: Path,
    *,
    shards: Path | None = None,
    jobs: int = 2,
    progress: Progress | None = None,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return (N, S, S) uint8, memory-mapped, row i being the image of the manifest's row i; and N pixel hashes.

    With `shards` the pictures come from there (hashes checked), otherwise from the manifest's files.
    The cache is used again when the manifest and the preprocessing are the same. `progress(done, total, per_second)` is
    called now and then.

    Raises:
        DataError: images that cannot be read; how many, and the first one's row and reason. Nothing is replaced.
    """
    key = hashlib.sha256(f"{manifest.content_hash}:{preprocess}".encode()).hexdigest()[:16]
    path, told = folder / f"pixels-{key}.npy", folder / f"pixels-{key}.txt"
    if path.is_file() and told.is_file():
        return np.load(path, mmap_mode="r"), tuple(told.read_text(encoding="utf-8").split())
    size = preprocess.size
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".pixels-{key}.npy.tmp"
    pixels = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=(len(manifest), size, size))
    if shards is None:
        images = _decoded(manifest, preprocess, jobs)
    else:
        images = _from_shards(manifest, preprocess, shards, jobs)
    problems: dict[int, str] = {}
    hashes = [""] * len(manifest)
    began = time.perf_counter()
    for done, (row, result) in enumerate(images, 1):
        if isinstance(result, str):
            problems[row] = result
        else:
            pixels[row], hashes[row] = result
        if progress is not None and done % 256 == 0:
            progress(done, len(manifest), done / (time.perf_counter() - began))
    if problems:
        del pixels
        temporary.unlink()
        first = min(problems)
        raise DataError(
            f"expected readable images, got {len(problems)} of {len(manifest)} that are not; first, row {first + 1}: "
            f"{problems[first]}; `kvlp data check` names them all"
        )
    pixels.flush()
    del pixels
    os.replace(temporary, path)
    atomic_write(told, "".join(f"{digest}\n" for digest in hashes).encode())
    return np.load(path, mmap_mode="r"), tuple(hashes)


def _fitted(grey: np.ndarray, preprocess: Preprocess) -> _Fitted:
    return preprocess.fit(grey), pixel_hash(grey)


def _decoded(manifest: Manifest, preprocess: Preprocess, jobs: int) -> Iterator[_Row]:
    """Each row and its image, or the reason why it cannot be read. Decoders release the GIL: threads do."""

    def decode(index: int) -> _Row:
        try:
            return index, _fitted(load_grey_uint8(manifest.path_of(manifest[index])), preprocess)
        except (ImageError, OSError) as error:
            return index, str(error)

    with ThreadPoolExecutor(jobs) as pool:
        for start in range(0, len(manifest), 1024):  # bounded: a map over all rows would queue every image
            yield from pool.map(decode, range(start, min(start + 1024, len(manifest))))


def _from_shards(manifest: Manifest, preprocess: Preprocess, folder: Path, jobs: int) -> Iterator[_Row]:
    """The same in the order of the shards, of which one is held in memory at a time; then the rows that they lack."""
    rows = {record.id: row for row, record in enumerate(manifest)}
    missing = dict(rows)

    def fit(sample: Sample) -> tuple[str, _Fitted | None]:
        return sample.record.id, _fitted(sample.grey, preprocess) if sample.record.id in rows else None

    for name, fitted in ShardReader(folder).each(fit, jobs=jobs):
        if fitted is not None:
            yield rows[name], fitted
            missing.pop(name, None)
    for row in missing.values():
        yield row, f"not in the shards of {folder}"
