"""From reports, labels and the graph to training texts: sentences, label rows, prompts and knowledge pairs.

Everything here is a pure function of its inputs and the generator handed in, so that a resumed run sees the same texts.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kvlp.datasets.manifest import Manifest, Record
from kvlp.errors import DataError, KnowledgeError
from kvlp.knowledge.graph import Concept, KnowledgeGraph
from kvlp.knowledge.labels import labels_from_mentions
from kvlp.knowledge.linking import EntityLinker, Mention
from kvlp.knowledge.linking.language import language_of
from kvlp.knowledge.prompts import Prompts
from kvlp.knowledge.sections import split_sections, split_sentences
from kvlp.typing import ABSENT, PRESENT, Assertion

if TYPE_CHECKING:
    from kvlp.typing import FloatArray, IntArray

__all__ = ["CLASS_TYPES", "EntityPrompts", "KnowledgePairs", "Statement", "TextRows", "has_text", "read_texts"]

#: Concepts of these semantic types can be the classes of the entity loss.
CLASS_TYPES = frozenset({"finding", "disease", "device"})
#: Sections that never speak of this image: why it was taken, what it was compared with.
SKIPPED_SECTIONS = frozenset({"indication", "comparison", "technique"})
NO_FINDING = "No Finding"

#: A sentence that says that something is there (or that no rule can read) is drawn this much more often than one that
#: only denies: most sentences of most reports deny.
PRESENT_WEIGHT = 4.0

#: Sources whose texts are the findings of a report: as sentences, or tagged as KAD's are.
ENTITIES = ("entities", "tags")
_TAGS = {
    Assertion.PRESENT: "observation definitely present",
    Assertion.ABSENT: "observation definitely absent",
    Assertion.UNCERTAIN: "observation uncertain",
}

#: One thing that a training text may say: the wordings it can be said in.
Slot = tuple[str, ...]


class Statement(NamedTuple):
    """What a text says of a finding of this image: its concept, present or absent, and side and severity or ""."""

    concept: str
    assertion: Assertion
    side: str = ""
    severity: str = ""


@dataclass(frozen=True)
class TextRows:
    """What the texts of N rows say, aligned with the manifest's rows.

    Attributes:
        slots: for each row, the things its text may say; a training text is a random subset of them.
        weights: for each row, how readily each slot is drawn.
        classes: concept ids of the C named findings, sorted.
        labels: (N, C) float32, 1 present, 0 absent, -1 uncertain, NaN not mentioned.
        signature: (N,) integers, equal where two rows say the same or name the same findings.
        named: ids of every concept that some text names, in whatever assertion, and labels unknown to the graph.
        statements: for each row, what its report or its labels state or deny.
    """

    slots: tuple[tuple[Slot, ...], ...]
    weights: tuple[FloatArray, ...]
    classes: tuple[str, ...]
    labels: FloatArray
    signature: IntArray
    named: frozenset[str]
    statements: tuple[tuple[Statement, ...], ...] = ()

    def sample(self, row: int, rng: np.random.Generator, max_sentences: int) -> str:
        """A text for that row: 1 to `max_sentences` of its sentences in their order (0: all of them)."""
        slots = self.slots[row]
        if max_sentences:
            count = min(len(slots), int(rng.integers(1, max_sentences + 1)))
            chosen = np.sort(rng.choice(len(slots), size=count, replace=False, p=self.weights[row]))
            slots = tuple(slots[i] for i in chosen)
        return " ".join(slot[int(rng.integers(len(slot)))] for slot in slots)


def has_text(record: Record, source: str) -> bool:
    """Whether a training text can be made of the record, from its report or its labels as `source` says."""
    by_report = source != "labels" and any(letter.isalpha() for letter in record.report)
    from_labels = source in ("auto", "labels")
    return by_report or (from_labels and any(value in (PRESENT, ABSENT) for value in record.labels.values()))


def read_texts(manifest: Manifest, graph: KnowledgeGraph, *, source: str = "auto", min_patients: int = 5) -> TextRows:
    """Read every row's report (or, where `source` says so, its labels) into slots, labels and signatures.

    A finding is a class once it is named as present in reports of `min_patients` patients.

    Raises:
        DataError: a row has neither a report nor labels to make a text from; counts are given.
    """
    reader = _RowReader(graph, source)
    rows = [reader.read(record) for record in manifest]
    empty = sum(not row.slots for row in rows)
    if empty:
        raise DataError(
            f"expected a report or labels in every row, got {empty} of {len(rows)} rows without both; "
            "run `kvlp data check` to see which, and drop them or add labels"
        )
    classes = _named_classes(rows, [r.patient_id or r.id for r in manifest], graph, min_patients)
    labels = np.array([[row.said.get(c, math.nan) for c in classes] for row in rows], dtype=np.float32)
    return TextRows(
        slots=tuple(row.slots for row in rows),
        weights=tuple(_shares(row.denials) for row in rows),
        classes=classes,
        labels=labels.reshape(len(rows), len(classes)),
        signature=_signatures(rows),
        named=frozenset().union(*(row.named for row in rows)),
        statements=tuple(row.statements for row in rows),
    )


@dataclass(frozen=True)
class _Row:
    slots: tuple[Slot, ...]
    denials: tuple[bool, ...]  # whether a slot only denies
    said: dict[str, float]  # concept id -> label, for every concept of a class type that the row speaks of
    named: frozenset[str] = frozenset()  # concepts whose name or synonym stands in the text
    statements: tuple[Statement, ...] = ()


class _RowReader:
    """Reads one record at a time; keeps the linker and the wordings of each label."""

    def __init__(self, graph: KnowledgeGraph, source: str) -> None:
        self.graph, self.source = graph, source
        self.linker = EntityLinker(graph)
        self.prompts = Prompts(graph)
        self.candidates = [c.id for c in graph.concepts if CLASS_TYPES & set(c.semantic_types)]
        self.wordings: dict[tuple[str, float], Slot] = {}
        self.concepts: dict[str, str | None] = {}

    def read(self, record: Record) -> _Row:
        report = record.report
        if self.source != "labels" and report.strip():
            return self._from_entities(report) if self.source in ENTITIES else self._from_report(report)
        if self.source in ("auto", "labels") and record.labels:
            return self._from_labels(record)
        return _Row((), (), {})

    def _from_report(self, report: str) -> _Row:
        mentions = [] if language_of(report) else self.linker(report)  # what cannot be read is only text
        slots: list[Slot] = []
        denials: list[bool] = []
        for section in split_sections(report):
            if section.name in SKIPPED_SECTIONS:
                continue
            for start, end in split_sentences(report, section.start, section.end):
                sentence = report[start:end].strip()
                if any(letter.isalpha() for letter in sentence):
                    slots.append((sentence,))
                    denials.append(self._only_denies([m for m in mentions if start <= m.start < end]))
        stated = [m for m in mentions if self._is_class(m) and m.status == "current"]
        statements = dict.fromkeys(Statement(m.concept, m.assertion, m.side, m.severity) for m in stated)
        named = frozenset(m.concept for m in mentions)
        return _Row(tuple(slots), tuple(denials), self._said(mentions), named, tuple(statements))

    def _from_entities(self, report: str) -> _Row:
        """What the report says of each finding, once each in its order; the report itself where it names none."""
        row = self._from_report(report)
        entities = dict.fromkeys((s.concept, s.assertion) for s in row.statements)
        if not entities:
            return row
        slots = tuple(self._entity(concept, assertion) for concept, assertion in entities)
        denials = tuple(assertion is Assertion.ABSENT for _, assertion in entities)
        return replace(row, slots=slots, denials=denials)

    def _is_class(self, mention: Mention) -> bool:
        return bool(CLASS_TYPES & set(self.graph[mention.concept].semantic_types))

    def _entity(self, concept: str, assertion: Assertion) -> Slot:
        if self.source == "entities":
            return (self.prompts.sentence(concept, assertion),)
        return (f"{self.graph[concept].name} {_TAGS[assertion]} ;",)

    def _only_denies(self, mentions: Sequence[Mention]) -> bool:
        stated = [m for m in mentions if self._is_class(m)]
        normal = any("normal" in self.graph[m.concept].semantic_types for m in mentions)
        return bool(stated or normal) and all(m.assertion is Assertion.ABSENT for m in stated)

    def _said(self, mentions: Sequence[Mention]) -> dict[str, float]:
        if not mentions:
            return {}
        labels = labels_from_mentions(mentions, self.candidates, self.graph)
        return {concept: value for concept, value in labels.items() if not math.isnan(value)}

    def _from_labels(self, record: Record) -> _Row:
        said: dict[str, float] = {}
        slots: list[Slot] = []
        denials: list[bool] = []
        unknown: set[str] = set()
        for name, value in record.labels.items():
            if value not in (PRESENT, ABSENT):
                continue
            slots.append(self._wording(name, value))
            denials.append(value == ABSENT)
            if (concept := self._concept(name)) is not None:
                said[concept] = value
            else:
                unknown.add(name)
        states = {PRESENT: Assertion.PRESENT, ABSENT: Assertion.ABSENT}
        statements = tuple(Statement(concept, states[value]) for concept, value in said.items())
        return _Row(tuple(slots), tuple(denials), said, frozenset(said) | unknown, statements)

    def _concept(self, name: str) -> str | None:
        """The label's concept; labels that the graph does not know make sentences but no class."""
        if name not in self.concepts:
            try:
                self.concepts[name] = None if name == NO_FINDING else self.graph.concept(name).id
            except KnowledgeError:
                self.concepts[name] = None
        return self.concepts[name]

    def _wording(self, name: str, value: float) -> Slot:
        key = (name, value)
        if key not in self.wordings:
            assertion = Assertion.PRESENT if value == PRESENT else Assertion.ABSENT
            self.wordings[key] = tuple(self.prompts.sentences(name, assertion, synonyms=True))
        return self.wordings[key]


def _shares(denials: Sequence[bool]) -> FloatArray:
    weights = np.array([1.0 if denies else PRESENT_WEIGHT for denies in denials])
    return weights / weights.sum()


def _named_classes(
    rows: Sequence[_Row], patients: Sequence[str], graph: KnowledgeGraph, min_patients: int
) -> tuple[str, ...]:
    named: dict[str, set[str]] = defaultdict(set)
    for row, patient in zip(rows, patients, strict=True):
        for concept, value in row.said.items():
            if value == PRESENT and concept in row.named:
                named[concept].add(patient)
    return tuple(sorted(c for c, who in named.items() if len(who) >= min_patients and c in graph))


def _signatures(rows: Sequence[_Row]) -> IntArray:
    """Equal numbers for identical texts and for texts that name the same findings as present."""
    numbers: dict[object, int] = {}
    result = []
    for row in rows:
        present = frozenset(c for c, value in row.said.items() if value == PRESENT)
        key: object = present if row.said else row.slots
        result.append(numbers.setdefault(key, len(numbers)))
    return np.array(result, dtype=np.int64)


class EntityPrompts:
    """Present and absent prompts of the classes, worded anew at each call from names, synonyms and descriptions."""

    def __init__(self, graph: KnowledgeGraph, classes: Sequence[str], *, descriptions: float = 0.3) -> None:
        self.prompts = Prompts(graph)
        self.concepts = [graph[c] for c in classes]
        self.descriptions = descriptions

    def sample(self, rng: np.random.Generator, count: int | None = None) -> tuple[list[str], list[str]]:
        """One present and one absent sentence for every class, with the same wording of the finding.

        With `count`, for so many classes drawn at random.
        """
        concepts = self.concepts
        if count is not None and count < len(concepts):
            concepts = [concepts[i] for i in rng.choice(len(concepts), size=count, replace=False)]
        present, absent = [], []
        for concept in concepts:
            described = bool(concept.descriptions) and rng.random() < self.descriptions
            wordings = concept.descriptions if described else concept.surfaces
            surface = wordings[int(rng.integers(len(wordings)))]
            template = int(rng.integers(1 << 16))
            present.append(self.prompts.sentence(concept.id, Assertion.PRESENT, surface=surface, template=template))
            absent.append(self.prompts.sentence(concept.id, Assertion.ABSENT, surface=surface, template=template))
        return present, absent


class KnowledgePairs:
    """Pairs of texts about one concept: name or synonym with synonym, description or definition; head with tail.

    Both sides stand in the same template, sometimes negated, as in KAD's stage 1 (names, definitions, relations).
    """

    #: A relation's share of the pairs; the rest are names with synonyms, descriptions and definitions.
    RELATION_SHARE = 0.2

    def __init__(self, graph: KnowledgeGraph, *, negated: float = 0.25) -> None:
        self.graph, self.prompts, self.negated = graph, Prompts(graph), negated
        self.concepts = [c for c in graph.concepts if sum(map(len, _kinds_of_wording(c))) > 1]
        self.relations = [r for r in graph.relations if r.head in graph and r.tail in graph]
        self.number = {concept.id: i for i, concept in enumerate(graph.concepts)}
        # findings are what images show: drawn three times as often as anatomy and the like
        weights = np.array([3.0 if CLASS_TYPES & set(c.semantic_types) else 1.0 for c in self.concepts])
        self.weights = weights / weights.sum()

    def sample(self, rng: np.random.Generator, count: int) -> tuple[list[str], list[str], IntArray]:
        """`count` pairs: first texts, second texts, and (count,) numbers, equal for one concept and polarity."""
        first, second, group = [], [], []
        for index in rng.choice(len(self.concepts), size=count, p=self.weights):
            if self.relations and rng.random() < self.RELATION_SHARE:
                a, b, key = self._relation(rng)
            else:
                a, b, key = self._wordings(rng, int(index))
            first.append(a)
            second.append(b)
            group.append(key)
        return first, second, np.array(group, dtype=np.int64)

    def _wordings(self, rng: np.random.Generator, index: int) -> tuple[str, str, int]:
        concept = self.concepts[index]
        kinds = _kinds_of_wording(concept)
        # half of the pairs start from the name that a user will type; the kinds come alike often, however many of each
        first = (concept.name,) if rng.random() < 0.5 else kinds[int(rng.integers(len(kinds)))]
        a = first[int(rng.integers(len(first)))]
        others = [[w for w in kind if w != a] for kind in kinds]
        others = [kind for kind in others if kind]
        second = others[int(rng.integers(len(others)))]
        b = second[int(rng.integers(len(second)))]
        negated = rng.random() < self.negated
        assertion = Assertion.ABSENT if negated else Assertion.PRESENT
        template = int(rng.integers(1 << 16))
        texts = [self.prompts.sentence(concept.id, assertion, surface=text, template=template) for text in (a, b)]
        return texts[0], texts[1], 2 * self.number[concept.id] + int(negated)

    def _relation(self, rng: np.random.Generator) -> tuple[str, str, int]:
        relation = self.relations[int(rng.integers(len(self.relations)))]
        heads, tails = self.graph[relation.head].surfaces, self.graph[relation.tail].surfaces
        head, tail = heads[int(rng.integers(len(heads)))], tails[int(rng.integers(len(tails)))]
        return f"{head} {relation.type.replace('_', ' ')}", tail, 2 * self.number[relation.tail]


def _kinds_of_wording(concept: Concept) -> list[tuple[str, ...]]:
    """The concept's names, its descriptions with its definition; a kind that it has none of is left out."""
    definition = (concept.definition,) if concept.definition else ()
    return [kind for kind in (concept.surfaces, (*concept.descriptions, *definition)) if kind]
