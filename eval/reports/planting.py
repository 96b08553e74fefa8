"""One error put into a report: a negation flipped, a side swapped, a severity changed, a finding left out or added.

Each edit is real by the words alone, and no linker is asked (see `terms.py`):

==========  ===========================================================================================================
negation    a sentence that is one of a few closed forms of denial ("No A, B or C.", "There is no A.", "Heart size is
            normal.") or of claim ("There is A in the left base.", without any word of doubt or denial) is put into the
            opposite form
side        the only "left" or "right" of a plain claim is swapped
severity    the word of degree right before a finding becomes one from the other end of the scale
omission    every sentence that names a finding is taken out; no name of it is left in the report
insertion   a finding is claimed of which no name or telling word stands in the report
==========  ===========================================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kvlp.eval.reports.error_words import (
    ADDED,
    CLAIM,
    DEGREE,
    DEGREES,
    DENIAL,
    ENLARGED,
    FIXED_SIDE,
    HEART,
    ITEM,
    OPENS,
    OTHER,
    SIDE,
)
from kvlp.eval.reports.layout import Layout, ended
from kvlp.eval.reports.terms import CUES, Term, Terms, is_plural, with_article

if TYPE_CHECKING:
    from kvlp.knowledge.graph import KnowledgeGraph

__all__ = ["ERRORS", "Planted", "Planter"]

#: kinds of error, in the order in which tables list them
ERRORS = ("negation", "side", "severity", "omission", "insertion")


@dataclass(frozen=True, slots=True)
class Planted:
    """A report with one error.

    Attributes:
        text: the report.
        kind: one of ERRORS.
        sentence: number of the sentence that was touched first, from 0 (of those that `Layout` finds).
    """

    text: str
    kind: str
    sentence: int


class Planter:
    """Plants errors.

    Args:
        graph: whose names of findings are looked for.

    Example:
        >>> Planter(graph).plant("No pneumothorax or effusion.", "negation", np.random.default_rng(0))
        Planted(text='There is a pneumothorax. No effusion.', kind='negation', sentence=0)
    """

    def __init__(self, graph: KnowledgeGraph) -> None:
        self.terms = Terms(graph)
        self._ways: dict[str, Callable[[Layout], Iterator[tuple[int, Layout]]]] = {
            "negation": self._negations,
            "side": self._sides,
            "severity": self._severities,
            "omission": self._omissions,
            "insertion": self._insertions,
        }

    def plant(self, text: str, kind: str, rng: np.random.Generator) -> Planted | None:
        """Put one error of a kind into a report, chosen among all that are possible; None where none is."""
        options = list(self._ways[kind](Layout.of(text)))
        if not options:
            return None
        number, layout = options[int(rng.integers(len(options)))]
        return Planted(layout.text, kind, number)

    def _negations(self, layout: Layout) -> Iterator[tuple[int, Layout]]:
        for n, sentence in layout.told():
            for new in (*self._claimed(sentence), *self._denied(sentence), *_heart(sentence)):
                yield n, layout.with_sentence(n, new)

    def _claimed(self, sentence: str) -> Iterator[str]:
        """ "No A or B." -> "There is A. No B." """
        match = DENIAL.fullmatch(sentence)
        if match is None:
            return
        items = ITEM.split(match["items"])
        found = [self._whole(item) for item in items]
        if not all(found):
            return
        for n, item in enumerate(filter(None, found)):
            rest = [*items[:n], *items[n + 1 :]]
            left = f" {match['lead']} {_listed(rest)}{match['tail']}." if rest else ""
            yield f"There {_be(item)} {item}.{left}"

    def _whole(self, item: str) -> str | None:
        """An item of a list of denials that is nothing but a finding, as one says that it is there."""
        bare = OPENS.sub("", item)
        terms = self.terms.find(bare)
        if len(terms) != 1 or bare != bare[terms[0].start : terms[0].end]:
            return None
        return with_article(bare) if self.terms.count(terms[0].concept, bare) else bare

    def _denied(self, sentence: str) -> Iterator[str]:
        """ "There is mild A in the left base." -> "There is no A in the left base." """
        term = self._only(sentence)
        if term is None:
            return
        match = re.fullmatch(_at(CLAIM, sentence, term), sentence)
        if match is not None:
            words = _lowered(sentence, term)
            yield f"There {_be(words)} no {words}{match['place']}."

    def _sides(self, layout: Layout) -> Iterator[tuple[int, Layout]]:
        for n, sentence in layout.told():
            sides = list(SIDE.finditer(sentence))
            if len(sides) == 1 and self._claims(sentence) and not FIXED_SIDE.search(sentence):
                word = sides[0]
                yield n, layout.with_sentence(n, _put(sentence, word, OTHER[word[0].lower()]))

    def _severities(self, layout: Layout) -> Iterator[tuple[int, Layout]]:
        for n, sentence in layout.told():
            if CUES.search(sentence):
                continue
            words = [m for t in self.terms.find(sentence) if (m := DEGREE.search(sentence[: t.start]))]
            for word in words or list(ENLARGED.finditer(sentence)):
                degree = DEGREES[word[1].lower()]
                new = sentence[: word.start(1)] + _cased(degree, word[1]) + sentence[word.end(1) :]
                yield n, layout.with_sentence(n, new)

    def _omissions(self, layout: Layout) -> Iterator[tuple[int, Layout]]:
        told = list(layout.told())
        named = {n: {t.concept for t in self.terms.find(s)} for n, s in enumerate(layout.sentences)}
        first: dict[str, int] = {}
        for n, sentence in told:
            if self._claims(sentence):
                for concept in named[n]:
                    first.setdefault(concept, n)
        for concept, n in first.items():
            gone = [m for m, concepts in named.items() if concept in concepts]
            if len(gone) < len(told):
                yield n, layout.without(gone)

    def _insertions(self, layout: Layout) -> Iterator[tuple[int, Layout]]:
        told = [n for n, _ in layout.told()]
        for sentence, words in ADDED.items():
            if told and not re.search(words, layout.text, re.IGNORECASE):
                first = layout.sentences[told[0]]
                yield told[0], layout.with_sentence(told[0], f"{ended(first)} {sentence}")

    def _claims(self, sentence: str) -> bool:
        """Whether a sentence names a finding, with no word of doubt or denial in it."""
        return not CUES.search(sentence) and bool(self.terms.find(sentence))

    def _only(self, sentence: str) -> Term | None:
        terms = [] if CUES.search(sentence) else self.terms.find(sentence)
        return terms[0] if len(terms) == 1 else None


def _heart(sentence: str) -> Iterator[str]:
    match = HEART.fullmatch(sentence)
    if match is not None:
        yield f"{match['subject']} {match['verb']} {'normal' if 'enlarged' in match['what'].lower() else 'enlarged'}."


def _at(pattern: re.Pattern[str], sentence: str, term: Term) -> str:
    """The pattern with a finding's own words where it has an @."""
    words = re.escape(sentence[term.start : term.end])
    return "(?i)" + pattern.pattern.replace("@", words)


def _lowered(sentence: str, term: Term) -> str:
    words = sentence[term.start : term.end]
    return words[0].lower() + words[1:] if term.start == 0 and not words[:2].isupper() else words


def _be(name: str) -> str:
    return "are" if is_plural(name) else "is"


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} or {items[-1]}"


def _put(sentence: str, match: re.Match[str], word: str) -> str:
    return sentence[: match.start()] + _cased(word, match[0]) + sentence[match.end() :]


def _cased(word: str, like: str) -> str:
    return word.capitalize() if like[:1].isupper() else word
