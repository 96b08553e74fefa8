"""One article package into rows of a manifest, with a count for everything that was left out."""

from __future__ import annotations

import io
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvlp.datasets.figures.captions import SplitCaption, SubCaption, split_caption
from kvlp.datasets.figures.jats import Article, Figure, read_article
from kvlp.datasets.figures.licences import is_third_party
from kvlp.datasets.figures.matching import CONFIDENCE, FigureMatch, PanelMatch, match_panels
from kvlp.datasets.figures.modality import Modality, tell_modality
from kvlp.datasets.figures.ocr import Engine
from kvlp.datasets.figures.options import FigureOptions
from kvlp.datasets.figures.packages import Package, open_package
from kvlp.datasets.figures.panels import Box
from kvlp.datasets.files import atomic_write
from kvlp.datasets.images import decode
from kvlp.errors import DataError, KvlpError

__all__ = ["Outcome", "as_rgb", "process_package"]

_QUALITY = 95


@dataclass(slots=True)
class Outcome:
    """What became of one package. Plain data: it is written to the journal as JSON.

    Attributes:
        article: ids, title, journal, licence; empty if the package could not be read.
        rows: one dictionary a pair, with every field of its record.
        kept: how pairs were found -> how many.
        dropped: reason -> how many panels or figures.
        problems: one line each, with the figure it is about.
        error: why the package could not be read; "" otherwise.
    """

    article: dict[str, str] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    figures: int = 0
    kept: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {slot.name: getattr(self, slot.name) for slot in fields(self)}

    def drop(self, reason: str, where: str = "", problem: str = "") -> None:
        """Count what was left out; say why in a line where there is more to say than the reason."""
        self.dropped[reason] += 1
        if problem:
            self.problems.append(f"{where}: {problem}")


def process_package(path: Path, key: str, out: Path, options: FigureOptions, engine: Engine | None) -> Outcome:
    """Read a package, write its panels to `out/images/<key>/`, and return what became of it. Never raises DataError."""
    folder = out / "images" / key
    if folder.exists():
        shutil.rmtree(folder)  # what a run that was cut off had begun
    outcome = Outcome()
    try:
        package = open_package(path)
        article = read_article(package.xml)
    except (DataError, OSError) as problem:
        outcome.error = _line(problem)
        return outcome
    outcome.article = {name: value for name, value in asdict(article).items() if isinstance(value, str)}
    for figure in article.figures:
        outcome.figures += 1
        reason = _refused(figure, options)
        if reason:
            outcome.drop(reason)
            continue
        _Maker(package, article, figure, folder, options, outcome).run(engine)
    return outcome


def _refused(figure: Figure, options: FigureOptions) -> str:
    """Why a figure is left out before it is looked at; "" if it is not."""
    patterns = [pattern.strip().lower() for pattern in options.licence.split(",") if pattern.strip()]
    if patterns and not any(fnmatchcase(figure.licence.lower(), pattern) for pattern in patterns):
        return "licence"
    if not options.third_party and ((figure.holder and not figure.licence) or is_third_party(figure.caption.text)):
        return "third party"
    if not figure.caption.text:
        return "no caption"
    return "" if figure.images else "no picture"


@dataclass(slots=True)
class _Maker:
    """Makes the rows of one figure."""

    package: Package
    article: Article
    figure: Figure
    folder: Path
    options: FigureOptions
    outcome: Outcome

    def run(self, engine: Engine | None) -> None:
        caption = split_caption(self.figure.caption)
        pictures = self.figure.images
        if len(pictures) == 1:
            self.picture(pictures[0], "", caption, engine)
            return
        for number, names in enumerate(pictures):
            if len(pictures) == len(caption.parts):
                self.picture(names, f"-{number + 1}", caption, engine, caption.parts[number])
            else:
                self.picture(names, f"-{number + 1}", SplitCaption(caption.text), engine)

    def picture(
        self,
        names: tuple[str, ...],
        suffix: str,
        caption: SplitCaption,
        engine: Engine | None,
        part: SubCaption | None = None,
    ) -> None:
        """Make the rows of one picture file; `part` is given where a file is one panel."""
        try:
            name, data = self.package.image(names)
            stored = decode(data)
        except KvlpError as problem:  # a missing extra is a fault of this picture too
            missing = "is not in the package" in str(problem)
            self.outcome.drop("picture missing" if missing else "picture unreadable", self.figure.id, _line(problem))
            return
        pixels = as_rgb(stored)
        whole = Box(0, 0, *pixels.shape[:2])
        if part is not None:
            found = FigureMatch((PanelMatch(whole, part, "order of files", CONFIDENCE["order of files"]),), 1)
        else:
            found = match_panels(pixels, caption, engine)
        if found.problem:
            self.outcome.problems.append(f"{self.figure.id}: {found.problem}")
        for match in found.matches or self.instead(whole, caption):
            self.pair(match, pixels, caption, f"{self.figure.id}{suffix}", name, data)
        self.outcome.dropped["sub-caption without a panel"] += max(0, len(caption.parts) - len(found.matches)) * bool(
            found.matches and part is None
        )

    def instead(self, whole: Box, caption: SplitCaption) -> Iterator[PanelMatch]:
        """The whole figure with its whole caption, where it could not be taken apart."""
        self.outcome.kept["not taken apart"] += 1
        yield PanelMatch(whole, SubCaption("", caption.text, caption.text), "whole", CONFIDENCE["whole"])

    def pair(
        self, match: PanelMatch, pixels: NDArray[np.uint8], caption: SplitCaption, figure: str, name: str, data: bytes
    ) -> None:
        box = match.box
        panel = pixels[box.top : box.bottom, box.left : box.right]
        kind = tell_modality(panel, match.part.text, caption.shared)
        reason = self.unwanted(match, kind)
        if reason:
            self.outcome.drop(reason)
            return
        image = self.write(panel, f"{figure}{'-' if match.part.label else ''}{match.part.label}", name, data, pixels)
        self.outcome.kept[match.how] += 1
        self.outcome.rows.append(
            {
                "figure": figure,
                "label": match.part.label,
                "image": image,
                "file": name,
                "box": list(box),
                "text": match.part.whole,
                "own_text": match.part.text,
                "how": match.how,
                "confidence": match.confidence,
                "modality": kind.kind,
                "modality_reason": kind.reason,
                "licence": self.figure.licence,
                "licence_url": self.figure.licence_url,
            }
        )

    def unwanted(self, match: PanelMatch, kind: Modality) -> str:
        if min(match.box.height, match.box.width) < self.options.min_side:
            return "too small"
        if match.confidence < self.options.min_confidence:
            return "low confidence"
        return "" if kind.kind in self.options.keep else f"kind: {kind.kind}"

    def write(self, panel: NDArray[np.uint8], name: str, source: str, data: bytes, pixels: NDArray[np.uint8]) -> str:
        """Write a panel; a whole figure keeps its file's own bytes. Returns the path below OUT."""
        ending = ".png" if source.endswith(".png") else ".jpg"
        path = self.folder / f"{_safe(name)}{ending}"
        if path.exists():
            path = self.folder / f"{_safe(name)}-{len(self.outcome.rows)}{ending}"
        atomic_write(path, data if panel.shape == pixels.shape else _encoded(panel, ending))
        return path.relative_to(self.folder.parent.parent).as_posix()


def as_rgb(stored: NDArray[Any]) -> NDArray[np.uint8]:
    """Pixels as `decode` gives them, as (H, W, 3) uint8."""
    if stored.dtype == np.uint16:
        stored = (stored // 257).astype(np.uint8)
    elif stored.dtype.kind == "f":
        stored = np.rint(stored * 255).astype(np.uint8)
    return np.ascontiguousarray(np.repeat(stored[..., None], 3, axis=2) if stored.ndim == 2 else stored)


def _encoded(panel: NDArray[np.uint8], ending: str) -> bytes:
    from PIL import Image

    grey = bool((panel[..., 0] == panel[..., 1]).all() and (panel[..., 0] == panel[..., 2]).all())
    image = Image.fromarray(np.ascontiguousarray(panel[..., 0] if grey else panel))
    buffer = io.BytesIO()
    if ending == ".png":
        image.save(buffer, "PNG")
    else:
        image.save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    return buffer.getvalue()


def _safe(name: str) -> str:
    """A file name out of an XML id."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:80] or "figure"


def _line(problem: Exception) -> str:
    if isinstance(problem, OSError):
        return f"cannot be read: {problem.strerror or type(problem).__name__}"
    return " ".join(str(problem).split())
