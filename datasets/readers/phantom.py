"""Synthetic radiographs with reports (`kvlp.datasets.phantom`); the source is the number of patients, or
"-" for the usual one."""

from __future__ import annotations

from pathlib import Path

from kvlp.datasets.manifest import Manifest
from kvlp.errors import ConfigError, DataError
from kvlp.typing import PathLike

__all__ = ["read"]

_USUAL = 1000


def read(
    src: PathLike,
    out: PathLike,
    *,
    licence: str | None = None,
    copy: bool = False,
    overwrite: bool = False,
    seed: int = 0,
) -> Manifest:
    """Draw `src` synthetic patients into `out`. Raises: DataError if `out` holds a manifest and not `overwrite`."""
    from kvlp.datasets.phantom import generate_phantom

    if licence is not None or copy:
        raise ConfigError("the phantom has one licence and its images lie in OUT: --licence and --copy do not apply")
    patients = _USUAL if str(src) in ("", "-", ".") else int(str(src)) if str(src).isdecimal() else 0
    if patients == 0:
        raise ConfigError(f"for the phantom SRC is the number of patients, such as 500; got {str(src)!r}")
    if (Path(out) / "manifest.csv").exists() and not overwrite:
        raise DataError(f"{Path(out) / 'manifest.csv'}: exists; give --overwrite to replace it, or another folder")
    return generate_phantom(out, patients=patients, seed=seed)
