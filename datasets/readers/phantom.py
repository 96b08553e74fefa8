"""Synthetic radiographs with reports (`kvlp.datasets.phantom`); the source is the number of patients, or
"-" for the usual one. `phantom-look-alikes` draws pairs of an unseen finding and what looks like it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from kvlp.datasets.manifest import Manifest
from kvlp.errors import ConfigError, DataError
from kvlp.typing import PathLike

__all__ = ["read", "read_look_alikes"]

_USUAL = 1000


def read(
    src: PathLike,
    out: PathLike,
    *,
    licence: str | None = None,
    copy: bool = False,
    overwrite: bool = False,
    seed: int = 0,
    look_alikes: bool = False,
) -> Manifest:
    """Draw `src` synthetic patients into `out`, or with `look_alikes` as many pairs.

    Raises:
        DataError: `out` holds a manifest and not `overwrite`.
        ConfigError: `src` is not a number.
    """
    from kvlp.datasets.phantom import generate_look_alikes, generate_phantom

    if licence is not None or copy:
        raise ConfigError("the phantom has one licence and its images lie in OUT: --licence and --copy do not apply")
    count = _USUAL if str(src) in ("", "-", ".") else int(str(src)) if str(src).isdecimal() else 0
    if count == 0:
        things = "pairs" if look_alikes else "patients"
        raise ConfigError(f"for the phantom SRC is the number of {things}, such as 500; got {str(src)!r}")
    if (Path(out) / "manifest.csv").exists() and not overwrite:
        raise DataError(f"{Path(out) / 'manifest.csv'}: exists; give --overwrite to replace it, or another folder")
    if look_alikes:
        return generate_look_alikes(out, pairs=count, seed=seed)
    return generate_phantom(out, patients=count, seed=seed)


read_look_alikes = partial(read, look_alikes=True)
