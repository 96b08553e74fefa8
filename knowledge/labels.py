"""Labels of a report from its mentions: 1 present, 0 absent, -1 uncertain, NaN not mentioned (CheXpert's values).

A class is present if it or a kind of it is; it is absent if it or something of which it is a kind is; a normal
statement ("the lungs are clear") makes absent what the graph says it rules out. Present outweighs uncertain, uncertain
outweighs absent. What stands in the indication or the comparison never labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from kvlp.knowledge.linking import Mention
from kvlp.typing import Assertion, label_of

if TYPE_CHECKING:
    from kvlp.knowledge.graph import KnowledgeGraph

__all__ = ["SILENT_SECTIONS", "LabelMap", "labels_from_mentions"]

#: sections that speak of what was asked or known before, not of this image
SILENT_SECTIONS = frozenset({"indication", "comparison", "technique"})
_RANK = {None: 0, Assertion.ABSENT: 1, Assertion.UNCERTAIN: 2, Assertion.PRESENT: 3}
_ABNORMAL = frozenset({"finding", "disease"})
_NO_FINDING = frozenset({"no finding", "no findings"})


class LabelMap:
    """Labels of a fixed list of classes, for many reports.

    Args:
        graph: the graph of the mentions.
        classes: concept ids, source ids or surfaces; "No Finding" too, which is 1 if the report speaks of findings
            and none is present or uncertain.

    Raises:
        KnowledgeError: a class that the graph does not have; the message holds near names.
    """

    def __init__(self, graph: KnowledgeGraph, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self._no_finding = tuple(c for c in self.classes if c.replace("_", " ").lower() in _NO_FINDING)
        ids = {c: graph.concept(c).id for c in self.classes if c not in self._no_finding}
        self._abnormal = frozenset(c.id for c in graph.concepts if _ABNORMAL & set(c.semantic_types))
        self._normal = frozenset(c.id for c in graph.concepts if "normal" in c.semantic_types)
        self._up: dict[str, list[str]] = {}
        self._down: dict[str, list[str]] = {}
        for name, concept in ids.items():
            for below in {concept} | graph.descendants(concept):
                self._up.setdefault(below, []).append(name)
            for above in {concept} | graph.ancestors(concept):
                self._down.setdefault(above, []).append(name)
        self._ruled_out = {
            c.id: sorted({n for r in graph.neighbours(c.id, "rules_out") for n in self._down.get(r.tail, ())})
            for c in graph.concepts
            if graph.neighbours(c.id, "rules_out")
        }

    def __call__(self, mentions: Iterable[Mention]) -> dict[str, float]:
        """Label one report."""
        best: dict[str, Assertion | None] = dict.fromkeys(self.classes)
        overall: Assertion | None = None
        for mention in mentions:
            if mention.section in SILENT_SECTIONS:
                continue
            for name, assertion in self._says(mention):
                if _RANK[assertion] > _RANK[best[name]]:
                    best[name] = assertion
            overall = max(overall, self._abnormality(mention), key=_RANK.__getitem__)
        labels = {name: label_of(assertion) for name, assertion in best.items()}
        for name in self._no_finding:
            labels[name] = label_of(_OPPOSITE[overall])
        return labels

    def _says(self, mention: Mention) -> Iterable[tuple[str, Assertion]]:
        places = self._down if mention.assertion is Assertion.ABSENT else self._up
        for name in places.get(mention.concept, ()):
            yield name, mention.assertion
        if mention.assertion is Assertion.PRESENT:
            for name in self._ruled_out.get(mention.concept, ()):
                yield name, Assertion.ABSENT

    def _abnormality(self, mention: Mention) -> Assertion | None:
        if mention.concept in self._abnormal:
            return mention.assertion
        return Assertion.ABSENT if mention.concept in self._normal and mention.assertion is Assertion.PRESENT else None


_OPPOSITE = {
    None: None,
    Assertion.ABSENT: Assertion.PRESENT,
    Assertion.UNCERTAIN: Assertion.UNCERTAIN,
    Assertion.PRESENT: Assertion.ABSENT,
}


@lru_cache(maxsize=16)
def _map(graph: KnowledgeGraph, classes: tuple[str, ...]) -> LabelMap:
    return LabelMap(graph, classes)


def labels_from_mentions(
    mentions: Iterable[Mention], classes: Sequence[str], graph: KnowledgeGraph
) -> dict[str, float]:
    """Label a report: class -> 1.0 present, 0.0 absent, -1.0 uncertain, NaN not mentioned.

    Args:
        mentions: of one report, as EntityLinker gives them.
        classes: concept ids of the graph (source ids, surfaces and "No Finding" too).
        graph: the graph of the mentions.

    Raises:
        KnowledgeError: a class that the graph does not have.
    """
    return _map(graph, tuple(classes))(mentions)
