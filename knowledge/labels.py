"""Labels of a report: 1 present, 0 absent, -1 uncertain, NaN not mentioned (CheXpert's values).

A class is present if it or a kind of it is; it is absent if it or something of which it is a kind is; a normal
statement ("the lungs are clear") makes absent what the graph says it rules out. Present outweighs uncertain, uncertain
outweighs absent, over all sides and sentences. What stands in the indication or the comparison never labels, nor does
what is said of another time or person (history, family); a hypothesis is at most a doubt.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from kvlp.errors import ConfigError
from kvlp.knowledge.classes import load_classes
from kvlp.knowledge.linking import EntityLinker, Mention
from kvlp.knowledge.linking.assertion import DOUBTS
from kvlp.typing import ABSENT, NOT_MENTIONED, PRESENT, UNCERTAIN, Assertion

if TYPE_CHECKING:
    from kvlp.knowledge.graph import KnowledgeGraph

__all__ = ["SILENT_SECTIONS", "Classes", "LabelMap", "ReportLabeler", "Uncertain", "labels_from_mentions", "speaks"]

#: sections that speak of what was asked or known before, not of this image
SILENT_SECTIONS = frozenset({"indication", "comparison", "technique"})
#: a list by name or file, class names that are concepts, or class -> concepts
Classes: TypeAlias = str | Sequence[str] | Mapping[str, Sequence[str]]
#: what becomes of a doubt: kept as -1; 1; 0; NaN; or by its grade (probable, borderline and alternatives 1, others 0)
Uncertain: TypeAlias = Literal["keep", "ones", "zeros", "ignore", "graded"]

#: what is said of a class, by weight: nothing, absent, the doubts from weak to strong, present
_Said: TypeAlias = int
_NOTHING, _ABSENT, _FIRST_DOUBT, _PRESENT = 0, 1, 2, 2 + len(DOUBTS)
_STRONG_DOUBT = _FIRST_DOUBT + DOUBTS.index("alternative")
#: what a mention's status says of another time or person
_ELSEWHERE = frozenset({"historical", "family"})
_ABNORMAL = frozenset({"finding", "disease"})
_NO_FINDING = frozenset({"no finding", "no findings"})


def speaks(mention: Mention) -> bool:
    """Whether a mention speaks of this patient's image: not of what was asked or known before, nor of relatives."""
    return mention.section not in SILENT_SECTIONS and mention.status not in _ELSEWHERE


class LabelMap:
    """Labels of a fixed list of classes, for many reports.

    Args:
        graph: the graph of the mentions.
        classes: "nih14", "chexpert14" or a YAML file of that form; or a sequence of concept ids, source ids or
            surfaces; or class -> several of those. "No Finding" too, which is 1 if the report speaks of findings and
            none is present or uncertain.
        uncertain: what becomes of a doubt: "keep" (-1), "ones", "zeros", "ignore" (NaN), or "graded": 1 where it is
            probable, borderline or one of two alternatives ("atelectasis or scarring"), else 0.

    Raises:
        KnowledgeError: a class that the graph does not have; the message holds near names.
        ConfigError: another value of `uncertain`.
    """

    def __init__(self, graph: KnowledgeGraph, classes: Classes, *, uncertain: Uncertain = "keep") -> None:
        if uncertain not in get_args(Uncertain):
            raise ConfigError(f"uncertain is {uncertain!r}; expected one of {', '.join(get_args(Uncertain))}")
        meaning = _meaning(classes)
        self.classes = tuple(meaning)
        self.graph_hash = graph.content_hash
        self._values = _values(uncertain)
        self._no_finding = tuple(c for c in meaning if c.replace("_", " ").lower() in _NO_FINDING)
        self._abnormal = frozenset(c.id for c in graph.concepts if _ABNORMAL & set(c.semantic_types))
        self._normal = frozenset(c.id for c in graph.concepts if "normal" in c.semantic_types)
        self._up: dict[str, list[str]] = {}
        self._down: dict[str, list[str]] = {}
        for name in meaning:
            if name not in self._no_finding:
                self._add(graph, name, [graph.concept(key).id for key in meaning[name]])
        self._ruled_out = _ruled_out(graph, self._down)

    def _add(self, graph: KnowledgeGraph, name: str, concepts: Sequence[str]) -> None:
        for below in dict.fromkeys(i for c in concepts for i in (c, *sorted(graph.descendants(c)))):
            self._up.setdefault(below, []).append(name)
        for above in (concepts[0], *graph.ancestors(concepts[0])):
            self._down.setdefault(above, []).append(name)

    def __call__(self, mentions: Iterable[Mention]) -> dict[str, float]:
        """Label one report: class -> 1.0, 0.0, -1.0 or NaN."""
        best = dict.fromkeys(self.classes, _NOTHING)
        overall = _NOTHING
        for mention in mentions:
            if not speaks(mention):
                continue
            said = _weight(mention)
            for name, weight in self._says(mention, said):
                if weight > best[name]:
                    best[name] = weight
            overall = max(overall, self._abnormality(mention, said))
        for name in self._no_finding:
            best[name] = _opposite(overall)
        return {name: self._values[weight] for name, weight in best.items()}

    def evidence(self, name: str, mentions: Iterable[Mention]) -> list[tuple[Mention, Assertion]]:
        """What the mentions say of one class, in order: "clear lungs", present, says that an opacity is absent."""
        found = []
        for mention in mentions:
            if speaks(mention):
                says = [weight for said, weight in self._says(mention, _weight(mention)) if said == name]
                found += [(mention, _assertion(max(says)))] if says else []
        return found

    def _says(self, mention: Mention, said: _Said) -> Iterator[tuple[str, _Said]]:
        for name in (self._down if said == _ABSENT else self._up).get(mention.concept, ()):
            yield name, said
        if said == _PRESENT:
            for name in self._ruled_out.get(mention.concept, ()):
                yield name, _ABSENT

    def _abnormality(self, mention: Mention, said: _Said) -> _Said:
        if mention.concept in self._abnormal:
            return said
        return _ABSENT if mention.concept in self._normal and said == _PRESENT else _NOTHING


class ReportLabeler:
    """Labels of report texts: linker and label map in one.

    Args:
        graph: whose concepts are read.
        classes, uncertain: as in `LabelMap`.
        linker: to use instead of a new `EntityLinker(graph)`.

    Example:
        >>> ReportLabeler(graph, classes="nih14")("Small left effusion. No pneumothorax.")["Effusion"]
        1.0

    Raises:
        KnowledgeError: a class that the graph does not have.
    """

    def __init__(
        self,
        graph: KnowledgeGraph,
        classes: Classes = "chexpert14",
        *,
        uncertain: Uncertain = "keep",
        linker: EntityLinker | None = None,
    ) -> None:
        self.map = LabelMap(graph, classes, uncertain=uncertain)
        self.linker = linker or EntityLinker(graph)

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, in order."""
        return self.map.classes

    def __call__(self, text: str) -> dict[str, float]:
        """Label one report: class -> 1.0 present, 0.0 absent, -1.0 uncertain, NaN not mentioned."""
        return self.map(self.linker(text))

    def label_many(self, texts: Iterable[str]) -> Iterator[dict[str, float]]:
        """Label many reports, one after the other."""
        return (self(text) for text in texts)


def _meaning(classes: Classes) -> Mapping[str, Sequence[str]]:
    if isinstance(classes, str):
        return load_classes(classes).concepts
    if isinstance(classes, Mapping):
        return classes
    return {name: (name,) for name in classes}


def _values(uncertain: Uncertain) -> list[float]:
    """Weight of what is said -> label."""
    weak = {"keep": UNCERTAIN, "ones": PRESENT, "ignore": NOT_MENTIONED}.get(uncertain, ABSENT)
    strong = PRESENT if uncertain == "graded" else weak
    doubts = [strong if weight >= _STRONG_DOUBT else weak for weight in range(_FIRST_DOUBT, _PRESENT)]
    return [NOT_MENTIONED, ABSENT, *doubts, PRESENT]


def _weight(mention: Mention) -> _Said:
    if mention.assertion is Assertion.UNCERTAIN:
        return _FIRST_DOUBT + (DOUBTS.index(mention.doubt) if mention.doubt else DOUBTS.index("possible"))
    if mention.status == "hypothetical":
        return _FIRST_DOUBT
    return _PRESENT if mention.assertion is Assertion.PRESENT else _ABSENT


def _assertion(said: _Said) -> Assertion:
    return {_PRESENT: Assertion.PRESENT, _ABSENT: Assertion.ABSENT}.get(said, Assertion.UNCERTAIN)


def _opposite(said: _Said) -> _Said:
    """What findings as a whole say of "No Finding"."""
    if said in (_ABSENT, _PRESENT):
        return _PRESENT if said == _ABSENT else _ABSENT
    return said and _FIRST_DOUBT + DOUBTS.index("possible")


def _ruled_out(graph: KnowledgeGraph, down: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Normal statement -> classes that it makes absent."""
    found: dict[str, set[str]] = {}
    for relation in graph.relations:
        if relation.type == "rules_out":
            found.setdefault(relation.head, set()).update(down.get(relation.tail, ()))
    return {head: sorted(names) for head, names in found.items()}


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
