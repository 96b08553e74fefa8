"""Public frontal radiographs from five sources, as the folder `cxr-real` holds them: `manifest.csv` and `images/`.

Where no text exists it stays empty: training turns the labels into sentences through the graph.

The folder's labels say what is present. What they deny follows from how each source was labelled, and stands as 0 in
the manifest: "No Finding" denies every label of its source, and in the sources that give each image one diagnosis, a
named cause denies the others. NIH's labels were mined from text, so a label that is missing there denies nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import PurePosixPath

from kvlp.datasets.manifest import Manifest, Record
from kvlp.datasets.readers.common import finish, require_columns, require_folder
from kvlp.datasets.tables import read_table
from kvlp.typing import ABSENT, PRESENT, PathLike

__all__ = ["read"]

NO_FINDING = "No Finding"
#: Sources whose images each carry one diagnosis as a chain, as in Pneumonia;Viral Pneumonia;COVID-19.
ONE_DIAGNOSIS = frozenset({"actualmed-covid", "figure1-covid", "ieee8023-covid", "kermany-paediatric"})


def read(
    src: PathLike, out: PathLike, *, licence: str | None = None, copy: bool = False, overwrite: bool = False
) -> Manifest:
    """Write `out/manifest.csv`: split, source, text, view and licence as they are, labels with what they deny.

    The id of a record is its path within `images/` without the ending.
    """
    root = require_folder(src)
    path = root / "manifest.csv"
    require_columns(path, read_table(path).columns, ("image", "source", "patient_id", "labels", "licence", "split"))
    manifest = Manifest.load(path)
    known: defaultdict[str, set[str]] = defaultdict(set)
    for record in manifest:
        known[record.source].update(record.labels)
    records = [
        replace(record, id=_name(record.image), labels=_with_denials(record, known[record.source]))
        for record in manifest
    ]
    return finish(records, root, out, licence=licence, copy=copy, overwrite=overwrite)


def _with_denials(record: Record, known: Iterable[str]) -> dict[str, float]:
    """The labels, and 0 for those of the source (`known`) that they rule out."""
    labels = dict(record.labels)
    normal = labels.get(NO_FINDING) == PRESENT
    causes = [name for name in labels if name not in (NO_FINDING, "Pneumonia")]
    if normal or (record.source in ONE_DIAGNOSIS and causes):
        return {**dict.fromkeys(sorted(known), ABSENT), **labels}
    return {NO_FINDING: ABSENT, **labels} if labels else labels


def _name(image: str) -> str:
    path = PurePosixPath(image).with_suffix("")
    return str(path.relative_to("images")) if path.parts[:1] == ("images",) else str(path)
