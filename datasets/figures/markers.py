"""Labels of panels inside a caption: "(A)", "a, b)", "B:", "(C-E)", "(ii)", "left panel", in bold or not.

A family is one way of writing labels. It counts only if its labels run from the first one on without a gap, so that
"vitamin (A)" or "(B)" alone splits nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from kvlp.datasets.figures.jats import Caption
from kvlp.datasets.figures.words import place_nouns, place_of_word

__all__ = ["Marker", "find_markers", "roman"]

_ROMANS = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_DASH = r"\s*(?:[-–—‒]|to|through)\s*"
_JOIN = r"\s*(?:,\s*and|,|;|&|/|and)\s*"
_MAX_LABELS = 26


@dataclass(frozen=True, slots=True)
class Marker:
    """Where a caption names panels: text[start:end] is the marker, `labels` what it names in lower case.

    `note` is what else stands in its brackets: "arrow" of "(A, arrow)".
    """

    start: int
    end: int
    labels: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Family:
    """One way of writing labels: a pattern whose group "body" holds them."""

    name: str
    pattern: re.Pattern[str]


def _families(one: str) -> tuple[_Family, ...]:
    """The ways of writing for labels that look like `one`, the least mistakable first."""
    body = rf"(?P<body>{one}(?:(?:{_DASH}|{_JOIN}){one}){{0,25}})"
    opening = r"(?:(?<=^)|(?<=[.;:]\s)|(?<=[.;]))"
    inside = rf"(?:{opening}|(?<=[,(]\s)|(?<=[(\[]))"
    note = r"(?:\s*[,;:]\s*(?P<note>[A-Za-z][^()\[\]]{2,40}))?"
    panel = r"(?:panels?|parts?|figures?|fig\.?|images?)\s*"
    return (
        _Family(
            "brackets",
            re.compile(
                rf"(?<![\w(])(?:panels?\s*|parts?\s*)?[(\[]\s*(?:{panel})?{body}{note}\s*[)\]]:?(?!\w)", re.IGNORECASE
            ),
        ),
        _Family("half", re.compile(rf"(?:(?<=^)|(?<=\s)){body}\):?(?=\s)", re.IGNORECASE)),
        _Family("panel", re.compile(rf"{opening}{panel}{body}\s*[:.,]?(?=\s)", re.IGNORECASE)),
        _Family("colon", re.compile(rf"{inside}{body}\s*:(?=\s)", re.IGNORECASE)),
        _Family("stop", re.compile(rf"{opening}{body}\s*[.](?=\s)", re.IGNORECASE)),
        _Family("comma", re.compile(rf"{opening}{body},(?=\s+[A-Z0-9])")),
    )


_KINDS: tuple[tuple[str, tuple[_Family, ...]], ...] = (
    ("letter", _families(r"[A-Za-z]")),
    ("roman", _families(r"(?:(?:[xX]?(?:[iI]{1,3}|[iI]?[vV]|[vV][iI]{1,3}|[iI][xX]))|[xX])")),
)


def find_markers(caption: Caption) -> list[Marker]:
    """Return the markers of the family that explains the caption best, in order; none if it names no panels.

    Letters come before roman numbers, those before places; of equal ones the family with most labels is taken.
    """
    best: list[Marker] = []
    for kind, families in _KINDS:
        found = [_runs(list(_matches(family.pattern, caption.text, kind)), kind) for family in families]
        if kind == "letter":
            found.append(_runs(list(_bold(caption)), kind))
        for markers in found:
            if _rank(markers) > _rank(best):
                best = markers
        if best:
            return best
    return _places(caption.text)


def roman(number: int) -> str:
    """The roman number of 1 to 12 in lower case."""
    return _ROMANS[number - 1]


def _rank(markers: list[Marker]) -> tuple[int, int]:
    """More panels named is better; then fewer markers, for repeated letters are often only referred to."""
    return len({label for marker in markers for label in marker.labels}), -len(markers)


def _matches(pattern: re.Pattern[str], text: str, kind: str) -> Iterator[Marker]:
    for match in pattern.finditer(text):
        labels = _expand(match["body"], kind)
        if labels:
            yield Marker(match.start(), match.end(), labels, match.groupdict().get("note") or "")


def _bold(caption: Caption) -> Iterator[Marker]:
    """Labels that are set in bold, whatever stands around them."""
    body = re.compile(
        rf"[(\[]?\s*(?P<body>[A-Za-z](?:(?:{_DASH}|{_JOIN})[A-Za-z]){{0,25}})\s*[)\]]?[.,:;]?\s*\Z", re.IGNORECASE
    )
    for start, end in caption.strong:
        match = body.match(caption.text[start:end])
        labels = _expand(match["body"], "letter") if match else ()
        if labels:
            tail = re.compile(r"\s*[)\]]?[.,:]?").match(caption.text, end)
            before = re.compile(r"[(\[]\s*\Z").search(caption.text[:start])
            yield Marker(before.start() if before else start, tail.end() if tail else end, labels)


def _expand(body: str, kind: str) -> tuple[str, ...]:
    """ "A-C, E" -> a, b, c, e. Empty for labels of mixed case, for a range that runs backwards or too far."""
    if body != body.lower() and not re.fullmatch(r"[^a-z]*", re.sub(r"\b(?:to|through|and)\b", "", body)):
        return ()
    order: tuple[str, ...] | str = _LETTERS if kind == "letter" else _ROMANS
    labels: list[str] = []
    for part in re.split(_JOIN, body.lower()):
        ends = [piece.strip() for piece in re.split(_DASH, part.strip()) if piece.strip()]
        if not ends or any(piece not in order for piece in ends):
            return ()
        first, last = order.index(ends[0]), order.index(ends[-1])
        if last < first or last - first >= _MAX_LABELS:
            return ()
        labels += order[first : last + 1]
    return tuple(dict.fromkeys(labels))


def _runs(markers: list[Marker], kind: str) -> list[Marker]:
    """Keep the markers if their labels begin at the first one and follow on; a label beyond a gap is no label."""
    order: tuple[str, ...] | str = _LETTERS if kind == "letter" else _ROMANS
    seen = {label for marker in markers for label in marker.labels}
    count = next((n for n, label in enumerate(order) if label not in seen), len(order))
    if count < 2:
        return []
    known = set(order[:count])
    kept = [marker for marker in markers if set(marker.labels) <= known]
    if not kept or kept[0].labels[0] != order[0]:
        return []
    return kept if {label for marker in kept for label in marker.labels} == known else []


def _places(text: str) -> list[Marker]:
    """ "(left)", "Left panel:", "Right: ...": two places or more that make a row, a column or a grid."""
    words = "|".join(sorted(map(re.escape, place_of_word()), key=len, reverse=True))
    nouns = "|".join(map(re.escape, place_nouns()))
    two = rf"(?P<body>(?:{words})(?:[\s-]+(?:{words}))?)"
    patterns = (
        rf"[(\[]\s*{two}(?:\s+(?:{nouns}))?\s*[)\]]",
        rf"(?:(?<=^)|(?<=[.;:,]\s)){two}(?:\s+(?:{nouns}))?\s*:",
        rf"(?:(?<=^)|(?<=[.;:]\s))(?:(?:on|in)\s+)?(?:the\s+)?{two}\s+(?:{nouns})\b\s*[:,]?",
        rf"(?:(?<=^)|(?<=[.;:]\s))(?P<body>(?:{words})[\s-]+(?:{words}))(?:\s+(?:{nouns}))?\s*,",
    )
    for pattern in patterns:
        found = [Marker(m.start(), m.end(), (_place(m["body"]),)) for m in re.finditer(pattern, text, re.IGNORECASE)]
        distinct = {marker.labels[0] for marker in found}
        if len(distinct) >= 2 and len(distinct) == len(found):
            return found
    return []


def _place(body: str) -> str:
    places = [place_of_word()[word] for word in re.split(r"\s+|-(?!hand)", body.lower()) if word in place_of_word()]
    return " ".join(sorted(places, key=("top", "middle", "bottom", "left", "right").index))
