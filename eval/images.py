"""The images of a manifest as vectors; a row that cannot be read is named and left out, never replaced in silence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kvlp import embedding
from kvlp.datasets.images import pixel_hash
from kvlp.datasets.manifest import Manifest
from kvlp.errors import DataError

if TYPE_CHECKING:
    from kvlp.datasets.manifest import Record

__all__ = ["Embedded", "embed_manifest"]


@dataclass(frozen=True)
class Embedded:
    """What could be read of a manifest.

    Attributes:
        records: the N records that were read, in order.
        vectors: float32 (N, D).
        skipped: rows that could not be read: (row number from 1, reason).
        implausible: how many of the N do not look like a frontal chest radiograph; they are scored all the same.
        content_hash: of the N records.
        hashes: N pixel hashes, as a checkpoint's exposure manifest holds them; () where they were not kept.
        shapes: (height, width) of the N pictures, or ().
        root: where the records' relative image paths start from; None where it was not kept.
    """

    records: list[Record]
    vectors: NDArray[np.float32]
    skipped: list[tuple[int, str]]
    implausible: int
    content_hash: str
    hashes: tuple[str, ...] = ()
    shapes: tuple[tuple[int, int], ...] = ()
    root: Path | None = None


class _Noting:
    """The model, noting hash and shape of every picture that it is given: each is decoded once."""

    def __init__(self, model: embedding.Encoder) -> None:
        self.model = model
        self.hashes: list[str] = []
        self.shapes: list[tuple[int, int]] = []

    def encode_image(self, images: Sequence[Any], *, batch_size: int = 64) -> NDArray[Any]:
        self.hashes += [pixel_hash(image) for image in images]
        self.shapes += [(int(image.shape[0]), int(image.shape[1])) for image in images]
        return self.model.encode_image(images, batch_size=batch_size)


def embed_manifest(
    model: embedding.Encoder,
    manifest: Manifest,
    *,
    batch_size: int = 64,
    progress: Callable[[str, int, int], None] | None = None,
) -> Embedded:
    """Encode every image of a manifest that can be read.

    Raises:
        DataError: the manifest is empty, none of its images can be read (the first reason is given), or the model
            returns NaN.
    """
    paths = [manifest.path_of(record) for record in manifest]
    show = None if progress is None else partial(progress, "images")
    noting = _Noting(model)
    found = embedding.embed_images(noting, paths, batch_size=batch_size, errors="flag", progress=show)
    bad = {row: flag.reason for row, flag in found.flags.items() if flag.kind == "unreadable"}
    rows = [row for row in range(len(paths)) if row not in bad]
    if not rows:
        why = f"; row 1: {bad[0]}" if bad else ""
        raise DataError(f"none of the {len(paths)} images can be read{why}")
    vectors = found.vectors[rows]
    if not np.isfinite(vectors).all():
        raise DataError("the model's image vectors hold NaN or infinite values; check its weights")
    kept = [manifest[row] for row in rows]
    return Embedded(
        records=kept,
        vectors=vectors,
        skipped=[(row + 1, reason) for row, reason in sorted(bad.items())],
        implausible=len(found.flags) - len(bad),
        content_hash=Manifest(kept, manifest.root).content_hash,
        hashes=tuple(noting.hashes),
        shapes=tuple(noting.shapes),
        root=manifest.root,
    )
