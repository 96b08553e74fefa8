"""Captions to plant, in the ways that articles write them, with what each panel's text should come out as."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from kvlp.datasets.figures.markers import roman

__all__ = ["STYLES", "PlantedCaption", "plain_caption", "write_caption"]

_SAYS = {
    "radiograph": (
        "Chest radiograph shows a right pleural effusion",
        "Posteroanterior chest X-ray with an enlarged heart (arrow)",
        "Frontal radiograph after drainage, without pneumothorax",
    ),
    "ct": (
        "Axial CT image shows a 2.5 cm nodule in the left upper lobe",
        "Contrast-enhanced CT of the chest (arrowheads mark the wall)",
        "Coronal CT reconstruction, lung window",
    ),
    "mr": (
        "T2-weighted image shows a hyperintense lesion",
        "Axial FLAIR image with ring enhancement (arrow)",
        "Sagittal T1-weighted MRI after gadolinium",
    ),
    "ultrasound": (
        "Ultrasound of the liver with a cyst",
        "Doppler sonogram of the mass (star)",
        "Transverse ultrasound image",
    ),
    "microscopy": (
        "Photomicrograph of the specimen, H&E, original magnification x40",
        "Histology shows spindle cells (H&E stain)",
        "Immunohistochemistry for CD20",
    ),
    "photograph": ("Clinical photograph of the wound", "Gross specimen after resection", "Photograph before surgery"),
    "plot": ("Survival curve of both groups", "Plot of volume against time", "Bar chart of counts by week"),
}
_TITLES = (
    "",
    "",
    "Imaging of a 54-year-old man with cough.",
    "Findings at admission.",
    "Course over two weeks (2019-2020).",
)
_ENDS = ("", "", "", "Scale bar: 50 µm.", "Arrows mark the lesion.")


@dataclass(frozen=True, slots=True)
class PlantedCaption:
    """A caption as XML inside <p>, the labels in order, and label -> the text that belongs to its panel."""

    markup: str
    labels: tuple[str, ...]
    texts: dict[str, str]


def plain_caption(kind: str, rng: np.random.Generator) -> PlantedCaption:
    """A caption without panels."""
    text = f"{rng.choice(_TITLES)} {rng.choice(_SAYS.get(kind, _SAYS['plot']))}.".strip()
    return PlantedCaption(escape(text, quote=False), (), {"": text})


def write_caption(kinds: Sequence[str], rng: np.random.Generator, style: str = "") -> PlantedCaption:
    """Write a caption for panels of these kinds in one of `STYLES`, or in one drawn by chance."""
    style = style or str(rng.choice(list(STYLES)))
    says = [str(rng.choice(_SAYS[kind])) for kind in kinds]
    title, end = str(rng.choice(_TITLES)), str(rng.choice(_ENDS))
    return STYLES[style](says, title, end)


def _letters(count: int) -> tuple[str, ...]:
    return tuple("abcdefghijklmnopqrstuvwxyz"[:count])


def _made(body: str, labels: Sequence[str], says: Sequence[str], title: str, end: str) -> PlantedCaption:
    texts = {label: " ".join(filter(None, (title, f"{say}.", end))) for label, say in zip(labels, says)}
    return PlantedCaption(
        " ".join(filter(None, (escape(title, quote=False), body, escape(end, quote=False)))), tuple(labels), texts
    )


def _plain(text: str) -> str:
    return escape(text, quote=False)


def _before(form: str, *, upper: bool, stop: str = ".") -> Callable[[list[str], str, str], PlantedCaption]:
    """Labels before their text, each set by `form`."""

    def write(says: list[str], title: str, end: str) -> PlantedCaption:
        labels = _letters(len(says))
        shown = [label.upper() if upper else label for label in labels]
        parts = [f"{form.format(label)} {_plain(say)}" for label, say in zip(shown, says)]
        return _made(f"{stop} ".join(parts) + ".", labels, says, title, end)

    return write


def _romans(says: list[str], title: str, end: str) -> PlantedCaption:
    labels = [roman(n + 1) for n in range(len(says))]
    return _made(" ".join(f"({label}) {_plain(say)}." for label, say in zip(labels, says)), labels, says, title, end)


def _after(says: list[str], title: str, end: str) -> PlantedCaption:
    """ "X (A), Y (B), and Z (C)." """
    labels = _letters(len(says))
    parts = [f"{_plain(say)} ({label.upper()})" for label, say in zip(labels, says)]
    body = f"{', '.join(parts[:-1])}, and {parts[-1]}." if len(parts) > 1 else f"{parts[0]}."
    return _made(body, labels, says, title, end)


def _after_sentences(says: list[str], title: str, end: str) -> PlantedCaption:
    labels = _letters(len(says))
    return _made(" ".join(f"{_plain(say)} ({label})." for label, say in zip(labels, says)), labels, says, title, end)


def _after_with_rest(says: list[str], title: str, end: str) -> PlantedCaption:
    """ "X (A) and Y (B) at follow-up." """
    labels = _letters(len(says))
    parts = [f"{_plain(say)} ({label.upper()})" for label, say in zip(labels, says)]
    body = f"{', '.join(parts[:-1])} and {parts[-1]} at follow-up."
    return _made(body, labels, [f"{say} at follow-up" for say in says], title, end)


def _first_two(form: str, single: str, *, upper: bool = False) -> Callable[[list[str], str, str], PlantedCaption]:
    """The first two panels share one text, such as "(A, B)" or "a-b)"."""

    def write(says: list[str], title: str, end: str) -> PlantedCaption:
        labels = _letters(len(says))
        said = [says[0], *([says[0]] if len(says) > 1 else []), *says[2:]]
        rest = " ".join(
            f"{single.format(label.upper() if upper else label)} {_plain(say)}."
            for label, say in zip(labels[2:], said[2:])
        )
        return _made(f"{form} {_plain(says[0])}. {rest}".strip(), labels, said, title, end)

    return write


STYLES: dict[str, Callable[[list[str], str, str], PlantedCaption]] = {
    "(A) X. (B) Y.": _before("({})", upper=True),
    "(a) X; (b) Y.": _before("({})", upper=False, stop=";"),
    "(A) X, (B) Y.": _before("({})", upper=True, stop=","),
    "A) X. B) Y.": _before("{})", upper=True),
    "a: X. b: Y.": _before("{}:", upper=False),
    "A. X. B. Y.": _before("{}.", upper=True),
    "A, X. B, Y.": _before("{},", upper=True),
    "bold A X. B Y.": _before("<bold>{}</bold>", upper=True),
    "bold (a) X. (b) Y.": _before("(<bold>{}</bold>)", upper=False),
    "Panel A: X. Panel B: Y.": _before("Panel {}:", upper=True),
    "(i) X. (ii) Y.": _romans,
    "X (A), and Y (B).": _after,
    "X (a). Y (b).": _after_sentences,
    "X (A) and Y (B) rest.": _after_with_rest,
    "(A, B) X. (C) Y.": _first_two("(A, B)", "({0})", upper=True),
    "(a-b) X. (c) Y.": _first_two("(a–b)", "({0})"),
    "a, b) X. c) Y.": _first_two("a, b)", "{0})"),
}
