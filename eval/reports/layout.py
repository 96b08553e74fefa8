"""A report as sentences between which text stands that is left alone: headers, numbers, white space."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from kvlp.knowledge.labels import SILENT_SECTIONS
from kvlp.knowledge.sections import split_sections, split_sentences

__all__ = ["Layout", "ended"]

_NUMBER = re.compile(r"\(?\d{1,2}[.)]\s+")
_LAST_NUMBER = re.compile(r"\(?\d{1,2}[.)]\s*\Z")


@dataclass(frozen=True)
class Layout:
    """A report taken apart; `gaps[0] + sentences[0] + gaps[1] + ...` is the report again.

    Attributes:
        sentences: in order, without the number that an item of a list may have.
        sections: the section of each sentence.
        gaps: what stands before, between and behind them, one more than there are sentences.
    """

    sentences: tuple[str, ...]
    sections: tuple[str, ...]
    gaps: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> Layout:
        """Take a report apart."""
        spans = [
            (start + (number.end() if (number := _NUMBER.match(text[start:end])) else 0), end, section.name)
            for section in split_sections(text)
            for start, end in split_sentences(text, section.start, section.end)
        ]
        spans = [s for s in spans if s[0] < s[1]]
        edges = [0, *(edge for start, end, _ in spans for edge in (start, end)), len(text)]
        gaps = tuple(text[edges[i] : edges[i + 1]] for i in range(0, len(edges), 2))
        return cls(tuple(text[s:e] for s, e, _ in spans), tuple(name for *_, name in spans), gaps)

    @property
    def text(self) -> str:
        """The report."""
        pieces = [piece for pair in zip(self.gaps, (*self.sentences, ""), strict=True) for piece in pair]
        return "".join(pieces)

    def told(self) -> Iterator[tuple[int, str]]:
        """The sentences that speak of this image, with their numbers."""
        return ((n, s) for n, s in enumerate(self.sentences) if self.sections[n] not in SILENT_SECTIONS)

    def with_sentence(self, number: int, sentence: str) -> Layout:
        """The report with another sentence at a place."""
        return replace(self, sentences=(*self.sentences[:number], sentence, *self.sentences[number + 1 :]))

    def without(self, numbers: Collection[int]) -> Layout:
        """The report without some of its sentences, nor their numbers."""
        gaps = [_LAST_NUMBER.sub("", gap) if n in numbers else gap for n, gap in enumerate(self.gaps)]
        sentences = ["" if n in numbers else s for n, s in enumerate(self.sentences)]
        return replace(self, sentences=tuple(sentences), gaps=tuple(gaps))


def ended(sentence: str) -> str:
    """A sentence with a full stop, where it has no sign at its end: another one may follow."""
    return sentence if sentence.endswith((".", "!", "?", ":", ";")) else f"{sentence}."
