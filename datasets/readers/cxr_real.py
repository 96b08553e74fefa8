"""Public frontal radiographs from five sources, as the folder `cxr-real` holds them: `manifest.csv` and `images/`.

Where no text exists it stays empty: training turns the labels into sentences through the graph.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath

from kvlp.datasets.manifest import Manifest
from kvlp.datasets.readers.common import finish, require_columns, require_folder
from kvlp.datasets.tables import read_table
from kvlp.typing import PathLike

__all__ = ["read"]


def read(
    src: PathLike, out: PathLike, *, licence: str | None = None, copy: bool = False, overwrite: bool = False
) -> Manifest:
    """Write `out/manifest.csv` with split, source, labels, text, view and licence as they are.

    The id of a record is its path within `images/` without the ending.
    """
    root = require_folder(src)
    path = root / "manifest.csv"
    require_columns(path, read_table(path).columns, ("image", "source", "patient_id", "labels", "licence", "split"))
    records = [replace(record, id=_name(record.image)) for record in Manifest.load(path)]
    return finish(records, root, out, licence=licence, copy=copy, overwrite=overwrite)


def _name(image: str) -> str:
    path = PurePosixPath(image).with_suffix("")
    return str(path.relative_to("images")) if path.parts[:1] == ("images",) else str(path)
