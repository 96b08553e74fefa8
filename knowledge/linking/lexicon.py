"""What a linker knows of a graph: plain data, made once from the graph, and saved with a linker (see `saved.py`)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from kvlp.knowledge.linking.ambiguity import Sense, add_listed, graph_senses
from kvlp.knowledge.linking.assertion import read_rules
from kvlp.knowledge.linking.attributes import Anatomy, anatomy_of
from kvlp.knowledge.linking.dictionary import beginnings_of
from kvlp.knowledge.linking.normalise import variants
from kvlp.knowledge.linking.statements import StatementWords, statement_words

if TYPE_CHECKING:
    from kvlp.knowledge.graph import KnowledgeGraph

__all__ = ["ALSO_WORDS", "Entry", "Lexicon", "LinkerOptions", "lexicon_of"]

#: abbreviations that are also words: they count only in capitals, in a text that is not all capitals
ALSO_WORDS = frozenset(
    ("all", "as", "at", "am", "an", "are", "be", "can", "do", "ed", "he", "in", "is", "it", "may", "no", "not", "or",
     "pa", "per", "pm", "see", "so", "the", "to", "us", "was", "we", "who", "ms", "mass", "cap", "lap", "pap", "arm")
)  # fmt: skip
_EXACT, _VARIANT = 1.0, 0.95
#: of the best meaning of a form so far: its rank, the concept, whether capitals count; how many concepts share the
#: form, and the last of them
_Best: TypeAlias = tuple[int, str, bool, int, str]
_RANKS = 4
#: form that concepts share -> their ranks and ids
_Shared: TypeAlias = dict[str, list[tuple[int, str]]]


class Entry(NamedTuple):
    """What a surface means: the concept, how sure, and how it must be written."""

    concept: str
    score: float
    asserted: bool
    capitals: bool


@dataclass(frozen=True, slots=True)
class Lexicon:
    """The words by which the concepts of a graph are found.

    Attributes:
        surfaces: normalised surface or variant -> its meaning.
        asserted: concept id -> whether triggers say something of it (not of anatomy).
        said: subjects and predicates of statements.
        anatomy: places and sides, or None where attributes are left out.
        senses: normalised surface -> its meanings, where it has several.
        beginnings: what is left of the surfaces without their last words, down to one word, and is no surface itself.
        words: every word of the surfaces.
    """

    surfaces: dict[str, Entry]
    asserted: dict[str, bool]
    said: StatementWords
    anatomy: Anatomy | None
    senses: dict[str, tuple[Sense, ...]]
    beginnings: tuple[str, ...]
    words: frozenset[str]


class LinkerOptions(NamedTuple):
    """How a linker reads; see EntityLinker."""

    types: tuple[str, ...] | None = None
    spelling: bool = True
    abbreviations: str = "own"
    attributes: bool = True
    language: str | None = "en"


def lexicon_of(graph: KnowledgeGraph, types: Collection[str] | None = None, *, attributes: bool = True) -> Lexicon:
    """Make the lexicon of a graph, in one pass over its concepts.

    Args:
        graph: the graph.
        types: only concepts of one of these semantic types; None for all.
        attributes: whether places and sides are wanted.
    """
    unasserted = read_rules().unasserted_types
    wanted = None if types is None else frozenset(types)
    asserted: dict[str, bool] = {}
    best: dict[str, _Best] = {}
    shared: _Shared = {}
    for concept in graph.concepts:
        asserted[concept.id] = not (concept.semantic_types and concept.semantic_types[0] in unasserted)
        if wanted is None or not wanted.isdisjoint(concept.semantic_types):
            _add(best, shared, concept.id, concept.surfaces, asserted=asserted[concept.id])
    surfaces = _entries(best, asserted)
    senses = graph_senses(graph, {form: [c for _, c in sorted(rows)] for form, rows in shared.items()}, asserted)
    add_listed(surfaces, senses, Entry)
    anatomy = anatomy_of(graph) if attributes else None
    words = frozenset(" ".join(surfaces).split())
    beginnings = tuple(sorted(beginnings_of(surfaces).difference(surfaces)))
    return Lexicon(surfaces, asserted, statement_words(graph, types), anatomy, senses, beginnings, words)


def _add(best: dict[str, _Best], shared: _Shared, concept: str, surfaces: Collection[str], *, asserted: bool) -> None:
    """A surface of the graph comes before a variant, a finding before what is not asserted, a name before a synonym."""
    for number, surface in enumerate(surfaces):
        capitals = _needs_capitals(surface)
        rank = min(number, 1) + (0 if asserted else 2)
        for form, row in _rows(surface, rank, concept, capitals=capitals):
            there = best.get(form)
            if there is None or there[0] // _RANKS > row[0] // _RANKS:
                best[form] = row
                shared.pop(form, None)
            elif there[0] // _RANKS == row[0] // _RANKS:
                first = row if row[0] < there[0] else there
                best[form] = (*first[:3], there[3] + (there[4] != concept), concept)
                if there[4] != concept:
                    shared.setdefault(form, [(there[0], there[1])]).append((row[0], concept))


def _rows(surface: str, rank: int, concept: str, *, capitals: bool) -> Iterator[tuple[str, _Best]]:
    row = (rank, concept, capitals, 1, concept)
    for form in variants(surface):
        yield form, row
        if row[0] < _RANKS:
            row = (rank + _RANKS, concept, capitals, 1, concept)


def _entries(best: dict[str, _Best], asserted: dict[str, bool]) -> dict[str, Entry]:
    """The meanings; forms that mean the same share one. Takes `best` apart, to hold each form once."""
    entries: dict[str, Entry] = {}
    known: dict[tuple[str, float, bool], Entry] = {}
    for form in list(best):
        rank, concept, capitals, shared, _ = best.pop(form)
        score = (_EXACT if rank < _RANKS else _VARIANT) / shared
        key = (concept, score, capitals)
        if key not in known:
            known[key] = Entry(concept, score, asserted[concept], capitals)
        entries[form] = known[key]
    return entries


def _needs_capitals(surface: str) -> bool:
    return surface.isupper() and surface.isalpha() and (len(surface) <= 2 or surface.lower() in ALSO_WORDS)
