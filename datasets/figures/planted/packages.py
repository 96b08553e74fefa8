"""Article packages as PubMed Central hands them out, .tar.gz or unpacked, written with a planted truth."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from kvlp.datasets.figures.panels import Box
from kvlp.datasets.figures.planted.captions import plain_caption, write_caption
from kvlp.datasets.figures.planted.layouts import LAYOUTS, Look, draw_figure, sample_look, whole_figure
from kvlp.datasets.figures.planted.pictures import PICTURES
from kvlp.datasets.files import atomic_write
from kvlp.typing import PathLike

__all__ = ["PlantedFigure", "PlantedPanel", "article_files", "plant_articles", "plant_figure", "write_package"]

_LICENCES = (
    ("https://creativecommons.org/licenses/by/4.0/", "CC BY 4.0"),
    ("https://creativecommons.org/licenses/by-nc/4.0/", "CC BY-NC 4.0"),
    ("https://creativecommons.org/licenses/by-nc-nd/4.0/", "CC BY-NC-ND 4.0"),
    ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0 1.0"),
)
_WHOLE = ("heat map", "chess", "abutting")


@dataclass(frozen=True, slots=True)
class PlantedPanel:
    """What should come out: a label ("" for the whole figure), its box, its text and its kind of picture."""

    label: str
    box: Box
    text: str
    kind: str


@dataclass(frozen=True, slots=True)
class PlantedFigure:
    """A figure's picture, caption and truth. `look` is how a compound one was set, None for a single picture."""

    data: bytes
    ending: str
    markup: str
    panels: tuple[PlantedPanel, ...]
    look: Look | None = None
    style: str = ""


def plant_figure(rng: np.random.Generator, *, look: Look | None = None, style: str = "") -> PlantedFigure:
    """Draw one figure: mostly compound with a caption that names its panels; some compound without; some single.

    Args:
        rng: decides everything that is left open.
        look: a way of setting; then the figure is compound, with labels.
        style: a way of writing captions, out of `planted.captions.STYLES`.
    """
    chance = rng.random() if look is None else 1.0
    if chance < 0.2:
        return _single(rng)
    look = look or sample_look(rng)
    count = len(LAYOUTS[look.layout])
    names = list(PICTURES)
    kinds = [str(k) for k in rng.choice(names, count)] if rng.random() < 0.4 else [str(rng.choice(names))] * count
    if chance < 0.28:
        return _unnamed(look, kinds, rng)
    caption = write_caption(kinds, rng, style)
    drawn = draw_figure(look, tuple(kinds), caption.labels, rng)
    panels = tuple(PlantedPanel(l, b, caption.texts[l], k) for l, b, k in zip(caption.labels, drawn.boxes, kinds))
    return PlantedFigure(drawn.data, drawn.ending, caption.markup, panels, look, style)


def _single(rng: np.random.Generator) -> PlantedFigure:
    kind = str(rng.choice([*PICTURES, *_WHOLE]))
    data, ending = whole_figure(kind, rng)
    caption = plain_caption("radiograph" if kind == "abutting" else kind, rng)
    return PlantedFigure(data, ending, caption.markup, (_whole(data, caption.texts[""], kind),))


def _unnamed(look: Look, kinds: list[str], rng: np.random.Generator) -> PlantedFigure:
    """A compound figure whose caption names no panels: it belongs together."""
    caption = plain_caption(kinds[0], rng)
    drawn = draw_figure(look, tuple(kinds), ("a",) * len(kinds), rng)
    return PlantedFigure(
        drawn.data, drawn.ending, caption.markup, (_whole(drawn.data, caption.texts[""], kinds[0]),), look
    )


def _whole(data: bytes, text: str, kind: str) -> PlantedPanel:
    from PIL import Image

    width, height = Image.open(io.BytesIO(data)).size
    return PlantedPanel("", Box(0, 0, height, width), text, kind)


def article_files(
    pmcid: str, figures: Mapping[str, PlantedFigure], licence_url: str = _LICENCES[0][0], *, doctype: bool = True
) -> dict[str, bytes]:
    """The files of an article by name: XML, pictures, and a thumbnail and a PDF as real packages hold them."""
    files: dict[str, bytes] = {}
    parts = []
    for number, (name, figure) in enumerate(figures.items(), 1):
        files[f"{pmcid}-g{number:03d}{figure.ending}"] = figure.data
        files[f"{pmcid}-g{number:03d}.gif"] = b"GIF89a"
        parts.append(
            f'<fig id="{escape(name)}"><label>Figure {number}</label><caption><p>{figure.markup}</p></caption>'
            f'<graphic xlink:href="{pmcid}-g{number:03d}"/></fig>'
        )
    head = (
        '<!DOCTYPE article PUBLIC "-//NLM//DTD JATS (Z39.96) Journal Archiving DTD v1.2//EN" "JATS-archive.dtd">'
        if doctype
        else ""
    )
    xml = (
        f'<?xml version="1.0" encoding="UTF-8"?>{head}<article xmlns:xlink="http://www.w3.org/1999/xlink"><front>'
        "<journal-meta><journal-title-group><journal-title>Planted Reports</journal-title></journal-title-group>"
        "</journal-meta>"
        f'<article-meta><article-id pub-id-type="pmc">{pmcid.removeprefix("PMC")}</article-id>'
        f'<article-id pub-id-type="doi">10.0000/planted.{pmcid}</article-id>'
        "<title-group><article-title>A planted case</article-title></title-group>"
        "<contrib-group><contrib><name><surname>Planter</surname><given-names>P</given-names></name></contrib></contrib-group>"
        f'<permissions><license xlink:href="{licence_url}"><license-p>Open access.</license-p></license></permissions>'
        f"</article-meta></front><body><sec>{''.join(parts)}</sec></body></article>"
    )
    return {f"{pmcid}.nxml": xml.encode(), "main.pdf": b"%PDF-1.4", **files}


def write_package(folder: PathLike, pmcid: str, files: Mapping[str, bytes], *, packed: bool = True) -> Path:
    """Write an article's files as `folder/PMC1.tar.gz`, or unpacked as `folder/PMC1/`."""
    if not packed:
        for name, data in files.items():
            atomic_write(Path(folder) / pmcid / name, data)
        return Path(folder) / pmcid
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"{pmcid}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    path = Path(folder) / f"{pmcid}.tar.gz"
    atomic_write(path, buffer.getvalue())
    return path


def plant_articles(
    folder: PathLike, count: int, seed: int = 0, *, figures: int = 3
) -> dict[str, dict[str, PlantedFigure]]:
    """Write `count` packages, every third unpacked, and truth.json. Returns article -> figure id -> figure."""
    planted: dict[str, dict[str, PlantedFigure]] = {}
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        pmcid = f"PMC9{number:06d}"
        planted[pmcid] = {f"F{n + 1}": plant_figure(rng) for n in range(figures)}
        files = article_files(pmcid, planted[pmcid], _LICENCES[number % len(_LICENCES)][0])
        write_package(folder, pmcid, files, packed=number % 3 != 2)
    truth = {a: {f: [_told(p) for p in fig.panels] for f, fig in figs.items()} for a, figs in planted.items()}
    atomic_write(Path(folder) / "truth.json", (json.dumps(truth, indent=1, ensure_ascii=False) + "\n").encode())
    return planted


def _told(panel: PlantedPanel) -> dict[str, object]:
    return {"label": panel.label, "box": list(panel.box), "text": panel.text, "kind": panel.kind}
