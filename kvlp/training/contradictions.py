"""For what a report says of an image, a sentence that says it and one that contradicts it, in the same words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.knowledge.prompts import Prompts
from kvlp.training.texts import Statement
from kvlp.typing import Assertion

if TYPE_CHECKING:
    from kvlp.typing import IntArray

__all__ = ["KINDS", "Contradiction", "Contradictions"]

#: How a sentence may contradict another: denied or stated, its opposite in the graph, the other side, another severity.
KINDS = ("assertion", "opposite", "side", "severity")
_FLIPPED = {Assertion.PRESENT: Assertion.ABSENT, Assertion.ABSENT: Assertion.PRESENT}


class Contradiction(NamedTuple):
    """A way to contradict a statement: the words and the assertion on both sides, and its kind."""

    kind: str
    concept: str
    modifier: str
    assertion: Assertion
    false_concept: str
    false_modifier: str
    false_assertion: Assertion


class Contradictions:
    """Draws true and contradicting sentences for rows.

    Opposites come from the graph's relation opposite_of: of findings ("cardiomegaly", "normal heart size") and of the
    modifiers that a report gives them ("left", "right"; "small", "large"). Nothing is drawn that another statement of
    the same report says: with a right effusion beside the left one, the other side is no contradiction.

    Args:
        graph: names, synonyms, opposites.
        statements: of each row.
        kinds: which of `KINDS` are drawn.
    """

    def __init__(
        self, graph: KnowledgeGraph, statements: Sequence[Sequence[Statement]], kinds: Sequence[str] = KINDS
    ) -> None:
        self.graph, self.statements, self.kinds = graph, statements, frozenset(kinds)
        self.prompts = Prompts(graph)
        self.opposites: dict[str, list[str]] = defaultdict(list)
        for relation in graph.relations:
            if relation.type == "opposite_of":
                self.opposites[relation.head].append(relation.tail)
                self.opposites[relation.tail].append(relation.head)
        self._ways: dict[int, list[Contradiction]] = {}

    def ways(self, row: int) -> list[Contradiction]:
        """Every contradiction of what a row says."""
        if row not in self._ways:
            said = self.statements[row]
            found = (way for statement in said if statement.concept in self.graph for way in self._of(statement, said))
            self._ways[row] = [way for way in found if way.kind in self.kinds]
        return self._ways[row]

    def sample(self, rows: IntArray, rng: np.random.Generator) -> tuple[list[str], list[str], IntArray]:
        """For each row a true sentence, one that contradicts it, and (n,) the number of its kind, -1 where none is."""
        true, false, kinds = [], [], []
        for row in rows:
            ways = self.ways(int(row))
            if not ways:
                true.append("")
                false.append("")
                kinds.append(-1)
                continue
            there = [kind for kind in KINDS if any(way.kind == kind for way in ways)]
            kind = there[int(rng.integers(len(there)))]  # kinds alike often, however many ways there are of each
            of_kind = [way for way in ways if way.kind == kind]
            first, second = self.sentences(of_kind[int(rng.integers(len(of_kind)))], rng)
            true.append(first)
            false.append(second)
            kinds.append(KINDS.index(kind))
        return true, false, np.array(kinds, dtype=np.int64)

    def sentences(self, way: Contradiction, rng: np.random.Generator) -> tuple[str, str]:
        """The true and the contradicting sentence, in one template and, for one finding, one surface."""
        template = int(rng.integers(1 << 16))
        own = self._surface(way.concept, way.modifier, rng)
        other = own
        if way.false_concept != way.concept:
            other = self._surface(way.false_concept, "", rng)
        elif way.false_modifier != way.modifier:
            other = f"{way.false_modifier}{own[len(way.modifier) :]}"
        return (
            self.prompts.sentence(way.concept, way.assertion, surface=own, template=template),
            self.prompts.sentence(way.false_concept, way.false_assertion, surface=other, template=template),
        )

    def _surface(self, concept: str, modifier: str, rng: np.random.Generator) -> str:
        """Words for a finding: with a modifier its name; else any surface."""
        found = self.graph[concept]
        if modifier:
            return f"{modifier} {found.name}"
        return found.surfaces[int(rng.integers(len(found.surfaces)))]

    def _of(self, one: Statement, said: Sequence[Statement]) -> Iterator[Contradiction]:
        if one.assertion not in _FLIPPED:
            return
        same = [other for other in said if other.concept == one.concept]
        states = {other.assertion for other in same}
        if len(states) == 1:
            yield _way("assertion", one, assertion=_FLIPPED[one.assertion])
        if one.assertion is not Assertion.PRESENT:
            return
        present = {other.concept for other in said if other.assertion is not Assertion.ABSENT}
        for opposite in self.opposites.get(one.concept, ()):
            if opposite in self.graph and opposite not in present:
                yield _way("opposite", one, concept=opposite)
        for kind in ("side", "severity"):
            for word in self._other_words(kind, one, same):
                yield _way(kind, one, modifier=getattr(one, kind), other=word)

    def _other_words(self, kind: str, one: Statement, same: Sequence[Statement]) -> Iterator[str]:
        """Opposites of the modifier, if every statement of the finding gives it that modifier."""
        word = getattr(one, kind)
        modifier = self.graph.get(word) if word else None
        if modifier is None or any(getattr(other, kind) != word for other in same):
            return
        for opposite in self.opposites.get(modifier.id, ()):
            if opposite in self.graph:
                yield self.graph[opposite].name


def _way(
    kind: str,
    one: Statement,
    *,
    assertion: Assertion | None = None,
    concept: str | None = None,
    modifier: str = "",
    other: str = "",
) -> Contradiction:
    return Contradiction(
        kind, one.concept, modifier, one.assertion, concept or one.concept, other, assertion or one.assertion
    )
