"""Which findings of a sentence an attribute's words speak of.

A sentence is cut at its separators into parts. Words speak of the finding behind them in their part ("small left
effusion"), or of the one before where nothing follows, or where a verb or preposition stands between ("opacity in the
left base"). A part without a finding belongs to what follows ("small, left effusion") or to what precedes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from kvlp.knowledge.linking.attribute_words import Cue
from kvlp.typing import Assertion

if TYPE_CHECKING:
    from kvlp.knowledge.linking.assertion import Word
    from kvlp.knowledge.linking.mention import Mention

__all__ = ["PLACING", "CueHit", "Item", "Part", "Spread", "cut", "is_bare"]

CueHit: TypeAlias = tuple[int, int, Cue]

_MARKS = re.compile(r"[,;:()]|\s[-\u2013\u2014]{1,2}\s")
_MARK_NAMES = {",": "comma", "(": "comma", ")": "comma", ":": "colon"}
_BARE = re.compile(r"\s*(?:,?\s*(?:and/or|and|or)\s+|/\s*)", re.IGNORECASE)
_PREPOSITION = re.compile(
    r"(?<![^\W_])(?:in|at|on|of|over|within|involving|along|throughout|from|to|near|into|overlying|about)"
    r"(?:\s+(?:the|both|either|his|her))?(?:\s+(?:mid|far|lateral|medial|posterior|anterior))?\s+\Z",
    re.IGNORECASE,
)
_BEYOND = re.compile(
    r"(?<![^\W_])(?:above|below|beneath|beyond|past|from|to)(?:\s+the)?(?:\s+level\s+of(?:\s+the)?)?\s+\Z",
    re.IGNORECASE,
)
_COPULA = re.compile(
    r"(?<!there )(?<![^\W_])(?:is|are|was|were|appears?|looks?)(?![^\W_])(?!\s+(?:an?|the|some|again|also)\s)",
    re.IGNORECASE,
)
#: what passes on to the next finding over a bare "and"
_PASSES_ON = frozenset(("side", "place", "change"))
#: within the name of a finding these are no comparison: "increased heart size", "decreased lung volumes"
_OF_DEGREE = frozenset(("new", "worse", "improved"))
PLACING = frozenset(("side", "place"))
_VERB = re.compile(r"(?<![^\W_])(?:is|are|was|were|has|have|had|appears?|remains?|looks?)(?![^\W_])", re.IGNORECASE)
_FINITE = re.compile(r"(?:has|have|remains?|persists?)(?![^\W_])", re.IGNORECASE)
_ENDS_LIST = re.compile(
    r";|(?<![^\W_])(?:is|are|was|were|has|have|appears?|remains?|but|with|without|no|not|while|although)(?![^\W_])",
    re.IGNORECASE,
)


@dataclass(slots=True)
class Item:
    """A finding of a sentence, with what is said of it: cues said of itself, and those passed on to it.

    Each cue comes with the number of its part of the sentence.
    """

    mention: Mention
    sided: bool
    said: list[tuple[int, CueHit]] = field(default_factory=list)
    passed: list[CueHit] = field(default_factory=list)
    status: CueHit | None = None

    @property
    def start(self) -> int:
        return self.mention.start

    @property
    def end(self) -> int:
        return self.mention.end

    def holds(self, hit: CueHit) -> bool:
        """Whether a cue stands among the finding's own words."""
        return self.mention.start < hit[1] and hit[0] < self.mention.end

    def take_own(self, number: int, hit: CueHit) -> None:
        """Take a cue from the finding's own words, where "increased" and "new" compare with nothing."""
        if hit[2].value not in _OF_DEGREE:
            self.said.append((number, hit))


@dataclass(slots=True)
class Part:
    """A stretch of a sentence between two separators."""

    start: int
    separator: str
    end: int = 0
    items: list[int] = field(default_factory=list)
    cues: list[CueHit] = field(default_factory=list)
    verb: bool = False
    affirms: bool = False


class Spread:
    """Finds the findings that a cue speaks of."""

    def __init__(self, text: str, parts: Sequence[Part], items: Sequence[Item], number: int, hit: CueHit) -> None:
        self.text, self.parts, self.items, self.number, self.hit = text, parts, items, number, hit
        self.start, self.end, self.cue = hit

    def give(self) -> None:
        """Add the cue to the findings that it speaks of."""
        inside = [i for i in self.items if i.holds(self.hit)]
        if inside:
            for item in inside:
                item.take_own(self.number, self.hit)
            before = [i for i in self.parts[self.number].items if self.items[i].end <= inside[0].start]
            if before and self.cue.sets == "change" and self._is_phrase():  # "chest tube | in | unchanged position"
                self._back(before[-1])
            return
        if self.cue.sets == "place" and _BEYOND.search(self.text, max(0, self._first() - 30), self._first()):
            return
        part = self.parts[self.number]
        before = [i for i in part.items if self.items[i].end <= self.start]
        after = [i for i in part.items if self.items[i].start >= self.end]
        if after and not (before and self._belongs_behind(self.items[before[-1]].end)):
            if not _COPULA.search(self.text, self.end, self.items[after[0]].start):
                self._ahead(after[0])
        elif before:
            self._back(before[-1])
        elif not part.items:
            self._without_own()

    def _belongs_behind(self, end: int) -> bool:
        """Whether a verb or a preposition joins the cue to the finding before it, which ends at `end`."""
        between = self.text[end : self._first()]
        return _PREPOSITION.search(f" {between}") is not None or _COPULA.search(between) is not None

    def _first(self) -> int:
        """Where the run of cues begins in which this one stands: "in the | bilateral lower zones"."""
        first = self.start
        for start, end, _ in reversed(self.parts[self.number].cues):
            if end < first and not self.text[end:first].strip():
                first = start
        return first

    def _without_own(self) -> None:
        """A part without a finding: it belongs to what follows ("small, left effusion"), or to what precedes."""
        n, parts = self.number, self.parts
        before = next((k for k in range(n - 1, -1, -1) if parts[k].items), None)
        after = next((k for k in range(n + 1, len(parts)) if parts[k].items), None)
        joined = after is not None and all(
            p.separator in ("comma", "and", "or", "colon") for p in parts[n + 1 : after + 1]
        )
        subject = self.cue.sets in PLACING and _COPULA.search(self.text, self.end, parts[n].end) is not None
        if subject or (before is None and self._is_finite()):
            return
        if after is not None and (self._but_more(after) or (joined and (before is None or self._parallel(after)))):
            self._ahead(parts[after].items[0])
            topic = parts[n + 1].separator in ("colon", "comma") and self.cue.sets in PLACING
            if before is None and topic and (parts[n + 1].separator == "colon" or self._is_phrase()):
                self._topic(after)
        elif before is not None and not self._speaks_of_else(parts[before].items[-1]):
            self._back(parts[before].items[-1])

    def _speaks_of_else(self, item: int) -> bool:
        """Whether the part has a subject of its own (", stable mediastinal contours"), or the item takes no place."""
        if (
            self.cue.sets in PLACING
            and not self.items[item].sided
            and self.items[item].mention.assertion is Assertion.ABSENT
        ):
            return True
        first, *others = self.parts[self.number].cues
        of = others[0] if first[2].sets == "change" and others else first
        own = of is not first and of[2].sets == "place" and not self.text[first[1] : of[0]].strip()
        return own and self.hit in (first, of)

    def _but_more(self, after: int) -> bool:
        """Whether a bare word for degree or change goes on behind a "but": "small but increasing effusion"."""
        part, following = self.parts[self.number], self.parts[after]
        if after != self.number + 1 or self.text[part.end : following.start].strip().lower() not in ("but", "yet"):
            return False
        first = self.items[following.items[0]].start
        bare = not self.text[self.end : part.end].strip() and self.cue.sets in ("severity", "change")
        return bare and any(start - following.start <= 1 and end <= first for start, end, _ in following.cues)

    def _is_phrase(self) -> bool:
        first = self._first()
        return _PREPOSITION.search(self.text, max(0, first - 30), first) is not None

    def _parallel(self, after: int) -> bool:
        """Whether the part behind says the like of its finding: "small left and moderate right effusions"."""
        first = self.items[self.parts[after].items[0]].start
        return (
            after == self.number + 1
            and self.parts[after].separator in ("and", "or")
            and any(cue.sets == self.cue.sets and end <= first for _, end, cue in self.parts[after].cues)
        )

    def _topic(self, after: int) -> None:
        """ "On the left, ..." and "Left lung: ..." place all that follows and has no place of its own."""
        for part in self.parts[after:]:
            if part.separator == "end":
                break
            for i in part.items:
                if self.items[i].sided:
                    self.items[i].passed.append(self.hit)

    def _ahead(self, first: int) -> None:
        self._say(first)
        for i in range(first, len(self.items) - 1):
            if self.cue.sets not in _PASSES_ON or not self._bare(i, i + 1):
                break
            self._pass_to(i + 1)

    def _back(self, last: int) -> None:
        self._say(last)
        wide = self._is_predicate(self.items[last].end)
        for i in range(last, 0, -1):
            passes = self.cue.sets in _PASSES_ON and self._bare(i - 1, i)
            if not passes and not (wide and self._listed(i - 1, i)):
                break
            self._pass_to(i - 1)

    def _say(self, i: int) -> None:
        self.items[i].said.append((self.number, self.hit))

    def _pass_to(self, i: int) -> None:
        if self.cue.sets not in PLACING or self.items[i].sided:
            self.items[i].passed.append(self.hit)

    def _bare(self, one: int, other: int) -> bool:
        return (
            _BARE.fullmatch(self.text, self.items[one].end, max(self.items[one].end, self.items[other].start))
            is not None
        )

    def _is_predicate(self, end: int) -> bool:
        if self._is_finite():
            return True
        return self.cue.sets in ("change", "severity") and _VERB.search(self.text, end, self.start) is not None

    def _is_finite(self) -> bool:
        """Whether the cue is a verb: "has improved", "persists"."""
        return self.cue.sets == "change" and _FINITE.match(self.text, self.start) is not None

    def _listed(self, one: int, other: int) -> bool:
        """Whether two findings stand in one list, without a verb between them."""
        between = self.text[self.items[one].end : self.items[other].start]
        return re.search(r",|/|\b(?:and|or)\b", between) is not None and not _ENDS_LIST.search(between)


def is_bare(between: str) -> bool:
    """Whether nothing but an "and", "or" or slash stands between two findings."""
    return _BARE.fullmatch(between) is not None


def cut(text: str, items: Sequence[Item], cues: Sequence[CueHit], words: Sequence[tuple[int, int, Word]]) -> list[Part]:
    """Cut a sentence at its separators, and hand each part its findings, cues and verbs."""
    first = min(items[0].start, cues[0][0])
    last = max(*(i.end for i in items), cues[-1][1])
    if words:
        first, last = min(first, words[0][0]), max(last, words[-1][1])
    kept = [(i.start, i.end) for i in items] + [(s, e) for s, e, _ in cues]
    cuts = [(m.start(), m.end(), _MARK_NAMES.get(m[0], "end")) for m in _MARKS.finditer(text, first, last)]
    cuts += [(s, e, "end" if w.ends else w.separator) for s, e, w in words if w.ends or w.separator]
    cuts += [(s, s, "end") for s, _, w in words if w.forward is not None and w.forward.says == "absent"]
    parts = [Part(first, "")]
    for start, end, separator in sorted(cuts):
        if any(s < end and start < e for s, e in kept):
            continue
        part = parts[-1]
        if text[part.start : start].strip():
            part.end = start
            parts.append(Part(end, separator))
        else:
            part.start = max(part.start, end)
            part.separator = "comma" if {part.separator, separator} <= {"comma", "and", "or"} else "end"
    parts[-1].end = last
    _fill(parts, items, cues, words, text)
    return parts


def _fill(
    parts: Sequence[Part],
    items: Sequence[Item],
    cues: Sequence[CueHit],
    words: Sequence[tuple[int, int, Word]],
    text: str,
) -> None:
    def part_at(position: int) -> Part:
        if len(parts) == 1:
            return parts[0]
        return next((p for p in reversed(parts) if p.start <= position), parts[0])

    for number, item in enumerate(items):
        part_at(item.start).items.append(number)
    for hit in cues:
        part_at(hit[0]).cues.append(hit)
    for start, _, word in words:
        part = part_at(start)
        part.verb = part.verb or word.verb or word.exists
        part.affirms = part.affirms or (word.affirms and not text[part.start : start].strip())
