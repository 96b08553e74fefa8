"""Verify an archive against its own hashes, and repair what can be repaired."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from kvlp.archive import store as rows
from kvlp.archive.adding import Encoder
from kvlp.archive.cache import build, check_cache, write_cache
from kvlp.archive.searching import stale_reason
from kvlp.archive.store import Item, Store
from kvlp.errors import KvlpError
from kvlp.vectors import sha256_of, unit_rows

__all__ = ["Problem", "RepairReport", "VerifyReport", "repair", "verify"]


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, where. `kind`: database, item or cache."""

    kind: str
    where: str
    message: str


@dataclass(slots=True)
class VerifyReport:
    """What verify looked at and found. Stale images are no fault of the archive: they are listed beside."""

    items: int = 0
    problems: list[Problem] = field(default_factory=list)
    stale: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything is as it was written."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON takes it."""
        return {"ok": self.ok, **asdict(self)}


@dataclass(slots=True)
class RepairReport:
    """What repair did: items embedded anew from their images, items given up, and the rebuilt index."""

    reembedded: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    items: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON takes it."""
        return asdict(self)


def verify(folder: Path, store: Store, *, model: str, dim: int, images: bool) -> VerifyReport:
    """Recompute every hash: database pages, each item with its vector, mentions and text, and the cache's files."""
    report = VerifyReport()
    report.problems += [Problem("database", store.path.name, message) for message in store.problems()]
    stored = store.digests()
    for item in store.each_item():
        report.items += 1
        fault = _fault(item, stored.get(item.n), dim)
        if fault:
            report.problems.append(Problem("item", item.id, fault))
        reason = stale_reason(folder / item.path, item) if images else ""
        if reason:
            report.stale.append(Problem("image", item.path, reason))
    if not any(problem.kind == "item" for problem in report.problems):
        fault = check_cache(folder, store, model=model, dim=dim)
        if fault:
            report.problems.append(Problem("cache", "index", fault))
    return report


def _fault(item: Item, digest: bytes | None, dim: int) -> str:
    if digest != item.digest():
        return "its row, vector, mentions or text is not what was written"
    if item.id != item.sha256[:16] or len(item.vector) != 4 * dim:
        return "its id or vector does not fit"
    vector = np.frombuffer(item.vector, dtype="<f4").astype(np.float64)
    length = float(np.linalg.norm(vector))
    return "" if length == 0 or abs(length - 1) < 1e-4 else "its vector has no unit length"


def repair(folder: Path, store: Store, *, hash: str, dim: int, model: Callable[[], Encoder]) -> RepairReport:
    """Embed damaged items anew from their images, give up those whose image is gone, and rebuild the index.

    The caller holds the writer's lock. Nothing is written when nothing is wrong, apart from the index.
    """
    report = RepairReport()
    stored = store.digests()
    damaged = [item for item in store.each_item() if _fault(item, stored.get(item.n), dim)]
    for item in damaged:
        whole = _reembed(folder, item, model)
        with store.transaction() as connection:
            if whole is None:
                rows.delete(connection, [item.n])
                rows.skip(
                    connection, item.path, "was damaged in the archive and its image is gone or changed; add it again"
                )
                report.dropped.append(item.id)
            else:
                rows.put(connection, whole)
                report.reembedded.append(item.id)
    loaded = build(store, dim)
    write_cache(folder, loaded, model=hash)
    report.items = len(loaded.ids)
    return report


def _reembed(folder: Path, item: Item, model: Callable[[], Encoder]) -> Item | None:
    """The item with a new vector, if its image is still the one that it names."""
    from kvlp.datasets.images import load_grey_uint8

    path = folder / item.path
    try:
        if sha256_of(path) != item.sha256 or item.id != item.sha256[:16]:
            return None
        vector = unit_rows(model().encode_image([load_grey_uint8(path)]))[0]
    except (OSError, KvlpError):
        return None
    return replace(item, vector=vector.astype("<f4").tobytes())
