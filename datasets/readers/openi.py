"""Open-I (Indiana University): XML reports in `ecgen-radiology`, PNG images, and human MeSH codes as labels.

The XML does not say which image is frontal. If Kaggle's `indiana_projections.csv` lies in the folder, lateral images
are left out; else the view is not known and every image is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from kvlp.datasets.files import read_text
from kvlp.datasets.manifest import Manifest, Record
from kvlp.datasets.readers.common import finish, require_folder
from kvlp.datasets.readers.sources import ImageIndex, find_file, find_folder, optional_file, read_rows, require_images
from kvlp.errors import DataError
from kvlp.typing import ABSENT, PRESENT, PathLike

__all__ = ["read"]

_WHAT = "Open-I"
_LICENCE = "CC BY-NC-ND 4.0"
_MAX_BYTES = 1 << 20
_PREFIX = re.compile(r"CXR\d+_")
_ENDING = re.compile(r"(\.dcm)?\.png\Z|\.dcm\Z")


def read(
    src: PathLike, out: PathLike, *, licence: str | None = None, copy: bool = False, overwrite: bool = False
) -> Manifest:
    """Write `out/manifest.csv`: a row for each image, with its report and the heads of its manual MeSH codes.

    A code `Pulmonary Atelectasis/base/left` is the label "Pulmonary Atelectasis"; `Thickening/pleura` is "Pleural
    Thickening"; `normal` is No Finding. What is not coded is not written as absent.

    Args:
        src: the folder; images lie anywhere below, as .png.
        out: the folder of the new manifest.
        licence, copy, overwrite: see `kvlp.datasets.readers.common.finish`.
    """
    root = require_folder(src)
    folder = find_folder(root, "ecgen-radiology") or find_file(root, "1.xml", what=_WHAT).parent
    reports = sorted(folder.glob("*.xml"), key=lambda path: (len(path.stem), path.stem))
    if not reports:
        raise DataError(f"{_WHAT}: looked for 1.xml, 2.xml, ... in {folder}; it holds none")
    views, where = _views(root), ImageIndex(root, (".png",))
    records = [record for path in reports for record in _records(path, views, where)]
    require_images(root, (r.image for r in records), what=_WHAT)
    return finish(records, root, out, licence=licence, copy=copy, overwrite=overwrite)


def _views(root: Path) -> dict[str, str]:
    """Image -> "frontal" or "lateral"; Kaggle's table writes CXR1_1_IM-0001-4001 as 1_IM-0001-4001.dcm.png."""
    table = optional_file(root, "indiana_projections.csv")
    rows = read_rows(table, ("filename", "projection")) if table else []
    return {_ENDING.sub("", row["filename"]): row["projection"].lower() for row in rows}


def _records(path: Path, views: dict[str, str], where: ImageIndex) -> Iterator[Record]:
    tree = _parse(path)
    said = {str(node.get("Label")).upper(): " ".join((node.text or "").split()) for node in tree.iter("AbstractText")}
    uid = next((str(node.get("id")) for node in tree.iter("uId")), path.stem)
    labels = _labels([node.text or "" for node in tree.findall(".//MeSH/major")])
    for image in filter(None, (node.get("id") for node in tree.iter("parentImage"))):
        short = _PREFIX.sub("", image, count=1)
        view = views.get(short, "")
        if view == "lateral":
            continue
        lies = where(image, expected="") or where(f"{short}.dcm", expected="") or where(short, expected=f"{image}.png")
        yield Record(
            id=image,
            image=lies,
            findings=said.get("FINDINGS", ""),
            impression=said.get("IMPRESSION", ""),
            patient_id=uid,
            study_id=uid,
            view=view,
            split="test",
            labels=labels,
            source="openi",
            licence=_LICENCE,
        )


def _parse(path: Path) -> ElementTree.Element:
    text = read_text(path, max_bytes=_MAX_BYTES)
    if "<!DOCTYPE" in text:
        raise DataError(f"{path}: XML with a document type (and entities) is refused; Open-I's reports have none")
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as problem:
        raise DataError(f"{path}: not XML: {problem}") from problem


def _labels(codes: list[str]) -> dict[str, float]:
    heads = {}
    for code in codes:
        head, *rest = (" ".join(part.split()) for part in code.split("/"))
        name = "Pleural Thickening" if head == "Thickening" and "pleura" in rest else head
        if name:
            heads[name] = PRESENT
    normal = heads.pop("normal", ABSENT)
    return {"No Finding": normal, **heads} if heads or normal else {}
