"""Benchmark `figures`: pairs of panels and sub-captions on planted article figures, as F1 with its interval.

A pair is right if it has the planted label, a box with intersection over union of at least 0.75 and the same words. The
figures are drawn by `kvlp.datasets.figures.planted`: seeds below 100 were looked at while the importer was written, so
what stands in the docs takes another one. Beside the whole importer stand the same without letters (reading order
alone), with tesseract as a second reader where it is installed, and what costs nothing: the whole figure and caption.

Settings: `count=400` (figures), `ocr=auto` (auto, tesseract, none).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from kvlp.datasets.figures.captions import SplitCaption, split_caption
from kvlp.datasets.figures.jats import Caption, read_article
from kvlp.datasets.figures.matching import FigureMatch, match_panels
from kvlp.datasets.figures.modality import tell_modality
from kvlp.datasets.figures.ocr import Engine, find_engine
from kvlp.datasets.figures.planted.packages import PlantedFigure, article_files, plant_figure
from kvlp.datasets.figures.planted.scoring import Found, Tally, score_pairs
from kvlp.errors import ConfigError
from kvlp.eval.bench.measure import BenchOptions, Measure

__all__ = ["run"]

_SETTINGS = {"count": "400", "ocr": "auto"}
_RESAMPLES = 2000
_Matcher = Callable[[NDArray[np.uint8], SplitCaption], list[Found]]


def run(options: BenchOptions) -> list[Measure]:
    """Measure F1 of pairs, by layout and by where letters stand; modality; pairs by the way they were matched.

    Raises: ConfigError for an unknown setting.
    """
    count, engine = _settings(options)
    drawn = [plant_figure(np.random.default_rng([options.seed, number])) for number in range(count)]
    pixels = [_pixels(figure) for figure in drawn]
    captions = [_caption(figure) for figure in drawn]
    ours = [match_panels(p, c) for p, c in zip(pixels, captions)]
    contestants: dict[str, _Matcher] = {}
    if engine:
        contestants[f"kvlp + tesseract {engine.version}"] = partial(_ours, engine=engine)
    contestants |= {"reading order alone": _in_order, "whole figure, whole caption": _whole}
    measures = []
    tallies = {"kvlp": [score_pairs(_found(match), f.panels) for match, f in zip(ours, drawn)]}
    for name, matcher in contestants.items():
        tallies[name] = [score_pairs(matcher(p, c), f.panels) for p, c, f in zip(pixels, captions, drawn)]
    for name in tallies:
        measures.append(_f1("F1 of pairs", name, tallies[name], options.seed))
        options.say(f"{name}: F1 {measures[-1].value:.3f} ({measures[-1].low:.3f} to {measures[-1].high:.3f})")
    measures += _slices(drawn, tallies["kvlp"], options.seed)
    measures += _by_way(drawn, ours)
    measures.append(_modality(drawn, pixels))
    return measures


def _settings(options: BenchOptions) -> tuple[int, Engine | None]:
    unknown = set(options.settings) - set(_SETTINGS)
    if unknown:
        raise ConfigError(f"benchmark figures has no setting '{min(unknown)}'; it has {', '.join(_SETTINGS)}")
    found = {**_SETTINGS, **options.settings}
    if not found["count"].isdecimal() or int(found["count"]) < 1:
        raise ConfigError(f"count={found['count']}: expected a count such as {_SETTINGS['count']}")
    return max(1, round(int(found["count"]) * options.size)), find_engine(found["ocr"])


def _pixels(figure: PlantedFigure) -> NDArray[np.uint8]:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(figure.data)).convert("RGB"))


def _caption(figure: PlantedFigure) -> SplitCaption:
    """The caption as it is read from the article's XML, with what is bold in it."""
    article = read_article(article_files("PMC1", {"F1": figure})["PMC1.nxml"])
    return split_caption(article.figures[0].caption)


def _ours(pixels: NDArray[np.uint8], caption: SplitCaption, engine: Engine | None = None) -> list[Found]:
    return _found(match_panels(pixels, caption, engine))


def _found(match: FigureMatch) -> list[Found]:
    return [Found(m.part.label, m.box, m.part.whole) for m in match.matches]


def _in_order(pixels: NDArray[np.uint8], caption: SplitCaption) -> list[Found]:
    """Panels in reading order, labels in the alphabet's, as far as both go."""
    from kvlp.datasets.figures.layout import find_layout

    if not caption.parts:
        return _whole(pixels, caption)
    boxes = find_layout(pixels).leaves()
    return [Found(part.label, box, part.whole) for part, box in zip(caption.parts, boxes)]


def _whole(pixels: NDArray[np.uint8], caption: SplitCaption) -> list[Found]:
    return _ours(pixels, split_caption(Caption("")) if not caption.text else SplitCaption(caption.text))


def _f1(name: str, subject: str, tallies: Sequence[Tally], seed: int, notes: str = "") -> Measure:
    """F1 over all pairs, with the 95 % interval of resampled figures."""
    table = np.array([(t.right, t.found, t.planted) for t in tallies])
    draws = np.random.default_rng(seed).multinomial(len(table), np.full(len(table), 1 / len(table)), _RESAMPLES) @ table
    values = 2 * draws[:, 0] / np.maximum(1, draws[:, 1] + draws[:, 2])
    low, high = np.quantile(values, [0.025, 0.975])
    total = sum(tallies, Tally())
    told = f"{len(table)} figures, {total.planted} planted pairs; 95 % interval, figures resampled; seed {seed}"
    return Measure(name, subject, total.f1, "F1", float(low), float(high), len(table), f"{notes}{told}")


def _slices(drawn: Sequence[PlantedFigure], tallies: Sequence[Tally], seed: int) -> list[Measure]:
    """F1 of compound figures with labels by layout, ground, gutter and place of letters; and of those left whole."""
    groups: dict[tuple[str, str], list[Tally]] = {}
    for figure, tally in zip(drawn, tallies):
        look = figure.look
        if look is None or not figure.panels[0].label:
            kind = "single picture" if look is None else "compound, no labels in the caption"
            groups.setdefault(("stays whole", kind), []).append(tally)
            continue
        gutter = "3-5 px" if look.gutter <= 5 else "8-12 px" if look.gutter <= 12 else "20-30 px"
        values = {"layout": look.layout, "ground": look.ground, "letters": look.letters, "gutter": gutter}
        for name, value in values.items():
            groups.setdefault((name, value), []).append(tally)
    return [_f1(f"F1 by {name}", value, groups[name, value], seed) for name, value in sorted(groups)]


def _by_way(drawn: Sequence[PlantedFigure], matched: Sequence[FigureMatch]) -> list[Measure]:
    """How often a pair is right, by the way it was found: what its confidence stands on."""
    right: dict[str, list[int]] = {}
    for figure, found in zip(drawn, matched):
        for match in found.matches:
            pair = Found(match.part.label, match.box, match.part.whole)
            right.setdefault(match.how, []).append(score_pairs([pair], figure.panels).right)
    return [
        Measure("right pairs", f"matched by {how}", float(np.mean(hits)), "share", *_wilson(hits), len(hits))
        for how, hits in sorted(right.items())
    ]


def _modality(drawn: Sequence[PlantedFigure], pixels: Sequence[NDArray[np.uint8]]) -> Measure:
    """Share of planted panels whose kind is told from the panel and its own text."""
    kinds = _kinds(drawn, pixels)
    hits = [int(told == planted) for told, planted in kinds]
    notes = "panel cut at its planted box, with its planted text"
    return Measure("kind of picture told", "kvlp", float(np.mean(hits)), "share", *_wilson(hits), len(hits), notes)


def _kinds(drawn: Sequence[PlantedFigure], pixels: Sequence[NDArray[np.uint8]]) -> list[tuple[str, str]]:
    known: Mapping[str, str] = {"heat map": "plot", "chess": "plot", "abutting": "radiograph"}
    told = []
    for figure, image in zip(drawn, pixels):
        for panel in figure.panels:
            part = image[panel.box.top : panel.box.bottom, panel.box.left : panel.box.right]
            told.append((tell_modality(part, panel.text).kind, known.get(panel.kind, panel.kind)))
    return told


def _wilson(hits: Sequence[int]) -> tuple[float, float]:
    """95 % interval of a share by Wilson's formula."""
    n, z = len(hits), 1.959964
    share = sum(hits) / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return float(middle - half), float(middle + half)
