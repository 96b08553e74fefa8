"""What the readers share: where images lie, the licence filter, and writing the manifest without losing one."""

from __future__ import annotations

import os
import posixpath
import shutil
from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from kvlp.datasets.files import atomic_file
from kvlp.datasets.manifest import Manifest, Record
from kvlp.errors import DataError, ManifestError
from kvlp.typing import PathLike

__all__ = ["finish", "require_columns", "require_folder"]


def require_folder(path: PathLike) -> Path:
    """Return the folder. Raises: DataError if it is none."""
    path = Path(path)
    if not path.is_dir():
        raise DataError(f"{path}: expected a folder, got {'a file' if path.exists() else 'nothing'}")
    return path


def require_columns(path: Path, columns: Iterable[str], needed: Iterable[str]) -> None:
    """Raises: ManifestError naming the columns that are missing."""
    missing = [name for name in needed if name not in set(columns)]
    if missing:
        raise ManifestError(f"{path}: expected the columns {', '.join(missing)}; is this the right file?")


def finish(
    records: Iterable[Record],
    src_root: Path,
    out: PathLike,
    *,
    licence: str | None = None,
    copy: bool = False,
    overwrite: bool = False,
) -> Manifest:
    """Point images to where they lie from `out`, keep the wanted licences, write `out/manifest.csv` and return it.

    Args:
        records: images relative to `src_root`.
        src_root: where the image files are.
        out: the folder of the new manifest.
        licence: keep the records whose licence matches this pattern (`*` and `?`, any case).
        copy: copy the image files into `out` instead of pointing to them.
        overwrite: replace a manifest that differs; without it such a one is never touched.
    """
    out = Path(out)
    kept = [r for r in records if licence is None or fnmatchcase(r.licence.lower(), licence.lower())]
    if not kept:
        raise DataError("no record is left" + (f" with a licence like {licence!r}" if licence else ""))
    out.mkdir(parents=True, exist_ok=True)
    way = "" if copy else Path(os.path.relpath(src_root.resolve(), out.resolve())).as_posix()
    if copy:
        for image in filter(None, (record.image for record in kept)):
            _copy(image, src_root, out)
    placed = [replace(r, image=posixpath.normpath(posixpath.join(way, r.image))) if r.image else r for r in kept]
    manifest = Manifest(placed, out)
    path = out / "manifest.csv"
    if path.exists() and not overwrite and list(Manifest.load(path, strict=False)) != placed:
        raise DataError(f"{path}: exists and differs; give --overwrite to replace it, or another folder")
    manifest.save(path)
    return manifest


def _copy(image: str, src_root: Path, out: Path) -> None:
    target = out / image
    if not target.resolve().is_relative_to(out.resolve()):
        raise DataError(f"{image}: lies outside of the source folder; it is not copied")
    if not target.exists():
        with (src_root / image).open("rb") as reading, atomic_file(target) as writing:
            shutil.copyfileobj(reading, writing)
