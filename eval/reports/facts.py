"""Facts of a report: what it says of which finding, how surely, on which side, how severe and where."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from kvlp.knowledge.labels import speaks
from kvlp.knowledge.linking import EntityLinker, Mention
from kvlp.knowledge.linking.assertion import read_rules
from kvlp.typing import Assertion

if TYPE_CHECKING:
    from kvlp.knowledge.graph import KnowledgeGraph

__all__ = ["Fact", "FactReader", "holders"]

#: how surely a finding is there, from 0 (denied) to 1 (stated)
_CERTAINTY = {"unlikely": 0.25, "probable": 0.75}
_POSSIBLE = 0.5
#: severity of either scale (small to large, mild to severe) on four steps
_LEVELS = {"": 0, "trace": 1, "small": 2, "mild": 2, "moderate": 3, "large": 4, "severe": 4}
_HOLDS = ("part_of", "side_of", "is_a")


class Fact(NamedTuple):
    """One statement of a report.

    Attributes:
        concept: id in the graph.
        certainty: 1 stated, 0 denied, between them what is doubtful (0.25 unlikely, 0.5 possible, 0.75 probable).
        side: left, right, bilateral or "".
        severity: 0 not said, 1 trace, 2 small or mild, 3 moderate, 4 large or severe.
        location: ids of the places named, but for those that the concept lies in anyway ("lung nodule").
    """

    concept: str
    certainty: float
    side: str = ""
    severity: int = 0
    location: frozenset[str] = frozenset()


class FactReader:
    """Reads the facts of a report through the linker: a set, so neither order nor repetition counts.

    What was asked or known before (indication, comparison, history, family) is no fact, nor is bare anatomy. A normal
    statement ("the lungs are clear") denies what its concept rules out, so its certainty is 0.

    Args:
        graph: whose concepts are read.
        linker: to use instead of a new one, which reads any language.
    """

    def __init__(self, graph: KnowledgeGraph, linker: EntityLinker | None = None) -> None:
        self.graph = graph
        self.linker = linker or EntityLinker(graph, language=None)
        silent = read_rules().unasserted_types
        kinds = {c.id: c.semantic_types[0] if c.semantic_types else "" for c in graph.concepts}
        self._silent = frozenset(i for i, kind in kinds.items() if kind in silent)
        self._normal = frozenset(i for i, kind in kinds.items() if kind == "normal")
        self._home: dict[str, frozenset[str]] = {}

    def __call__(self, text: str) -> frozenset[Fact]:
        """The facts of a text.

        Raises:
            DataError: not a string, or not in the linker's language.
        """
        return self.of_mentions(self.linker(text))

    def of_mentions(self, mentions: Iterable[Mention]) -> frozenset[Fact]:
        """The facts of what a linker found."""
        return frozenset(self._fact(m) for m in mentions if speaks(m) and m.concept not in self._silent)

    def _fact(self, mention: Mention) -> Fact:
        certainty = _certainty(mention)
        if mention.concept in self._normal:
            certainty = 1.0 - certainty
        level = _LEVELS.get(mention.severity, 0)
        places = frozenset(mention.location)
        return Fact(mention.concept, certainty, mention.side, level, places and places - self._home_of(mention.concept))

    def _home_of(self, concept: str) -> frozenset[str]:
        """The places in which the graph says that a finding, or what it is a kind of, lies, with what holds them."""
        if concept not in self._home:
            kinds = (concept, *self.graph.ancestors(concept))
            places = {r.tail for kind in kinds for r in self.graph.neighbours(kind, "located_in")}
            self._home[concept] = holders(self.graph, places)
        return self._home[concept]


def holders(graph: KnowledgeGraph, places: Iterable[str]) -> frozenset[str]:
    """Places, and all that they are part of, a side of or a kind of."""
    found, todo = set(places), list(places)
    while todo:
        here = todo.pop()
        fresh = {r.tail for kind in _HOLDS for r in graph.neighbours(here, kind)} - found
        found |= fresh
        todo += fresh
    return frozenset(found)


def _certainty(mention: Mention) -> float:
    if mention.assertion is Assertion.ABSENT:
        return 0.0
    if mention.assertion is Assertion.UNCERTAIN:
        return _CERTAINTY.get(mention.doubt, _POSSIBLE)
    return _POSSIBLE if mention.status == "hypothetical" else 1.0
