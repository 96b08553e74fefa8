"""What one sentence says: concepts, statements, assertions and attributes. All that is said of a concept is there."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from kvlp.knowledge.linking.assertion import PRESENT, Clauses, Ruling, Word, alternatives, read_rules
from kvlp.knowledge.linking.attributes import AttributeReader
from kvlp.knowledge.linking.dictionary import Dictionary
from kvlp.knowledge.linking.lexicon import ALSO_WORDS, Entry, Lexicon
from kvlp.knowledge.linking.mention import Mention, Row, row_of
from kvlp.knowledge.linking.statements import Statement, find_statements
from kvlp.typing import Assertion

if TYPE_CHECKING:
    from kvlp.knowledge.linking.candidates import CandidateLinker

__all__ = ["SentenceReader", "in_capitals"]

Span: TypeAlias = tuple[int, int]
Hit: TypeAlias = tuple[int, int, Entry]
_CONCEPT, _WORD, _SUBJECT, _PREDICATE, _CUE = range(5)
#: what may join two findings; without it no head is shared, and nothing is an alternative
_JOINS = re.compile(r"[\s/](?:(?<=/)|(?:and|or|nor)\s)", re.IGNORECASE)
_SHARES_HEAD = re.compile(r"(?<![^\W\d_])([^\W\d_]+)(?:\s+(?:and|or|nor|and/or)\s+|/)\Z", re.IGNORECASE)
_OPPOSITE = {Assertion.PRESENT: Assertion.ABSENT, Assertion.ABSENT: Assertion.PRESENT}
_EXACT = 1.0
#: a sentence of more characters that is all capitals tells no abbreviation from a word
_SHOUTED = 20
_IS_PRESENT, _IS_ABSENT, _IS_UNCERTAIN = Assertion.PRESENT, Assertion.ABSENT, Assertion.UNCERTAIN
_place = itemgetter(2, 3)  # of a mention: start, end
_anchored = itemgetter(2, 1, 0)  # of what is found: anchor, span, concept


class _Found(NamedTuple):
    """A concept in a sentence before it is ruled on."""

    concept: str
    span: Span
    anchor: Span
    score: float
    asserted: bool
    statement: Statement | None = None


class SentenceReader:
    """Reads one sentence after the other.

    Args:
        lexicon: of the graph whose concepts are read.

    Attributes:
        dictionary: finds the words of the lexicon and of the rules.
        groups: what it looks for: surfaces, words of the rules, subjects, predicates, words of attributes.
        candidates: also finds what looks like a surface, or None.
    """

    def __init__(self, lexicon: Lexicon) -> None:
        self._asserted, self._surfaces, said = lexicon.asserted, lexicon.surfaces, lexicon.said
        self._attributes = AttributeReader(lexicon.anatomy) if lexicon.anatomy else None
        cues = self._attributes.words if self._attributes else {}
        self.groups: list[dict[str, Any]] = [
            self._surfaces, read_rules().words, said.subjects, said.predicates, cues,
        ]  # fmt: skip
        self.dictionary: Dictionary[Any] = Dictionary(self.groups, lexicon.beginnings)
        self.candidates: CandidateLinker | None = None

    def __call__(self, sentence: str, *, capitals: bool) -> tuple[Row, ...]:
        """What it says.

        Args:
            sentence: the raw text.
            capitals: whether the text around it is all capitals.
        """
        hits: list[list[tuple[int, int, Any]]] = self.dictionary.find(sentence)
        if self.candidates is not None:
            hits[_CONCEPT] = self._with_candidates(sentence, hits, self.candidates)
        if not hits[_CONCEPT] and not hits[_SUBJECT]:
            return ()
        joined = _JOINS.search(sentence) is not None
        if joined or True in [e.capitals for _, _, e in hits[_CONCEPT]]:
            hits[_CONCEPT] = list(self._with_shared_heads(sentence, hits[_CONCEPT], capitals=capitals))
            if not hits[_CONCEPT] and not hits[_SUBJECT]:
                return ()
        found = self._found(sentence, hits, joined=joined)
        found.sort(key=_place)
        if self._attributes is not None and hits[_CUE]:
            asserted = [self._asserted[m.concept] for m in found]
            found = self._attributes(sentence, found, asserted, hits[_CUE], hits[_WORD])
        return tuple([row_of(m) for m in found])

    def _with_candidates(
        self, text: str, hits: list[list[tuple[int, int, Any]]], candidates: CandidateLinker
    ) -> list[Hit]:
        """Add what looks like a surface; words of anatomy, statements and attributes may be part of it."""
        covered = [(s, e) for s, e, entry in hits[_CONCEPT] if entry.asserted] + [(s, e) for s, e, _ in hits[_WORD]]
        described = [(s, e) for s, e, entry in hits[_CONCEPT] if not entry.asserted]
        described += [(s, e) for group in hits[_SUBJECT:] for s, e, _ in group]
        found = [
            (start, end, Entry(concept, score, self._asserted[concept], capitals=False))
            for start, end, concept, score in candidates.find(text, covered, described)
        ]
        return sorted([*hits[_CONCEPT], *found], key=lambda hit: hit[:2])

    def _with_shared_heads(self, text: str, hits: list[Hit], *, capitals: bool) -> Iterator[Hit]:
        """Leave out words that look like abbreviations; add what shares a head ("pleural or pericardial effusion")."""
        for hit in hits:
            start, end, entry = hit
            if entry.capitals and not in_capitals(text, hit, capitals=capitals):
                continue
            if text[max(0, start - 30) : start].rstrip().lower().endswith(("and", "or", "/")):
                head = text[start:end].split()
                match = _SHARES_HEAD.search(text, max(0, start - 30), start) if len(head) > 1 else None
                other = self._surfaces.get(f"{match[1]} {head[-1]}".lower()) if match else None
                if match and other is not None and other.concept != entry.concept:
                    yield match.start(1), end, other
            yield hit

    def _found(self, text: str, hits: list[list[tuple[int, int, Any]]], *, joined: bool) -> list[Mention]:
        concepts, words, subjects, predicates = hits[:_CUE]
        if not ((subjects and predicates) or True in [w.triggers for _, _, w in words] or "?" in text):
            return _names(text, concepts, joined=joined)
        predicates = _true_predicates(predicates, words, concepts)
        inside = [(s, t) for group in (concepts, subjects, predicates) for s, t, _ in group]
        clauses = Clauses(text, 0, len(text), words, inside, [(s, t) for s, t, _ in predicates] if subjects else ())
        found = _merge(concepts, find_statements(clauses, subjects, predicates), self._asserted)
        ruled = iter(clauses.rule([f.anchor for f in found if f.asserted]))
        return [_mention(text, f, next(ruled) if f.asserted else PRESENT) for f in found]


def in_capitals(text: str, hit: tuple[int, int, Entry], *, capitals: bool) -> bool:
    """Whether a surface that must be written in capitals is, in a text where that tells something.

    Args:
        text: the sentence or text that the hit lies in.
        hit: what the dictionary found.
        capitals: whether the whole text is all capitals.
    """
    surface = text[hit[0] : hit[1]]
    if not (surface[:-1] if surface[-1] == "s" and len(surface) > 2 else surface).isupper():
        return False
    return surface.lower() not in ALSO_WORDS or not (capitals or (len(text) > _SHOUTED and text.isupper()))


def _names(text: str, concepts: Sequence[Hit], *, joined: bool) -> list[Mention]:
    """Nothing but names: all is there, but for alternatives."""
    if not joined or len(concepts) < 2:
        return [_made(text, e.concept, start, end, PRESENT, e.score) for start, end, e in concepts]
    items = [(s, t) for s, t, e in concepts if e.asserted]
    ruled = iter(alternatives(text, items, [PRESENT] * len(items)))
    return [_made(text, e.concept, s, t, next(ruled) if e.asserted else PRESENT, e.score) for s, t, e in concepts]


def _true_predicates(
    predicates: list[tuple[int, int, Any]],
    words: Sequence[tuple[int, int, Word]],
    concepts: Sequence[tuple[int, int, Any]],
) -> list[tuple[int, int, Any]]:
    """Leave out what is part of a longer phrase ("clear of") or stands before a finding ("increased opacities")."""
    if not predicates:
        return []
    longer = [(s, e) for s, e, w in words if w.triggers or w.hides]
    heads = {s for s, _, e in concepts if e.asserted}
    return [p for p in predicates if p[1] + 1 not in heads and not _is_part(p[0], p[1], longer)]


def _is_part(start: int, end: int, wholes: Sequence[Span]) -> bool:
    return True in [first <= start and end <= last and (start, end) != (first, last) for first, last in wholes]


def _merge(concepts: Sequence[Hit], statements: Sequence[Statement], asserted: dict[str, bool]) -> list[_Found]:
    """Concepts of the dictionary and of statements together, without doubles, in order of their anchors."""
    said = []
    for st in statements:
        if _named_whole(st, concepts):
            continue
        together = st.says is _IS_PRESENT and abs(st.predicate[0] - st.subject[1]) < 40
        span = st.span if together else st.subject
        said.append(_Found(st.concept, span, st.predicate, _EXACT, asserted[st.concept], st))
    found = said[:]
    for start, end, e in concepts:
        if not said or not any(_covers(f, start, end, e.concept) for f in said):
            found.append(_Found(e.concept, (start, end), (start, end), e.score, e.asserted))
    found.sort(key=_anchored)
    return found


def _named_whole(statement: Statement, concepts: Sequence[Hit]) -> bool:
    """Whether the graph has a name of another meaning for all of an abnormal statement: "ectatic aorta"."""
    if statement.says is _IS_ABSENT:
        return False
    start, end = statement.span
    doubtful = statement.says is _IS_UNCERTAIN
    return any(s <= start and end <= t and (doubtful or e.concept != statement.concept) for s, t, e in concepts)


def _covers(found: _Found, start: int, end: int, concept: str) -> bool:
    """Whether a statement makes a surface needless: it lies in the statement's span, or means the same there."""
    if found.span[0] <= start and end <= found.span[1]:
        return True
    whole = found.statement.span if found.statement else found.span
    return found.concept == concept and start < whole[1] and whole[0] < end


def _mention(text: str, found: _Found, ruling: Ruling) -> Mention:
    statement = found.statement
    if statement is not None and statement.says is not _IS_PRESENT:
        assertion = ruling.assertion
        if assertion is _IS_PRESENT:
            doubt = "borderline" if statement.says is _IS_UNCERTAIN else ""
            ruling = Ruling(statement.says, statement.predicate, doubt)
        elif statement.says is _IS_ABSENT and not _bare_no(text, ruling.trigger):
            ruling = Ruling(_OPPOSITE.get(assertion, assertion), ruling.trigger, ruling.doubt)
    return _made(text, found.concept, *found.span, ruling, found.score)


def _made(text: str, concept: str, start: int, end: int, ruling: Ruling, score: float) -> Mention:
    """The mention of a ruling, its section and attributes not yet known."""
    said = first = last = None
    if ruling.trigger is not None:
        first, last = ruling.trigger
        said = text[first:last]
    rest = ("other", score, ruling.doubt, "", (), "", "", "current", ())
    return tuple.__new__(Mention, (concept, text[start:end], start, end, ruling.assertion, said, first, last, *rest))


def _bare_no(text: str, trigger: Span | None) -> bool:
    """Whether a denial is a "no" in front of a normal statement: a slip, since only "not" turns one round."""
    return trigger is not None and text[slice(*trigger)].lower().split()[:1] == ["no"]
