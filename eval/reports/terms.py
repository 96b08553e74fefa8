"""Names of findings in a sentence, looked up word by word: how the planter sees a text, without the linker.

Errors that test a reader must not be placed by that reader: it would only be asked about what it reads well. So this
knows a graph's names and a short list of words, and no rules of negation, scope or attributes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from kvlp.knowledge.surfaces import fold

if TYPE_CHECKING:
    from kvlp.knowledge.graph import KnowledgeGraph

__all__ = ["CUES", "Term", "Terms", "is_plural", "with_article"]

_KINDS = frozenset({"finding", "disease", "device"})
_LONGEST = 6
#: parts of names that are no nouns by themselves, or that say more than the finding
_SAYS_MORE = re.compile(
    r"\b(?:of|in|\w+ed|\w*focal|bi\w+|lobar|acute|chronic|old|new|small|large|increased|lower|upper|left|right|"
    r"basilar|basal|apical|discoid|linear|plate-?like|subsegmental|segmental|mild|severe|early|prominent|overt|interval)\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"[A-Za-z0-9]+(?:[-/'][A-Za-z0-9]+)*")
#: words that deny, doubt or speak of another time: a sentence with one of them is never taken as a plain claim
CUES = re.compile(
    r"\b(?:no|not|non|without|free|clear|absent|absence|negative|none|nor|neither|never|normal|unremarkable|within|"
    r"limits|resolved|resolution|removed|removal|cleared|may|might|could|can|cannot|possible|possibly|probable|probably|"
    r"likely|unlikely|suggest\w*|suspicious|suspected|suspicion|concern\w*|question\w*|versus|vs|or|if|evaluate|exclude\w*|"
    r"rule|borderline|perhaps|appear\w*|favor\w*|history|prior|previous\w*|compared|again|represent\w*|consistent|"
    r"compatible|correlate|recommend\w*|should|rather|less|than|but|XXXX|denies|status|post|apparent\w*|presum\w*|"
    r"equivocal|potential\w*|differential|clinical\w*|indeterminate|lack\w*|doubt\w*|though|although)\b",
    re.IGNORECASE,
)


class Term(NamedTuple):
    """A finding's name in a text: concept, first character, one past the last."""

    concept: str
    start: int
    end: int


class Terms:
    """The names of a graph's findings, diseases and devices.

    Args:
        graph: whose names are looked for; names of less than four letters, or of two concepts, are left out.
    """

    def __init__(self, graph: KnowledgeGraph) -> None:
        self._graph = graph
        owners: dict[str, set[str]] = {}
        for concept in graph.concepts:
            for surface in concept.surfaces:
                owners.setdefault(fold(surface), set()).add(concept.id)
        self.names: Mapping[str, str] = {
            name: concept
            for name, ids in owners.items()
            for concept in ids
            if len(ids) == 1 and len(name) >= 4 and not _KINDS.isdisjoint(graph[concept].semantic_types[:1])
        }
        self._first = frozenset(name.split()[0] for name in self.names)
        self._spelt = {c.id: [s for s in c.surfaces if fold(s) in self.names] for c in graph.concepts}

    def find(self, text: str) -> list[Term]:
        """Every name in a text, the longest at each place, in order."""
        words = [m.span() for m in _WORD.finditer(text)]
        found, at = [], 0
        while at < len(words):
            term = next(self._at(text, words, at), None)
            if term is None:
                at += 1
                continue
            found.append(term)
            while at < len(words) and words[at][0] < term.end:
                at += 1
        return found

    def others(self, concept: str, name: str) -> list[str]:
        """Other names of a concept that may take the place of `name`: nouns of the same number that say no more."""
        if _SAYS_MORE.search(name):
            return []
        return [
            s
            for s in self._spelt[concept]
            if s.islower() and fold(s) != fold(name) and is_plural(s) == is_plural(name) and not _SAYS_MORE.search(s)
        ]

    def count(self, concept: str, name: str) -> bool:
        """Whether `name` takes an article: it is the concept's own name, which is counted."""
        own = self._graph[concept]
        return fold(own.name) == fold(name) and own.number == "count"

    def _at(self, text: str, words: list[tuple[int, int]], at: int) -> Iterator[Term]:
        if fold(text[slice(*words[at])]).split()[0] not in self._first:
            return
        for last in range(min(len(words), at + _LONGEST) - 1, at - 1, -1):
            start, end = words[at][0], words[last][1]
            if not re.search(r"[.,;:()]", text[start:end]) and (concept := self.names.get(fold(text[start:end]))):
                yield Term(concept, start, end)


def with_article(phrase: str) -> str:
    """ "an effusion", "a pneumothorax"."""
    return f"{'an' if phrase[:1].lower() in 'aeiou' else 'a'} {phrase}"


def is_plural(name: str) -> bool:
    """Whether a name's last word is a plural, by its ending."""
    last = name.split()[-1].lower()
    return last.endswith("s") and not last.endswith(("ss", "is", "us", "pectus"))
