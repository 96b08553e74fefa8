"""EntityLinker: which concepts of a graph a report speaks of, where, and whether they are there."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from kvlp.errors import DataError, KnowledgeError
from kvlp.knowledge.linking.abbreviations import abbreviation_edits, finder
from kvlp.knowledge.linking.ambiguity import Sense, resolve
from kvlp.knowledge.linking.assertion import PRESENT, Clauses, Ruling, Word, alternatives, read_rules
from kvlp.knowledge.linking.attributes import AttributeReader
from kvlp.knowledge.linking.collection import nothing_collected
from kvlp.knowledge.linking.dictionary import Dictionary
from kvlp.knowledge.linking.fuzzy import Spelling
from kvlp.knowledge.linking.language import check_language, known_language
from kvlp.knowledge.linking.lexicon import ALSO_WORDS, Entry, Lexicon, LinkerOptions, lexicon_of
from kvlp.knowledge.linking.mention import Mention, Remembered
from kvlp.knowledge.linking.rewriting import Edit, Rewriting
from kvlp.knowledge.linking.statements import Statement, find_statements
from kvlp.knowledge.sections import split_sections, split_sentences
from kvlp.typing import Assertion, PathLike

if TYPE_CHECKING:
    from kvlp.knowledge.graph import KnowledgeGraph
    from kvlp.knowledge.linking.candidates import CandidateLinker

__all__ = ["EntityLinker", "Mention"]

Span: TypeAlias = tuple[int, int]
_CONCEPT, _WORD, _SUBJECT, _PREDICATE, _CUE = range(5)
_SHARES_HEAD = re.compile(r"(?<![^\W\d_])([^\W\d_]+)(?:\s+(?:and|or|nor|and/or)\s+|/)\Z", re.IGNORECASE)
_OPPOSITE = {Assertion.PRESENT: Assertion.ABSENT, Assertion.ABSENT: Assertion.PRESENT}
_EXACT = 1.0
#: a sentence of more characters that is all capitals tells no abbreviation from a word
_SHOUTED = 20
_LONGEST_REMEMBERED = 300
#: so many characters have so many mentions that a search for garbage among them takes longer than reading
_VERY_LONG = 100_000
_Hit: TypeAlias = tuple[int, int, Entry]


class _Found(NamedTuple):
    """A concept in a sentence before it is ruled on."""

    concept: str
    span: Span
    anchor: Span
    score: float
    asserted: bool
    statement: Statement | None = None


class EntityLinker:
    """Finds the concepts of a graph in report text and says whether they are present, absent or uncertain.

    Args:
        graph: whose surfaces are searched.
        types: only concepts of one of these semantic types; None for all.
        spelling: also find what is misspelt, with a score below 1 (see `fuzzy.py`).
        abbreviations: who finds those that a text defines: "own" (see `abbreviations.py`), "scispacy" or "none".
        candidates: also finds what looks like a surface in what nothing else covers, with a score below 0.9.
        attributes: also say side, place, severity, change and status of what is found (see `attributes.py`).
        language: "en" refuses a text that is clearly in another language; None reads every text.
        remember: how many sentences are kept with what was found in them, since reports repeat theirs; 0 for none.

    Attributes:
        graph_hash: content hash of the graph.
        options: how it reads.

    Example:
        >>> EntityLinker(graph)("Small left effusion. No pneumothorax.")
        [Mention(concept='pleural_effusion', ...), Mention(concept='pneumothorax', ...)]
    """

    def __init__(
        self,
        graph: KnowledgeGraph,
        *,
        types: Collection[str] | None = None,
        spelling: bool = True,
        abbreviations: str = "own",
        candidates: CandidateLinker | None = None,
        attributes: bool = True,
        language: str | None = "en",
        remember: int = 20_000,
    ) -> None:
        options = LinkerOptions(
            tuple(types) if types is not None else None, spelling, abbreviations, attributes, language
        )
        self._set_up(graph.content_hash, lexicon_of(graph, types, attributes=attributes), options)
        self._candidates = candidates
        self._remember = remember

    def _set_up(self, graph_hash: str, lexicon: Lexicon, options: LinkerOptions) -> None:
        self.graph_hash, self._lexicon, self.options = graph_hash, lexicon, options
        self._language = known_language(options.language)
        self._candidates = None
        self._memory: dict[tuple[str, bool], tuple[Remembered, ...]] = {}
        self._asserted, self._surfaces, said = lexicon.asserted, lexicon.surfaces, lexicon.said
        self._attributes = AttributeReader(lexicon.anatomy) if lexicon.anatomy else None
        cues = self._attributes.words if self._attributes else {}
        groups: list[dict[str, Any]] = [self._surfaces, read_rules().words, said.subjects, said.predicates, cues]
        self._dictionary: Dictionary[Any] = Dictionary(groups, lexicon.beginnings)
        self._ambiguous = frozenset(self._surfaces[form].concept for form in lexicon.senses)
        self._menders: list[Callable[[str], list[Edit]]] = []
        if options.spelling:
            self._menders.append(
                Spelling(self._surfaces, [p for group in groups[1:] for p in group], lexicon.words).edits
            )
        if options.abbreviations != "none":
            self._menders.append(partial(abbreviation_edits, find=finder(options.abbreviations)))

    def save(self, path: PathLike) -> Path:
        """Write the linker to one file, from which it is ready in less than a second; return the file.

        Raises:
            KnowledgeError: it has candidates, which are not saved, or the file cannot be written.
        """
        from kvlp.knowledge.linking.saved import save_linker

        if self._candidates is not None:
            raise KnowledgeError("a linker with candidates cannot be saved: they have an index of their own")
        return save_linker(Path(path), self.graph_hash, self._lexicon, self.options)

    @classmethod
    def load(cls, path: PathLike, graph: KnowledgeGraph | None = None, *, remember: int = 20_000) -> EntityLinker:
        """Read a linker from its file.

        Args:
            path: a file written by `save`.
            graph: the graph that it must be of; None takes it as it is.
            remember: how many sentences are kept with what was found in them.

        Raises:
            KnowledgeError: no such file, a damaged one, one of another graph, or one that another version made.
        """
        from kvlp.knowledge.linking.saved import load_linker

        linker = cls.__new__(cls)
        with nothing_collected():
            linker._set_up(*load_linker(Path(path), graph))
        linker._remember = remember
        return linker

    def __call__(self, text: str) -> list[Mention]:
        """Link one text; mentions in the order of their start.

        Raises:
            DataError: not a string, or clearly not English (and `language` is not None).
        """
        if not isinstance(text, str):
            raise DataError(f"expected report text as str, got {type(text).__name__}; decode or join it first")
        if len(text) < _VERY_LONG:
            return self._link(text)
        with nothing_collected():
            return self._link(text)

    def _link(self, text: str) -> list[Mention]:
        if self._language is not None:
            check_language(text)
        rewritings: list[Rewriting] = []
        for mend in self._menders:
            edits = mend(text)
            if edits:
                rewritings.append(Rewriting(text, edits))
                text = rewritings[-1].text
        mentions = resolve(text, self._read(text), self._lexicon.senses, self._ambiguous)
        for rewriting in reversed(rewritings):
            mentions = [rewriting.restore(m) for m in mentions]
        return mentions

    def _read(self, text: str) -> list[Mention]:
        capitals = text.isupper()
        mentions: list[Mention] = []
        for section in split_sections(text):
            for start, end in split_sentences(text, section.start, section.end):
                for found in self._read_sentence(text[start:end], capitals=capitals):
                    mentions.append(found.at(start, section.name))
        return mentions

    def _read_sentence(self, sentence: str, *, capitals: bool) -> tuple[Remembered, ...]:
        """What a sentence says, wherever it stands: reports repeat theirs, so it is remembered."""
        known = self._memory.get((sentence, capitals))
        if known is None:
            known = tuple(map(Remembered, self._link_sentence(sentence, capitals=capitals)))
            if len(sentence) <= _LONGEST_REMEMBERED and self._remember > 0:
                if len(self._memory) >= self._remember:
                    self._memory.clear()
                self._memory[sentence, capitals] = known
        return known

    def _link_sentence(self, sentence: str, *, capitals: bool) -> list[Mention]:
        """Link one sentence by itself: all that is said of a concept stands in its sentence."""
        hits: list[list[tuple[int, int, Any]]] = self._dictionary.find(sentence)
        if self._candidates is not None:
            hits[_CONCEPT] = self._with_candidates(sentence, hits, self._candidates)
        if not hits[_CONCEPT] and not hits[_SUBJECT]:
            return []
        hits[_CONCEPT] = list(self._with_shared_heads(sentence, hits[_CONCEPT], capitals=capitals))
        if not hits[_CONCEPT] and not hits[_SUBJECT]:
            return []
        found = sorted(_sentence(sentence, hits, self._asserted), key=_place)
        if self._attributes is None:
            return found
        asserted = [self._asserted[m.concept] for m in found]
        return self._attributes(sentence, found, asserted, hits[_CUE], hits[_WORD])

    def _with_candidates(
        self, text: str, hits: list[list[tuple[int, int, Any]]], candidates: CandidateLinker
    ) -> list[_Hit]:
        """Add what looks like a surface; words of anatomy, statements and attributes may be part of it."""
        covered = [(s, e) for s, e, entry in hits[_CONCEPT] if entry.asserted] + [(s, e) for s, e, _ in hits[_WORD]]
        described = [(s, e) for s, e, entry in hits[_CONCEPT] if not entry.asserted]
        described += [(s, e) for group in hits[_SUBJECT:] for s, e, _ in group]
        found = [
            (start, end, Entry(concept, score, self._asserted[concept], capitals=False))
            for start, end, concept, score in candidates.find(text, covered, described)
        ]
        return sorted([*hits[_CONCEPT], *found], key=lambda hit: hit[:2])

    def _with_shared_heads(self, text: str, hits: list[_Hit], *, capitals: bool) -> Iterator[_Hit]:
        """Leave out words that look like abbreviations; add what shares a head ("pleural or pericardial effusion")."""
        for hit in hits:
            start, end, entry = hit
            if entry.capitals and not _in_capitals(text, hit, capitals=capitals):
                continue
            head = text[start:end].split()
            if len(head) > 1 and text[max(0, start - 30) : start].rstrip().lower().endswith(("and", "or", "/")):
                match = _SHARES_HEAD.search(text, max(0, start - 30), start)
                other = self._surfaces.get(f"{match[1]} {head[-1]}".lower()) if match else None
                if match and other is not None and other.concept != entry.concept:
                    yield match.start(1), end, other
            yield hit

    @property
    def senses(self) -> Mapping[str, tuple[Sense, ...]]:
        """Normalised surface -> its meanings, where it has several (see `ambiguity.py`)."""
        return self._lexicon.senses

    def covered(self, text: str) -> list[Span]:
        """Spans of all that surfaces, rules, statements and attributes know in a text, in order; they may overlap."""
        concepts, *others = self._dictionary.find(text)
        capitals = text.isupper()
        surfaces = [h for h in concepts if not h[2].capitals or _in_capitals(text, h, capitals=capitals)]
        return sorted((start, end) for group in (surfaces, *others) for start, end, _ in group)

    def forget(self) -> None:
        """Forget the remembered sentences."""
        self._memory.clear()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_memory": {}}  # no report text in a pickle

    def link_many(self, texts: Iterable[str]) -> list[list[Mention]]:
        """Link many texts.

        Raises:
            DataError: one that cannot be read; the message counts from 1.
        """
        found = []
        for number, text in enumerate(texts, 1):
            try:
                found.append(self(text))
            except DataError as error:
                raise DataError(f"text {number}: {error}") from None
        return found


def _place(mention: Mention) -> tuple[int, int]:
    return mention.start, mention.end


def _in_capitals(text: str, hit: tuple[int, int, Entry], *, capitals: bool) -> bool:
    surface = text[hit[0] : hit[1]]
    if not (surface[:-1] if surface[-1] == "s" and len(surface) > 2 else surface).isupper():
        return False
    return surface.lower() not in ALSO_WORDS or not (capitals or (len(text) > _SHOUTED and text.isupper()))


def _sentence(text: str, hits: list[list[tuple[int, int, Any]]], asserted: dict[str, bool]) -> list[Mention]:
    concepts, words, subjects, predicates = hits[:_CUE]
    if True in [w.triggers for _, _, w in words] or (subjects and predicates) or "?" in text:
        predicates = _true_predicates(predicates, words, concepts)
        inside = [(s, t) for group in (concepts, subjects, predicates) for s, t, _ in group]
        clauses = Clauses(text, 0, len(text), words, inside, [(s, t) for s, t, _ in predicates] if subjects else ())
        found = _merge(concepts, find_statements(clauses, subjects, predicates), asserted)
        rulings = clauses.rule([f.anchor for f in found if f.asserted])
    else:  # nothing but names
        found = [_Found(e.concept, (s, t), (s, t), e.score, e.asserted) for s, t, e in concepts]
        items = [f.anchor for f in found if f.asserted]
        rulings = alternatives(text, items, [PRESENT] * len(items))
    ruled = iter(rulings)
    return [_mention(text, f, next(ruled) if f.asserted else None) for f in found]


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
    return [p for p in predicates if p[1] + 1 not in heads and not any(_is_part(p[0], p[1], s, e) for s, e in longer)]


def _is_part(start: int, end: int, whole_start: int, whole_end: int) -> bool:
    return whole_start <= start and end <= whole_end and (start, end) != (whole_start, whole_end)


def _merge(
    concepts: Sequence[tuple[int, int, Entry]], statements: Sequence[Statement], asserted: dict[str, bool]
) -> list[_Found]:
    """Concepts of the dictionary and of statements together, without doubles, in order of their anchors."""
    found = []
    for st in statements:
        if _named_whole(st, concepts):
            continue
        together = st.says is Assertion.PRESENT and abs(st.predicate[0] - st.subject[1]) < 40
        span = st.span if together else st.subject
        found.append(_Found(st.concept, span, st.predicate, _EXACT, asserted[st.concept], st))
    said = list(found)
    for start, end, e in concepts:
        if not said or not any(_covers(f, start, end, e.concept) for f in said):
            found.append(_Found(e.concept, (start, end), (start, end), e.score, e.asserted))
    return sorted(found, key=lambda f: (f.anchor, f.span, f.concept))


def _named_whole(statement: Statement, concepts: Sequence[tuple[int, int, Entry]]) -> bool:
    """Whether the graph has a name of another meaning for all of an abnormal statement: "ectatic aorta"."""
    if statement.says is Assertion.ABSENT:
        return False
    start, end = statement.span
    doubtful = statement.says is Assertion.UNCERTAIN
    return any(s <= start and end <= t and (doubtful or e.concept != statement.concept) for s, t, e in concepts)


def _covers(found: _Found, start: int, end: int, concept: str) -> bool:
    """Whether a statement makes a surface needless: it lies in the statement's span, or means the same there."""
    if found.span[0] <= start and end <= found.span[1]:
        return True
    whole = found.statement.span if found.statement else found.span
    return found.concept == concept and start < whole[1] and whole[0] < end


def _mention(text: str, found: _Found, ruling: Ruling | None) -> Mention:
    assertion = ruling.assertion if ruling else Assertion.PRESENT
    trigger = ruling.trigger if ruling else None
    doubt = ruling.doubt if ruling else ""
    statement = found.statement
    if statement is not None and statement.says is not Assertion.PRESENT:
        if assertion is Assertion.PRESENT:
            assertion, trigger = statement.says, statement.predicate
            doubt = "borderline" if assertion is Assertion.UNCERTAIN else ""
        elif statement.says is Assertion.ABSENT and not _bare_no(text, trigger):
            assertion = _OPPOSITE.get(assertion, assertion)
    start, end = found.span
    first, last = trigger or (None, None)
    said = text[first:last] if trigger else None
    return Mention(
        found.concept, text[start:end], start, end, assertion, said, first, last, score=found.score, doubt=doubt
    )


def _bare_no(text: str, trigger: Span | None) -> bool:
    """Whether a denial is a "no" in front of a normal statement: a slip, since only "not" turns one round."""
    return trigger is not None and text[slice(*trigger)].lower().split()[:1] == ["no"]
