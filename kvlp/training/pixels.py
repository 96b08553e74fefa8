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
from kvlp.datasets.shards import ShardReader
from kvlp.errors import DataError, ImageError
from kvlp.models.preprocess import Preprocess

__all__ = ["cached_pixels"]

Progress = Callable[[int, int, float], None]
_Fitted = tuple[np.ndarray, str]


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
    images = _decoded(manifest, preprocess, jobs) if shards is None else _from_shards(manifest, preprocess, shards)
    problems: list[str] = []
    hashes: list[str] = []
    began = time.perf_counter()
    for row, result in enumerate(images):
        if isinstance(result, str):
            problems.append(f"row {row + 1}: {result}")
        else:
            pixels[row], digest = result
            hashes.append(digest)
        if progress is not None and (row + 1) % 256 == 0:
            progress(row + 1, len(manifest), (row + 1) / (time.perf_counter() - began))
    if problems:
        del pixels
        temporary.unlink()
        raise DataError(
            f"expected readable images, got {len(problems)} of {len(manifest)} that are not; first, {problems[0]}; "
            "`kvlp data check` names them all"
        )
    pixels.flush()
    del pixels
    os.replace(temporary, path)
    atomic_write(told, "".join(f"{digest}\n" for digest in hashes).encode())
    return np.load(path, mmap_mode="r"), tuple(hashes)


def _fitted(grey: np.ndarray, preprocess: Preprocess) -> _Fitted:
    return preprocess.fit(grey), pixel_hash(grey)


def _decoded(manifest: Manifest, preprocess: Preprocess, jobs: int) -> Iterator[_Fitted | str]:
    """The rows' images in order, or the reason why one cannot be read. Decoders release the GIL: threads do."""

    def decode(index: int) -> _Fitted | str:
        try:
            return _fitted(load_grey_uint8(manifest.path_of(manifest[index])), preprocess)
        except (ImageError, OSError) as error:
            return str(error)

    with ThreadPoolExecutor(jobs) as pool:
        for start in range(0, len(manifest), 1024):  # bounded: a map over all rows would queue every image
            yield from pool.map(decode, range(start, min(start + 1024, len(manifest))))


def _from_shards(manifest: Manifest, preprocess: Preprocess, folder: Path) -> Iterator[_Fitted | str]:
    row_of = {record.id: row for row, record in enumerate(manifest)}
    found = {
        row_of[s.record.id]: _fitted(s.grey, preprocess) for s in ShardReader(folder).samples() if s.record.id in row_of
    }
    for row in range(len(manifest)):
        yield found.get(row, f"not in the shards of {folder}")
