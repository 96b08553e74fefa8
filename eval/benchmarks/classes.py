"""The classes of a benchmark in the words of the graph, and its labels under those words."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kvlp.datasets.manifest import Manifest, Record
from kvlp.eval.benchmarks.cards import Card
from kvlp.typing import ABSENT, PRESENT, UNCERTAIN

if TYPE_CHECKING:
    from kvlp.knowledge.graph import KnowledgeGraph

__all__ = ["BenchmarkClasses", "relabelled"]

#: what is asked as such and is no concept
_WHOLE = ("no finding",)


@dataclass(frozen=True)
class BenchmarkClasses:
    """How a benchmark's labels are asked.

    Attributes:
        words: the graph's name (or the card's words) -> the labels that it stands for, more than one where the graph
            has one concept for them.
        outside: words that the graph does not know; they are asked by themselves, without synonyms.
    """

    words: dict[str, tuple[str, ...]]
    outside: tuple[str, ...]

    @classmethod
    def of(cls, card: Card, graph: KnowledgeGraph | None) -> BenchmarkClasses:
        """Bring a card's classes together by concept, in the card's order."""
        members: dict[str, list[str]] = {}
        known = set()
        for label, words in card.classes.items():
            concept = graph.get(words) if graph is not None and words.lower() not in _WHOLE else None
            asked = concept.name if concept is not None else words
            members.setdefault(asked, []).append(label)
            known |= {asked} if concept is not None or words.lower() in _WHOLE else set()
        outside = tuple(words for words in members if graph is not None and words not in known)
        return cls({words: tuple(labels) for words, labels in members.items()}, outside)

    def groups(self, card: Card) -> dict[str, list[str]]:
        """Groups whose mean is given: the card's and the others, or in the graph and not; every class is in one."""
        word_of = {label: words for words, labels in self.words.items() for label in labels}
        named = {g: list(dict.fromkeys(word_of[m] for m in members)) for g, members in card.groups.items()}
        if self.outside:
            named["in the graph"] = [words for words in self.words if words not in self.outside]
            named["not in the graph"] = list(self.outside)
        elif named:
            rest = [words for words in self.words if not any(words in members for members in named.values())]
            named |= {"the others": rest} if rest else {}
        return named

    def asked(self, card: Card, held: Collection[str]) -> dict[str, list[str]] | list[str]:
        """What `evaluate` takes: groups of classes, or the classes; of those for which there are labels."""
        groups = {group: [w for w in words if w in held] for group, words in self.groups(card).items()}
        return {group: words for group, words in groups.items() if words} or [w for w in self.words if w in held]


def relabelled(manifest: Manifest, classes: BenchmarkClasses, card: Card) -> tuple[Manifest, list[str]]:
    """The manifest with its labels under the classes' words, and the labels that the card does not know.

    Where the card says so, a class that a labelled image does not name becomes absent.
    """
    known = {label for labels in classes.words.values() for label in labels} | {"No Finding"} | set(card.not_asked)
    stray = sorted({label for record in manifest for label in record.labels} - known)
    records = [replace(r, labels=_labels(r, classes, fill=card.missing == "absent")) for r in manifest]
    return Manifest(records, manifest.root), stray


def _labels(record: Record, classes: BenchmarkClasses, *, fill: bool) -> dict[str, float]:
    found = {
        words: value
        for words, labels in classes.words.items()
        if not math.isnan(value := _merged(record.labels.get(label, math.nan) for label in labels))
    }
    empty = dict.fromkeys(classes.words, ABSENT) if fill and record.labels else {}
    return {**empty, **found}


def _merged(values: Iterable[float]) -> float:
    """One value of several labels of one concept: present if one is, else uncertain if one is, else absent."""
    held: Sequence[float] = [value for value in values if not math.isnan(value)]
    return next((value for value in (PRESENT, UNCERTAIN, ABSENT) if value in held), math.nan)
