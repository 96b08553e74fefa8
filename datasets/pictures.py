"""Every image of a list read once: the hash of its pixels, its fingerprint and, given a model, its vector."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from kvlp.datasets.images import load_grey_uint8, pixel_hash
from kvlp.datasets.near_duplicates import SIDE, fingerprint
from kvlp.errors import KvlpError, MissingExtraError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ImageEncoder", "Pictures", "read_pictures"]

_BATCH = 64


class ImageEncoder(Protocol):
    """What is asked of a model here."""

    def encode_image(self, images: Sequence[Any], *, batch_size: int = 64) -> NDArray[Any]:
        """Unit vectors (N, D) of grey images."""
        ...


@dataclass(frozen=True)
class Pictures:
    """What N images are told apart by.

    Attributes:
        read: bool (N,), which could be read.
        hashes: N pixel hashes, "" where not read; see `kvlp.datasets.images.pixel_hash`.
        prints: uint8 (N, SIDE, SIDE), fingerprints, 0 where not read.
        vectors: float32 (N, D), 0 where not read; None without a model.
    """

    read: NDArray[np.bool_]
    hashes: list[str]
    prints: NDArray[np.uint8]
    vectors: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class _Picture:
    digest: str
    small: NDArray[np.uint8] | None
    grey: NDArray[np.uint8] | None


def read_pictures(
    paths: Sequence[Path],
    *,
    prints: bool = True,
    model: ImageEncoder | None = None,
    jobs: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Pictures:
    """Read images; one that cannot be read is marked, never replaced.

    Args:
        paths: N image files.
        prints: make fingerprints; otherwise they are 0.
        model: embeds them, too.
        jobs: threads that decode.
        progress: called with images done and all images.

    Raises:
        MissingExtraError: a DICOM file, and its reader is not installed.
    """
    small = np.zeros((len(paths) if prints else 0, SIDE, SIDE), dtype=np.uint8)
    hashes: list[str] = []
    vectors: NDArray[np.float32] | None = None
    look = partial(_look, prints=prints, keep=model is not None)
    with ThreadPoolExecutor(max_workers=max(1, jobs)) as pool:
        for start, found in _batches(pool, look, paths):
            hashes += [picture.digest for picture in found]
            for row, picture in enumerate(found, start):
                if picture.small is not None:
                    small[row] = picture.small
            if model is not None:
                vectors = _embedded(model, found, start, len(paths), vectors)
            if progress is not None:
                progress(len(hashes), len(paths))
    return Pictures(np.array([bool(digest) for digest in hashes], dtype=bool), hashes, small, vectors)


def _batches(
    pool: ThreadPoolExecutor, look: Callable[[Path], _Picture], paths: Sequence[Path]
) -> Iterator[tuple[int, list[_Picture]]]:
    for start in range(0, len(paths), _BATCH):  # bounded: a map over all would hold every decoded image
        yield start, list(pool.map(look, paths[start : start + _BATCH]))


def _look(path: Path, *, prints: bool, keep: bool) -> _Picture:
    try:
        grey = load_grey_uint8(path)
    except MissingExtraError:
        raise
    except (KvlpError, OSError, ValueError):
        return _Picture("", None, None)
    return _Picture(pixel_hash(grey), fingerprint(grey) if prints else None, grey if keep else None)


def _embedded(
    model: ImageEncoder, found: Sequence[_Picture], start: int, count: int, vectors: NDArray[np.float32] | None
) -> NDArray[np.float32] | None:
    """The vectors so far, with those of a batch."""
    readable = [(row, p.grey) for row, p in enumerate(found, start) if p.grey is not None]
    if not readable:
        return vectors
    rows, greys = zip(*readable)
    encoded = np.asarray(model.encode_image(list(greys)), dtype=np.float32)
    if vectors is None:
        vectors = np.zeros((count, encoded.shape[1]), dtype=np.float32)
    vectors[list(rows)] = encoded
    return vectors
