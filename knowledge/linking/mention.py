"""What the linker finds: a concept in a text, with its place and what is said of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

from kvlp.typing import Assertion

__all__ = ["Cues", "Mention", "Row", "add_moved", "moved", "row_of"]

#: (attribute, start, end) of words that attributes come from
Cues: TypeAlias = tuple[tuple[str, int, int], ...]
#: a mention without its section, with places in its sentence: what the linker remembers
Row: TypeAlias = tuple[
    str, str, int, int, Assertion, str | None, int | None, int | None,
    float, str, str, tuple[str, ...], str, str, str, Cues,
]  # fmt: skip


class Mention(NamedTuple):
    """A concept in a text. (A named tuple, since making hundreds of thousands is what reading reports comes to.)

    Attributes:
        concept: id in the graph.
        surface: the words, as they stand in the raw text.
        start: first character of the surface in the raw text.
        end: one past its last character.
        assertion: present, absent or uncertain.
        trigger: the words that caused an absence or a doubt.
        trigger_start: their first character, or None.
        trigger_end: one past their last character, or None.
        section: indication, comparison, technique, findings, impression or other.
        score: in (0, 1]: 1 a surface of the graph, less for an inflected one, shared out where it is ambiguous.
        doubt: how strong the doubt of an uncertain mention is, from nearly absent to nearly present: unlikely,
            possible, alternative ("atelectasis or scarring"), borderline, probable; "" for others.
        side: left, right, bilateral, or "" where none is said.
        location: ids of the places that are said, the nearest ones ("left lower lobe", not also "lung").
        severity: trace, small, mild, moderate, large, severe, or "".
        change: against an earlier study: resolved, worse, improved, new, unchanged, or "".
        status: current; historical, hypothetical ("evaluate for ...") or family, which this image does not show.
        cues: (attribute, start, end) of the words that the attributes come from, in the raw text.
    """

    concept: str
    surface: str
    start: int
    end: int
    assertion: Assertion
    trigger: str | None = None
    trigger_start: int | None = None
    trigger_end: int | None = None
    section: str = "other"
    score: float = 1.0
    doubt: str = ""
    side: str = ""
    location: tuple[str, ...] = ()
    severity: str = ""
    change: str = ""
    status: str = "current"
    cues: Cues = ()

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return {**self._asdict(), "assertion": self.assertion.value}


def moved(mention: Mention, by: int) -> Mention:
    """The mention, so many characters further on."""
    concept, surface, start, end, assertion, trigger, at, to = mention[:8]
    if at is not None and to is not None:
        at, to = at + by, to + by
    cues = mention[-1]
    if cues:
        cues = tuple([(name, first + by, last + by) for name, first, last in cues])
    place = (concept, surface, start + by, end + by, assertion, trigger, at, to)
    return tuple.__new__(Mention, (*place, *mention[8:-1], cues))


def row_of(mention: Mention) -> Row:
    """The mention without its section, with places in its sentence."""
    return (*mention[:8], *mention[9:])


def add_moved(rows: Iterable[Row], by: int, section: str, mentions: list[Mention]) -> None:
    """Add the mentions of a sentence that starts there, in that section. (Spelt out: it is what reading costs.)"""
    new, add = tuple.__new__, mentions.append
    for (
        concept, surface, start, end, assertion, trigger, first, last, score, doubt, side, location, severity, change,
        status, cues,
    ) in rows:  # fmt: skip
        if first is not None and last is not None:
            first += by
            last += by
        if cues:
            cues = tuple([(name, a + by, b + by) for name, a, b in cues])
        add(new(Mention, (
            concept, surface, start + by, end + by, assertion, trigger, first, last, section, score, doubt, side,
            location, severity, change, status, cues,
        )))  # fmt: skip
