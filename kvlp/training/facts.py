"""The facts that a report states, as triples: of each finding whether it is there, its side, severity and relations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from kvlp.typing import Assertion

if TYPE_CHECKING:
    from kvlp.knowledge.graph import KnowledgeGraph
    from kvlp.training.objectives.part import Sources
    from kvlp.training.texts import Statement

__all__ = ["Fact", "KnowledgeRows", "fact_text", "facts_of", "knowledge_rows"]

#: Relations of the graph that are told of a present finding whether or not the report names their other end.
ALWAYS = ("located_in",)
_ORDER = {Assertion.PRESENT: 0, Assertion.UNCERTAIN: 1, Assertion.ABSENT: 2}


class Fact(NamedTuple):
    """A triple. `head` is a concept id, `tail` a concept id or a word: present, absent, uncertain, left, small ..."""

    head: str
    relation: str
    tail: str


@dataclass(frozen=True, eq=False)
class KnowledgeRows:
    """What the rows of a run say.

    Attributes:
        reports: N texts, whole.
        unique: the U facts that any of them states, in the order of first mention; texts: U sentences.
        facts: for each row the numbers of its facts.
    """

    reports: tuple[str, ...]
    unique: tuple[Fact, ...]
    texts: tuple[str, ...]
    facts: tuple[tuple[int, ...], ...]


def facts_of(statements: Iterable[Statement], graph: KnowledgeGraph, *, most: int = 30) -> tuple[Fact, ...]:
    """The facts of one report, what is present first, then doubtful, then absent.

    For each finding `is` present, absent or uncertain, `side` and `severity` where they are told; for a present one
    where the graph has it located, and the graph's relations to other present findings of the report.
    """
    said = sorted(statements, key=lambda s: _ORDER[s.assertion])
    present = {s.concept for s in said if s.assertion is Assertion.PRESENT}
    facts: dict[Fact, None] = {}
    for s in said:
        facts[Fact(s.concept, "is", s.assertion.value)] = None
        for relation, value in (("side", s.side), ("severity", s.severity)):
            if value:
                facts[Fact(s.concept, relation, value)] = None
        if s.concept in present and s.concept in graph:
            for r in graph.neighbours(s.concept):
                if (r.type in ALWAYS and r.tail in graph) or r.tail in present:
                    facts[Fact(r.head, r.type, r.tail)] = None
    return tuple(facts)[:most]


def fact_text(fact: Fact, graph: KnowledgeGraph) -> str:
    """A fact in words: "pleural effusion located in pleural space"."""
    head, tail = (graph[c].name if c in graph else c for c in (fact.head, fact.tail))
    return f"{head} {fact.relation.replace('_', ' ')} {tail}"


@lru_cache(maxsize=1)  # asked for by each stage and each time that the store is written
def knowledge_rows(sources: Sources, most: int) -> KnowledgeRows:
    """Read the rows of a run, at most so many facts of each: those that the data tell, else those of their texts."""
    texts, graph = sources.texts, sources.taught
    if sources.triples is not None:
        by_row: Sequence[tuple[Fact, ...]] = [tuple(Fact(*told) for told in row[:most]) for row in sources.triples]
    else:
        by_row = [facts_of(said, graph, most=most) for said in texts.statements]
    number = {fact: i for i, fact in enumerate(dict.fromkeys(fact for facts in by_row for fact in facts))}
    return KnowledgeRows(
        reports=tuple(" ".join(slot[0] for slot in slots) for slots in texts.slots),
        unique=tuple(number),
        texts=tuple(fact_text(fact, graph) for fact in number),
        facts=tuple(tuple(number[fact] for fact in facts) for facts in by_row),
    )
