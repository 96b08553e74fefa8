"""The index cache: the archive's vectors in search order, beside the truth and rebuildable from it at any time.

`index.json` is the cache's manifest: model, dim, metric, number of vectors, generation, each file's size and sha256.
Files are named after their generation and the manifest is replaced last: a reader meets a whole cache or none. A cache
that is not exactly what its manifest says, or not of the archive's current items, is never used: it is rebuilt.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kvlp.archive.files import TEMPORARY, write_atomic, writer_lock
from kvlp.archive.store import Store
from kvlp.errors import ArchiveError
from kvlp.vectors import VectorIndex, sha256_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MANIFEST", "Loaded", "check_cache", "load_index", "write_cache"]

MANIFEST = "index.json"
_FORMAT = 1
_LARGEST_MANIFEST = 100_000
_log = logging.getLogger("kvlp.archive")


@dataclass(frozen=True, slots=True)
class Loaded:
    """An index in memory with the items that its positions stand for, in order of id."""

    index: VectorIndex
    ids: list[str]
    numbers: NDArray[np.int64]
    generation: int
    note: str = ""  #: why the cache could not be used, empty when it could


def load_index(folder: Path, store: Store, *, model: str, dim: int) -> Loaded:
    """Return the current index from the cache; rebuild it from the truth, and say why, when the cache does not fit."""
    generation, ids, numbers = store.snapshot()
    try:
        index = _read(folder, ids, model=model, dim=dim)
        return Loaded(index, ids, numbers, generation)
    except ArchiveError as error:
        reason = str(error)
    rebuilt = build(store, dim)
    note = f"the index was rebuilt from the archive: {reason}"
    _log.warning("%s: %s", folder, note)
    try:
        with writer_lock(folder, timeout=0.0):
            write_cache(folder, rebuilt, model=model)
    except (ArchiveError, OSError) as error:
        note += f"; it stays in memory only: {error}"
    return Loaded(rebuilt.index, rebuilt.ids, rebuilt.numbers, rebuilt.generation, note)


def build(store: Store, dim: int) -> Loaded:
    """Return the index of all items, made from the truth."""
    generation, ids, numbers, vectors = store.vectors(dim)
    return Loaded(VectorIndex(vectors), ids, numbers, generation)


def write_cache(folder: Path, loaded: Loaded, *, model: str) -> None:
    """Write the index as the cache and drop older ones and leftovers. The caller holds the writer's lock."""
    index = loaded.index
    files: dict[str, dict[str, Any]] = {}
    parts = {"flat": index.flat_bytes(), "ann": index.ann_bytes()}
    for role, data in parts.items():
        if data is not None:
            digest = sha256_of(data)
            name = f"index-{loaded.generation}-{digest[:8]}.{'faiss' if role == 'flat' else 'ann'}"
            write_atomic(folder / name, data)
            files[role] = {"name": name, "bytes": len(data), "sha256": digest}
    manifest = {
        "format": _FORMAT,
        "model": model,
        "dim": index.dim,
        "metric": "inner product",
        "kind": index.kind,
        "ntotal": len(index),
        "generation": loaded.generation,
        "ids": _ids_hash(loaded.ids),
        "files": files,
    }
    write_atomic(folder / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode())
    _sweep(folder, {str(file["name"]) for file in files.values()})


def _sweep(folder: Path, keep: set[str]) -> None:
    for path in folder.iterdir():
        old = path.name.startswith("index-") and path.name not in keep
        if old or TEMPORARY in path.name:
            with suppress(OSError):
                path.unlink()


def check_cache(folder: Path, store: Store, *, model: str, dim: int) -> str:
    """Return what is wrong with the cache; empty when it is whole and current and holds the archive's own vectors."""
    _, ids, _, vectors = store.vectors(dim)
    try:
        index = _read(folder, ids, model=model, dim=dim)
    except ArchiveError as error:
        return str(error)
    return "" if np.array_equal(index.vectors, vectors) else "its vectors are not those of the archive"


def _read(folder: Path, ids: Sequence[str], *, model: str, dim: int) -> VectorIndex:
    manifest = _manifest(folder)
    expected = {
        "format": _FORMAT,
        "model": model,
        "dim": dim,
        "metric": "inner product",
        "ntotal": len(ids),
        "ids": _ids_hash(ids),
    }
    for key, value in expected.items():
        if manifest.get(key) != value:
            raise ArchiveError(_mismatch(key, manifest.get(key), value))
    kind, files = manifest.get("kind"), manifest.get("files")
    if kind not in ("flat", "hnsw", "ivf") or not isinstance(files, dict):
        raise ArchiveError(f"{MANIFEST} is damaged")
    flat = _checked(folder, files.get("flat"))
    ann = None
    if kind != "flat":
        _checked(folder, files.get("ann"))
        ann = folder / files["ann"]["name"]
    return VectorIndex.from_bytes(flat, count=len(ids), dim=dim, kind=kind, ann=ann)


def _mismatch(key: str, found: object, expected: object) -> str:
    if key in ("ntotal", "ids"):
        return "the cache is of another state of the archive"
    return f"the cache has {key} {str(found)[:80]!r}, the archive {str(expected)[:80]!r}"


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        if path.stat().st_size > _LARGEST_MANIFEST:
            raise ArchiveError(f"{MANIFEST} is damaged")
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise ArchiveError(f"{MANIFEST} is missing") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ArchiveError(f"{MANIFEST} is damaged") from error
    if not isinstance(manifest, dict):
        raise ArchiveError(f"{MANIFEST} is damaged")
    return manifest


def _checked(folder: Path, entry: object) -> bytes:
    """The bytes of a cache file, which are those that the manifest names: what is checked is what is used."""
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise ArchiveError(f"{MANIFEST} is damaged")
    name = entry["name"]
    if Path(name).name != name or not name.startswith("index-"):
        raise ArchiveError(f"{MANIFEST} names a file outside the archive")
    try:
        if (folder / name).stat().st_size != entry.get("bytes"):
            raise ArchiveError(f"{name} has another size than {MANIFEST} says")
        data = (folder / name).read_bytes()
    except OSError as error:
        raise ArchiveError(f"{name} cannot be read") from error
    if len(data) != entry.get("bytes") or sha256_of(data) != entry.get("sha256"):
        raise ArchiveError(f"{name} is not what {MANIFEST} says")
    return data


def _ids_hash(ids: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()
