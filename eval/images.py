"""Read a manifest's images and encode them; a row that cannot be read is named, never replaced in silence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from kvlp.datasets.images import load_grey_uint8
from kvlp.errors import DataError, ShapeError

if TYPE_CHECKING:
    from kvlp.datasets.manifest import Manifest, Record

__all__ = ["Embedded", "embed_images", "read_images"]


class _Encoder(Protocol):
    def encode_image(self, images: Sequence[object]) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class Embedded:
    """Images of a manifest as vectors.

    Attributes:
        records: the N records that were read, in order.
        vectors: float32 (N, D).
        skipped: rows that could not be read: (row number from 1, reason).
        content_hash: of the records that were read.
    """

    records: list[Record]
    vectors: NDArray[np.float32]
    skipped: list[tuple[int, str]]
    content_hash: str


def read_images(
    manifest: Manifest, *, batch_size: int = 64, jobs: int = 2
) -> Iterator[list[tuple[int, NDArray[np.uint8] | str]]]:
    """Yield batches of (row from 0, grey uint8 image) in order; in place of an unreadable image stands the reason."""

    def read(row: int) -> tuple[int, NDArray[np.uint8] | str]:
        try:
            return row, load_grey_uint8(manifest.path_of(manifest[row]))
        except DataError as error:
            return row, str(error)
        except OSError as error:
            return row, f"{error.strerror or type(error).__name__}: {manifest[row].image}"

    with ThreadPoolExecutor(jobs) as pool:
        for start in range(0, len(manifest), batch_size):
            yield list(pool.map(read, range(start, min(start + batch_size, len(manifest)))))


def embed_images(
    model: _Encoder,
    manifest: Manifest,
    *,
    batch_size: int = 64,
    progress: Callable[[str, int, int], None] | None = None,
) -> Embedded:
    """Encode every image of a manifest that can be read.

    Raises:
        DataError: the manifest is empty, or none of its images can be read; the first reason is given.
    """
    from kvlp.datasets.manifest import Manifest

    rows: list[int] = []
    parts: list[NDArray[np.float32]] = []
    skipped: list[tuple[int, str]] = []
    for batch in read_images(manifest, batch_size=batch_size):
        good = [(row, image) for row, image in batch if not isinstance(image, str)]
        skipped += [(row + 1, image) for row, image in batch if isinstance(image, str)]
        if good:
            rows += [row for row, _ in good]
            parts.append(_finite(model.encode_image([image for _, image in good]), len(good)))
        if progress is not None:
            progress("images", batch[-1][0] + 1, len(manifest))
    if not rows:
        why = f"; row {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
        raise DataError(f"none of the {len(manifest)} images can be read{why}")
    kept = [manifest[row] for row in rows]
    return Embedded(kept, np.concatenate(parts), skipped, Manifest(kept, manifest.root).content_hash)


def _finite(vectors: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    vectors = np.asarray(vectors, dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != count:
        raise ShapeError(f"encode_image must return ({count}, D) for {count} images; got {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise DataError("the model's image vectors hold NaN or infinite values; check its weights")
    return vectors
