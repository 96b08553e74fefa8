"""What a report says of a finding beside whether it is there: side, place, severity, change, and status.

The words stand in `attributes.yaml`. Each is given to the findings of its own part of the sentence: the one behind it
("small left effusion"), or the one before it where nothing follows or a verb or preposition stands between ("the
effusion is small", "opacity in the left base"). Side, place and change pass on over a bare "and"; a predicate passes on
over the list before it ("cardiomegaly and small effusions are unchanged"). Severity stays where it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

from kvlp.knowledge.linking.attribute_words import Cue, attribute_words, read_attribute_rules, unsided
from kvlp.typing import Assertion

if TYPE_CHECKING:
    from kvlp.knowledge.graph import KnowledgeGraph
    from kvlp.knowledge.linking.assertion import Word
    from kvlp.knowledge.linking.mention import Mention

__all__ = ["Anatomy", "AttributeReader", "anatomy_of"]

Span: TypeAlias = tuple[int, int]
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
    r"(?<![^\W_])(?:above|below|beneath|beyond|past|from|to)(?:\s+the)?(?:\s+level\s+of(?:\s+the)?)?\s+\Z", re.IGNORECASE
)
#: at most two words, no article: what stands between "prior" and its noun
_JOINED = re.compile(r"\s+(?:(?!(?:the|an?|this|is|was)\s)[^\W_]+\s+){0,2}", re.IGNORECASE)
_COPULA = re.compile(
    r"(?<!there )(?<![^\W_])(?:is|are|was|were|appears?|looks?)(?![^\W_])(?!\s+(?:an?|the|some|again|also)\s)",
    re.IGNORECASE,
)
#: what passes on to the next finding over a bare "and"
_PASSES_ON = frozenset(("side", "place", "change"))
#: within the name of a finding these are no comparison: "increased heart size", "decreased lung volumes"
_OF_DEGREE = frozenset(("new", "worse", "improved"))
_PLACING = frozenset(("side", "place"))


@dataclass(slots=True)
class _Item:
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


@dataclass(slots=True)
class _Part:
    """A stretch of a sentence between two separators."""

    start: int
    separator: str
    end: int = 0
    items: list[int] = field(default_factory=list)
    cues: list[CueHit] = field(default_factory=list)
    verb: bool = False
    affirms: bool = False


@dataclass(frozen=True, slots=True)
class Anatomy:
    """What is known of a graph's places: plain data, which is saved with a linker.

    Attributes:
        words: normalised phrase -> what it says, of the rules and of the graph's places.
        unsided: concepts that take no side or place from their neighbours.
        types: semantic types of the concepts that only some statuses count for.
        wider: place -> other places that hold it.
    """

    words: dict[str, Cue]
    unsided: frozenset[str]
    types: dict[str, tuple[str, ...]]
    wider: dict[str, frozenset[str]]


def anatomy_of(graph: KnowledgeGraph) -> Anatomy:
    """Gather what a graph says of places."""
    rules = read_attribute_rules()
    words = attribute_words(graph, rules)
    limited = {t for rule in rules.rules for t in rule.types}
    types = {c.id: c.semantic_types for c in graph.concepts if limited.intersection(c.semantic_types)}
    places = {p for cue in words.values() for p in cue.places}
    wider = {p: above for p in places if (above := _wider(graph, p, places))}
    return Anatomy(words, unsided(graph, rules.unsided), types, wider)


class AttributeReader:
    """Gives attributes to the mentions of one sentence after the other.

    Args:
        anatomy: of the graph of the mentions.

    Attributes:
        words: normalised phrase -> what it says; the linker looks for them in its one pass over a text.
    """

    def __init__(self, anatomy: Anatomy) -> None:
        rules = read_attribute_rules()
        self.words = anatomy.words
        # the value with the greatest number counts
        self._order = {
            "severity": {name: n for n, name in enumerate(rules.severities)},
            "change": {name: -n for n, name in enumerate(rules.changes, -len(rules.changes))},
        }
        self._renames = rules.renames
        self._unsided, self._types, self._wider = anatomy.unsided, anatomy.types, anatomy.wider

    def __call__(
        self,
        text: str,
        mentions: Sequence[Mention],
        asserted: Sequence[bool],
        cues: Sequence[CueHit],
        words: Sequence[tuple[int, int, Word]],
    ) -> list[Mention]:
        """The mentions of a sentence with their attributes; one of two sides that differ becomes two.

        Args:
            text: the raw text.
            mentions: of one sentence, in order.
            asserted: which of them may have attributes (anatomy and descriptors have none).
            cues: what the attribute words found in the sentence, in order.
            words: what the rules of assertion found in it, in order.
        """
        cues = [h for h in cues if h[2].sets != "nothing" and (not h[2].capitals or text[h[0] : h[1]].isupper())]
        if not cues or True not in asserted:
            return list(mentions)
        items = [_Item(m, m.concept not in self._unsided) for m, a in zip(mentions, asserted, strict=True) if a]
        parts = _cut(text, items, cues, words)
        for number, part in enumerate(parts):
            for hit in part.cues:
                if hit[2].sets == "status":
                    self._status(text, parts, number, hit, items)
                else:
                    _Spread(text, parts, items, number, hit).give()
        self._rename(text, items)
        done = iter([self._finish(item) for item in items])
        return [n for m, a in zip(mentions, asserted, strict=True) for n in (next(done) if a else [m])]

    def _status(self, text: str, parts: Sequence[_Part], number: int, hit: CueHit, items: Sequence[_Item]) -> None:
        """Give a status to what a cue reaches; of several the one next to the finding counts."""
        start, end, cue = hit
        if cue.looks == "backward":
            before = [i for i in parts[number].items if items[i].end <= start]
            reached = before or [i for part in parts[:number] for i in part.items][-1:]
        else:
            reached = [i for i in parts[number].items if items[i].start >= end]
            for part in parts[number + 1 :]:
                if part.separator in ("end", "colon") or part.verb or part.affirms or (part.cues and _is_status(part)):
                    break
                reached += part.items
        for i in reached:
            if not cue.types or (_JOINED.fullmatch(text, end, items[i].start) and self._is_of(items[i], cue.types)):
                items[i].status = hit

    def _is_of(self, item: _Item, types: Sequence[str]) -> bool:
        return not set(types).isdisjoint(self._types.get(item.mention.concept, ()))

    def _rename(self, text: str, items: Sequence[_Item]) -> None:
        """What is another name of the shadow before it lies where that lies, and so do its alternatives."""
        placing: list[CueHit] = []
        for one, other in pairwise(items):
            between = text[one.end : max(one.end, other.start)]
            if not placing or not _BARE.fullmatch(between):
                said = [hit for _, hit in one.said] or one.passed
                renamed = self._renames.search(between) and not _ENDS_NAME.search(between)
                placing = [hit for hit in said if hit[2].sets in _PLACING] if renamed else []
            if other.sided and not any(hit[2].sets in _PLACING for _, hit in other.said):
                other.passed += placing

    def _finish(self, item: _Item) -> list[Mention]:
        hits = [hit for _, hit in item.said]
        if item.passed:
            sets = {cue.sets for _, _, cue in hits}
            hits += [hit for hit in item.passed if hit[2].sets not in sets]
        if item.status is not None:
            hits.append(item.status)
        halves = _halves(item.said) if len(item.said) > 3 else []
        if not halves:
            return [self._attributed(item.mention, hits)]
        apart = [hit for half in halves for hit in half]
        shared = [h for h in hits if h not in apart and h[2].sets != "side"]
        return [self._attributed(item.mention, shared + half) for half in halves]

    def _attributed(self, mention: Mention, hits: list[CueHit]) -> Mention:
        if mention.assertion is Assertion.ABSENT:
            hits = [h for h in hits if _counts_of_absent(h[2])]
        if not hits:
            return mention
        if len(hits) > 1:
            hits = sorted(set(hits), key=_place)
        values: dict[str, str] = {}
        places: dict[str, None] = {}
        for _, _, cue in hits:
            order = self._order.get(cue.sets)
            if cue.places:
                places.update(dict.fromkeys(cue.places))
            elif order is None or order[cue.value] > order.get(values.get(cue.sets, ""), -1):
                values[cue.sets] = cue.value
        if len(places) > 1:
            wider = {w for p in places for w in self._wider.get(p, ())}
            places = {p: None for p in places if p not in wider}
        return mention._replace(
            side=_side(hits),
            location=tuple(places),
            severity=values.get("severity", ""),
            change=values.get("change", ""),
            status=values.get("status", "current"),
            cues=tuple([("location" if c.places else c.sets, start, end) for start, end, c in hits]),
        )


class _Spread:
    """Finds the findings that a cue speaks of."""

    def __init__(self, text: str, parts: Sequence[_Part], items: Sequence[_Item], number: int, hit: CueHit) -> None:
        self.text, self.parts, self.items, self.number, self.hit = text, parts, items, number, hit
        self.start, self.end, self.cue = hit

    def give(self) -> None:
        """Add the cue to the findings that it speaks of."""
        inside = [i for i in self.items if i.start < self.end and self.start < i.end]
        if inside:
            for item in inside if self.cue.value not in _OF_DEGREE else ():
                item.said.append((self.number, self.hit))
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
        joined = after is not None and all(p.separator in ("comma", "and", "or", "colon") for p in parts[n + 1 : after + 1])
        subject = self.cue.sets in _PLACING and _COPULA.search(self.text, self.end, parts[n].end) is not None
        if subject:
            return
        if after is not None and (self._but_more(after) or (joined and (before is None or self._parallel(after)))):
            self._ahead(parts[after].items[0])
            topic = parts[n + 1].separator in ("colon", "comma") and self.cue.sets in _PLACING
            if before is None and topic and (parts[n + 1].separator == "colon" or self._is_phrase()):
                self._topic(after)
        elif before is not None and not self._speaks_of_else(parts[before].items[-1]):
            self._back(parts[before].items[-1])

    def _speaks_of_else(self, item: int) -> bool:
        """Whether the part has a subject of its own ("..., stable mediastinal contours"), or the item takes no place."""
        if self.cue.sets in _PLACING and not self.items[item].sided and self.items[item].mention.assertion is Assertion.ABSENT:
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
        if self.cue.sets not in _PLACING or self.items[i].sided:
            self.items[i].passed.append(self.hit)

    def _bare(self, one: int, other: int) -> bool:
        return _BARE.fullmatch(self.text, self.items[one].end, max(self.items[one].end, self.items[other].start)) is not None

    def _is_predicate(self, end: int) -> bool:
        if self.cue.sets == "change" and re.match(r"has|have|remain|persist", self.text[self.start :], re.IGNORECASE):
            return True
        return self.cue.sets in ("change", "severity") and _VERB.search(self.text, end, self.start) is not None

    def _listed(self, one: int, other: int) -> bool:
        """Whether two findings stand in one list, without a verb between them."""
        between = self.text[self.items[one].end : self.items[other].start]
        return re.search(r",|/|\b(?:and|or)\b", between) is not None and not _ENDS_LIST.search(between)


_VERB = re.compile(r"(?<![^\W_])(?:is|are|was|were|has|have|had|appears?|remains?|looks?)(?![^\W_])", re.IGNORECASE)
_ENDS_NAME = re.compile(r";|(?<![^\W_])(?:with|and|but|without|no)(?![^\W_])", re.IGNORECASE)
_ENDS_LIST = re.compile(
    r";|(?<![^\W_])(?:is|are|was|were|has|have|appears?|remains?|but|with|without|no|not|while|although)(?![^\W_])",
    re.IGNORECASE,
)


def _place(hit: CueHit) -> Span:
    return hit[0], hit[1]


def _is_status(part: _Part) -> bool:
    return any(cue.sets == "status" for _, _, cue in part.cues)


def _counts_of_absent(cue: Cue) -> bool:
    """Of what is not there, only where it is not, that it is gone, and of whom or when it is said."""
    return cue.sets in ("side", "place", "status") or cue.value == "resolved"


def _side(hits: Sequence[CueHit]) -> str:
    sides = {c.side for _, _, c in hits if c.side and not c.weak} or {c.side for _, _, c in hits if c.side}
    return next(iter(sides)) if len(sides) == 1 else "bilateral" if sides else ""


def _halves(said: Sequence[tuple[int, CueHit]]) -> list[list[CueHit]]:
    """Two parts that each give another side, with a severity or change of its own: one finding on each side."""
    parts: dict[int, list[CueHit]] = {}
    for number, hit in said:
        parts.setdefault(number, []).append(hit)
    halves = [h for h in parts.values() if {c.sets for _, _, c in h} & {"severity", "change"} and _side_of(h)]
    different = len(halves) == 2 and _side_of(halves[0]) != _side_of(halves[1])
    return halves if different else []


def _side_of(hits: Sequence[CueHit]) -> str:
    side = _side(hits)
    return "" if side == "bilateral" else side


def _wider(graph: KnowledgeGraph, place: str, places: set[str]) -> frozenset[str]:
    """Other places that hold this one: naming them says nothing more."""
    found: set[str] = set()
    todo = [place]
    while todo:
        here = todo.pop()
        for kind in ("part_of", "side_of", "is_a"):
            fresh = {r.tail for r in graph.neighbours(here, kind)} - found
            found |= fresh
            todo += fresh
    return frozenset((found & places) - {place})


def _cut(
    text: str, items: Sequence[_Item], cues: Sequence[CueHit], words: Sequence[tuple[int, int, Word]]
) -> list[_Part]:
    """Cut a sentence at its separators, and hand each part its findings, cues and verbs."""
    first = min(items[0].start, cues[0][0])
    last = max(*(i.end for i in items), cues[-1][1])
    if words:
        first, last = min(first, words[0][0]), max(last, words[-1][1])
    kept = [(i.start, i.end) for i in items] + [(s, e) for s, e, _ in cues]
    cuts = [(m.start(), m.end(), _MARK_NAMES.get(m[0], "end")) for m in _MARKS.finditer(text, first, last)]
    cuts += [(s, e, "end" if w.ends else w.separator) for s, e, w in words if w.ends or w.separator]
    cuts += [(s, s, "end") for s, _, w in words if w.forward is not None and w.forward.says == "absent"]
    parts = [_Part(first, "")]
    for start, end, separator in sorted(cuts):
        if any(s < end and start < e for s, e in kept):
            continue
        part = parts[-1]
        if text[part.start : start].strip():
            part.end = start
            parts.append(_Part(end, separator))
        else:
            part.start = max(part.start, end)
            part.separator = "comma" if {part.separator, separator} <= {"comma", "and", "or"} else "end"
    parts[-1].end = last
    _fill(parts, items, cues, words, text)
    return parts


def _fill(
    parts: Sequence[_Part],
    items: Sequence[_Item],
    cues: Sequence[CueHit],
    words: Sequence[tuple[int, int, Word]],
    text: str,
) -> None:
    def part_at(position: int) -> _Part:
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
