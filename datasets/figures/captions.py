"""Captions taken apart: one text a panel, with what the caption says of all panels kept for each.

Two ways of writing are told apart. Labels may stand before their text ("(A) Axial CT. (B) Coronal CT."), or after it
("Axial (A) and coronal (B) CT shows ..."); in the second, what follows the last label of a sentence is said of each.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kvlp.datasets.figures.jats import Caption
from kvlp.datasets.figures.markers import Marker, find_markers
from kvlp.datasets.figures.words import shared_openings

__all__ = ["SplitCaption", "SubCaption", "split_caption"]

#: characters; no caption is longer, and what is no caption is not searched for labels
_LONGEST = 20_000
#: a sentence ends at a stop before a capital or a bracket, but not after an abbreviation or an initial
_SENTENCE = re.compile(
    r"(?<![\s(.][A-Za-z])(?<!\b[A-Z])(?<!\bFig)(?<!\bvs)(?<!\be\.g)(?<!\bi\.e)(?<!\bDr)(?<!\bal)[.;]\s+(?=[A-Z(\[*])"
)
_CONNECTORS = re.compile(r"^(?:\s|[,;.]|\band\b|\bwhile\b|\bor\b)+", re.IGNORECASE)
_REFERS = re.compile(r"\b(?:in|on|from|of|to|than|see|by|with|as|for)\s*\Z", re.IGNORECASE)
_TAIL = re.compile(r"(?:\s|[,;:]|\band\b)+\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SubCaption:
    """What a caption says of one panel.

    Attributes:
        label: in lower case: "a", "iv", "left", "top right".
        text: of this panel alone.
        whole: with what is said of all panels, in the caption's order.
    """

    label: str
    text: str
    whole: str


@dataclass(frozen=True, slots=True)
class SplitCaption:
    """A caption's parts; `parts` is empty if it names no panels. `style` is "before", "after" or ""."""

    text: str
    parts: tuple[SubCaption, ...] = ()
    style: str = ""
    shared: str = ""

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in order of the alphabet, or in the caption's order for places."""
        return tuple(part.label for part in self.parts)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Text of some panels (none named: of all)."""

    text: str
    labels: tuple[str, ...] = ()


def split_caption(caption: Caption | str) -> SplitCaption:
    """Take a caption apart. A caption without panel labels comes back whole, with no parts."""
    caption = caption if isinstance(caption, Caption) else Caption(" ".join(caption.split()))
    markers = find_markers(caption) if len(caption.text) <= _LONGEST else []
    if not markers:
        return SplitCaption(caption.text)
    markers, mentions = _tell_mentions(caption.text, markers)
    after = _stands_after(caption.text, markers)
    pieces = list(_after(caption.text, markers, mentions) if after else _before(caption.text, markers))
    labels = sorted({label for marker in markers for label in marker.labels}, key=_order(markers))
    parts = tuple(_part(label, pieces) for label in labels)
    if any(not part.text for part in parts):
        return SplitCaption(caption.text)
    return SplitCaption(
        caption.text, parts, "after" if after else "before", _join(p.text for p in pieces if not p.labels)
    )


def _tell_mentions(text: str, markers: list[Marker]) -> tuple[list[Marker], list[Marker]]:
    """Set apart markers that only refer to a panel ("as in (B)"), as long as each panel keeps a marker of its own."""
    named = [marker for marker in markers if not _REFERS.search(text[: marker.start])]
    if {label for marker in markers for label in marker.labels} != {label for m in named for label in m.labels}:
        return markers, []
    return named, [marker for marker in markers if marker not in named]


def _order(markers: Sequence[Marker]):  # type: ignore[no-untyped-def]  # label -> sort key
    seen = {label: n for n, label in reversed(list(enumerate(l for m in markers for l in m.labels)))}
    letters = all(len(label) == 1 for label in seen) and "ii" not in seen
    return (lambda label: label) if letters else seen.__getitem__


def _part(label: str, pieces: Sequence[_Piece]) -> SubCaption:
    return SubCaption(
        label,
        _join(piece.text for piece in pieces if label in piece.labels),
        _join(piece.text for piece in pieces if label in piece.labels or not piece.labels),
    )


def _join(texts: Iterator[str]) -> str:
    """Join pieces as sentences: a piece without an end gets a stop if another one follows."""
    known = [text for text in texts if text]
    ended = [text if text[-1] in ".!?:;" else f"{text}." for text in known[:-1]]
    return " ".join([*ended, *known[-1:]])


def _stands_after(text: str, markers: Sequence[Marker]) -> bool:
    """Whether labels follow their text: words before the marker, and a stop, a comma or "and" behind it."""
    votes = 0
    for marker in markers:
        before, behind = text[: marker.start].rstrip(), text[marker.end :].lstrip()
        opened = not before or before[-1] in ".;:" or (text[marker.end - 1] in ":." and before[-1] == ",")
        closed = not behind or behind[0] in ".,;" or re.match(r"(?:and|or|while)\b", behind) is not None
        votes += closed - opened
    return votes > 0


def _before(text: str, markers: Sequence[Marker]) -> Iterator[_Piece]:
    """Pieces of a caption whose labels stand before their text."""
    yield _Piece(_clean(text[: markers[0].start]))
    for number, marker in enumerate(markers):
        last = number + 1 == len(markers)
        body = _noted(marker) + text[marker.end : len(text) if last else markers[number + 1].start]
        own, shared = _without_shared_end(body) if last else (body, "")
        yield _Piece(_clean(own), marker.labels)
        yield _Piece(_clean(shared))


def _without_shared_end(body: str) -> tuple[str, str]:
    """Cut off closing sentences that speak of all panels ("Scale bar: 50 µm.")."""
    starts = [0, *(match.end() for match in _SENTENCE.finditer(body))]
    for start in starts[1:]:
        if shared_openings().match(body, start):
            return body[:start], body[start:]
    return body, ""


def _noted(marker: Marker) -> str:
    return f" ({marker.note})" if marker.note else ""


def _after(text: str, markers: Sequence[Marker], mentions: Sequence[Marker]) -> Iterator[_Piece]:
    """Pieces of a caption whose labels follow their text, sentence by sentence."""
    for start, end in _sentences(text):
        inside = [marker for marker in markers if start <= marker.start < end]
        if not inside:
            of = tuple(label for m in mentions if start <= m.start < end for label in m.labels)
            yield _Piece(_clean(text[start:end]), of)
            continue
        rest = _CONNECTORS.sub("", text[inside[-1].end : end]) if not _closes(text, inside[-1].end) else ""
        position = start
        for marker in inside:
            words = _TAIL.sub("", _CONNECTORS.sub("", text[position : marker.start]))
            yield _Piece(_clean(f"{words}{_noted(marker)} {rest}"), marker.labels)
            position = marker.end
        if not rest:
            yield _Piece(_clean(_CONNECTORS.sub("", text[position:end])))


def _closes(text: str, position: int) -> bool:
    """Whether a marker ends its clause, so that what follows is said of the whole figure."""
    return text[position : position + 1] in (".", ";", ",", "")


def _sentences(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for match in _SENTENCE.finditer(text):
        yield start, match.start() + 1
        start = match.end()
    yield start, len(text)


def _clean(text: str) -> str:
    """Single spaces, no leading connectors or punctuation that belonged to a marker, no lone "and" at the end."""
    text = " ".join(text.split())
    text = re.sub(r"^(?:[,;:.)\]–—-]\s*)+|^and\s+", "", text)
    text = re.sub(r"(?:\s*(?:[,;:(\[–—-]|\band))+\s*\Z", "", text).rstrip()
    if text.count(")") > text.count("("):
        text = re.sub(r"\)(?=[.;]?\Z)", "", text)
    return "" if not re.search(r"\w", text) else text
