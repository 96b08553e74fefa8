"""Readers of public data sets and folders: `READERS[name](src, out, **options)` writes `out/manifest.csv`.

A reader is one short file; it is imported when it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from kvlp.datasets.manifest import Manifest
from kvlp.errors import ConfigError
from kvlp.typing import PathLike

__all__ = ["READERS", "Reader", "get_reader"]

Reader = Callable[..., Manifest]


def _lazy(module: str, name: str = "read") -> Reader:
    def read(src: PathLike, out: PathLike, **options: Any) -> Manifest:
        read_: Reader = getattr(import_module(f"kvlp.datasets.readers.{module}"), name)
        return read_(src, out, **options)

    return read


#: name -> reader; see CONTRIBUTING, "add a data reader"
READERS: Mapping[str, Reader] = {
    "chestxray14": _lazy("chestxray14"),
    "chexpert": _lazy("chexpert"),
    "chestxdet10": _lazy("chestxdet10"),
    "cxr-real": _lazy("cxr_real"),
    "folder": _lazy("folder"),
    "iu-xray": _lazy("iu_xray"),
    "mimic5x200": _lazy("mimic5x200"),
    "openi": _lazy("openi"),
    "padchest": _lazy("padchest"),
    "pathvqa": _lazy("pathvqa"),
    "phantom": _lazy("phantom"),
    "phantom-look-alikes": _lazy("phantom", "read_look_alikes"),
    "rsna": _lazy("rsna"),
    "siim": _lazy("siim"),
    "slake": _lazy("slake"),
    "vindr": _lazy("vindr"),
    "vqa-rad": _lazy("vqa_rad"),
}


def get_reader(name: str) -> Reader:
    """Return a reader by name. Raises: ConfigError that lists the names, the nearest first."""
    if name in READERS:
        return READERS[name]
    near = get_close_matches(name, READERS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ConfigError(f"no reader is called {name!r}{hint} Readers: {', '.join(READERS)}")
