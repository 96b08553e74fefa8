"""The images of a manifest as vectors; a row that cannot be read is named and left out, never replaced in silence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kvlp import embedding
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
    """

    records: list[Record]
    vectors: NDArray[np.float32]
    skipped: list[tuple[int, str]]
    implausible: int
    content_hash: str


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
    found = embedding.embed_images(model, paths, batch_size=batch_size, errors="flag", progress=show)
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
    )
