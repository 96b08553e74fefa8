"""How much of a fact another one gets right: a product of five similarities, each 1 minus a distance.

Every factor's distance is a metric bounded by 1, and then so is that of the product: a detour over a third fact never
gets more. That is why taking out equal facts first costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvlp.eval.reports.facts import Fact, holders

if TYPE_CHECKING:
    from kvlp.knowledge.graph import KnowledgeGraph

__all__ = ["Credit"]

_UNSAID = 0.25  # distance between saying a thing and leaving it open
_WRONG = 0.5  # and between saying it and saying another: never more than twice the former


class Credit:
    """Partial credit between facts, from 0 (nothing in common, or the opposite) to 1 (the same).

    =========  =================================================================================================
    concept    1 the same; 1 / (1 + steps) where one is a kind of the other, or a normal statement rules it out; else 0
    certainty  1 - |difference|: stated against denied is 0
    side       1 the same; 0.75 if one leaves it open or is bilateral; 0.5 left against right
    severity   1 the same; 0.75 if one leaves it open; else 1 - steps / 6
    location   1 the same; 0.75 if one leaves it open; else 1 - 0.5 * share of places (and their holders) not shared
    =========  =================================================================================================

    Args:
        graph: its is_a, rules_out, part_of and side_of relations say what is near.
    """

    def __init__(self, graph: KnowledgeGraph) -> None:
        self._graph = graph
        self._up: dict[str, dict[str, int]] = {}
        self._held: dict[frozenset[str], frozenset[str]] = {}

    def __call__(self, a: Fact, b: Fact) -> float:
        """Credit of one fact for the other; symmetric."""
        sure = 1.0 - abs(a.certainty - b.certainty)
        if not sure:
            return 0.0
        near = self._concept(a.concept, b.concept)
        if not near:
            return 0.0
        return sure * near * _side(a.side, b.side) * _severity(a.severity, b.severity) * self._place(a, b)

    def _concept(self, a: str, b: str) -> float:
        if a == b:
            return 1.0
        ways = [self._above(a).get(b), self._above(b).get(a), self._ruled_out(a, b), self._ruled_out(b, a)]
        steps = [w for w in ways if w is not None]
        return 1.0 / (1 + min(steps)) if steps else 0.0

    def _above(self, concept: str) -> dict[str, int]:
        """What the concept is a kind of -> steps up to it."""
        if concept not in self._up:
            found: dict[str, int] = {}
            todo, steps = [concept], 0
            while todo:
                steps += 1
                todo = [p for c in todo for p in self._graph.parents(c) if p not in found and p != concept]
                found.update(dict.fromkeys(todo, steps))
            self._up[concept] = found
        return self._up[concept]

    def _ruled_out(self, normal: str, concept: str) -> int | None:
        above = {concept: 0, **self._above(concept)}
        tails = [r.tail for r in self._graph.neighbours(normal, "rules_out")]
        return min((1 + above[t] for t in tails if t in above), default=None)

    def _place(self, a: Fact, b: Fact) -> float:
        if a.location == b.location:
            return 1.0
        if not a.location or not b.location:
            return 1.0 - _UNSAID
        one, other = self._holding(a.location), self._holding(b.location)
        return 1.0 - _WRONG * (1.0 - len(one & other) / len(one | other))

    def _holding(self, places: frozenset[str]) -> frozenset[str]:
        if places not in self._held:
            self._held[places] = holders(self._graph, places)
        return self._held[places]


def _side(a: str, b: str) -> float:
    if a == b:
        return 1.0
    return 1.0 - (_WRONG if {a, b} == {"left", "right"} else _UNSAID)


def _severity(a: int, b: int) -> float:
    if a == b:
        return 1.0
    return 1.0 - (_WRONG * abs(a - b) / 3 if a and b else _UNSAID)
