"""What a report says of a finding beside whether it is there: side, place, severity, change, and status.

The words stand in `attributes.yaml`. Each is given to the findings of its own part of the sentence: the one behind it
("small left effusion"), or the one before it where nothing follows or a verb or preposition stands between ("the
effusion is small", "opacity in the left base"). Side, place and change pass on over a bare "and"; a predicate passes on
over the list before it ("cardiomegaly and small effusions are unchanged"). Severity stays where it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias

from kvlp.knowledge.linking.attribute_scope import PLACING, CueHit, Item, Part, Spread, cut, is_bare
from kvlp.knowledge.linking.attribute_words import Cue, attribute_words, read_attribute_rules, unsided
from kvlp.typing import Assertion

if TYPE_CHECKING:
    from kvlp.knowledge.graph import KnowledgeGraph
    from kvlp.knowledge.linking.assertion import Word
    from kvlp.knowledge.linking.mention import Mention

__all__ = ["Anatomy", "AttributeReader", "anatomy_of"]

Span: TypeAlias = tuple[int, int]

_ENDS_NAME = re.compile(r";|(?<![^\W_])(?:with|and|but|without|no)(?![^\W_])", re.IGNORECASE)
#: at most two words, no article: what stands between "prior" and its noun
_JOINED = re.compile(r"\s+(?:(?!(?:the|an?|this|is|was)\s)[^\W_]+\s+){0,2}", re.IGNORECASE)


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
        items = [Item(m, m.concept not in self._unsided) for m, a in zip(mentions, asserted, strict=True) if a]
        if not _all_inside(items, cues):
            parts = cut(text, items, cues, words)
            for number, part in enumerate(parts):
                for hit in part.cues:
                    if hit[2].sets == "status":
                        self._status(text, parts, number, hit, items)
                    else:
                        Spread(text, parts, items, number, hit).give()
        if len(items) > 1:
            self._rename(text, items)
        done = iter([self._finish(item) for item in items])
        return [n for m, a in zip(mentions, asserted, strict=True) for n in (next(done) if a else [m])]

    def _status(self, text: str, parts: Sequence[Part], number: int, hit: CueHit, items: Sequence[Item]) -> None:
        """Give a status to what a cue reaches; of several the one next to the finding counts."""
        start, end, cue = hit
        if cue.looks == "backward":
            before = [i for i in parts[number].items if items[i].end <= start]
            reached = before or [i for part in parts[:number] for i in part.items][-1:]
        else:
            reached = [i for i in parts[number].items if items[i].start >= end]
            condition = not reached and cue.value == "hypothetical"  # "if symptoms persist, ..."
            for part in parts[number + 1 :]:
                if condition and part.separator == "comma" and part is parts[number + 1]:
                    reached += part.items
                    continue
                if part.separator in ("end", "colon") or part.verb or part.affirms or (part.cues and _is_status(part)):
                    break
                reached += part.items
        for i in reached:
            if not cue.types or (_JOINED.fullmatch(text, end, items[i].start) and self._is_of(items[i], cue.types)):
                items[i].status = hit

    def _is_of(self, item: Item, types: Sequence[str]) -> bool:
        return not set(types).isdisjoint(self._types.get(item.mention.concept, ()))

    def _rename(self, text: str, items: Sequence[Item]) -> None:
        """What is another name of the shadow before it lies where that lies, and so do its alternatives."""
        placing: list[CueHit] = []
        for one, other in pairwise(items):
            between = text[one.end : max(one.end, other.start)]
            if not placing or not is_bare(between):
                said = [hit for _, hit in one.said] or one.passed
                renamed = self._renames.search(between) and not _ENDS_NAME.search(between)
                placing = [hit for hit in said if hit[2].sets in PLACING] if renamed else []
            if other.sided and not any(hit[2].sets in PLACING for _, hit in other.said):
                other.passed += placing

    def _finish(self, item: Item) -> list[Mention]:
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


def _all_inside(items: Sequence[Item], cues: Sequence[CueHit]) -> bool:
    """Give each cue to the findings in whose words it stands, if all of them stand in such words: the common case."""
    given = []
    for hit in cues:
        inside = [item for item in items if item.holds(hit)]
        if not inside or hit[2].sets == "status" or (hit[2].sets == "change" and len(items) > 1):
            return False
        given += [(item, hit) for item in inside]
    for item, hit in given:
        item.take_own(0, hit)
    return True


def _place(hit: CueHit) -> Span:
    return hit[0], hit[1]


def _is_status(part: Part) -> bool:
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
