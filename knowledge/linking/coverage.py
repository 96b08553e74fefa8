"""How much of a collection of reports a graph and the rules cover, and what they miss most often.

A phrase that nothing covers is shown only if it stands in several different texts: a rare one may name a person. Words
with a capital in the middle of a sentence are left out for the same reason, and so is whatever holds a digit. Copies of
one text count once. Look through the phrases before you pass them on: a name can be frequent, too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kvlp.errors import ConfigError, KvlpError
from kvlp.knowledge.sections import split_sections, split_sentences

if TYPE_CHECKING:
    from kvlp.knowledge.linking.linker import EntityLinker
    from kvlp.knowledge.linking.mention import Mention

__all__ = ["LEAST_TEXTS", "AmbiguousSurface", "Coverage", "Phrase", "coverage_of"]

#: a phrase that stands in fewer different texts is never shown
LEAST_TEXTS = 5
_LONGEST = 4
#: beyond this many phrases those seen once so far are forgotten, so that memory stays bounded (some 300 MB)
_MOST_PHRASES = 2_000_000
_TOKEN = re.compile(r"[^\W_]+(?:[-'/][^\W_]+)*")
_NO_PHRASE = frozenset(
    ("the", "a", "an", "this", "that", "these", "those", "there", "it", "its", "they", "of", "in", "on", "at", "to",
     "for", "from", "by", "with", "within", "into", "over", "under", "above", "below", "near", "along", "through",
     "between", "behind", "about", "than", "as", "and", "or", "but", "nor", "is", "are", "was", "were", "be", "been",
     "has", "have", "had", "do", "does", "not", "no", "also", "when", "which", "who", "if", "since", "per", "via")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words that no surface and no rule covers, in lower case, and in how many different texts they stand."""

    words: str
    texts: int


@dataclass(frozen=True, slots=True)
class AmbiguousSurface:
    """A surface with several meanings.

    Attributes:
        surface: normalised.
        count: how often it stands in the texts.
        chosen: concept id -> how often it was taken for that; "" for nothing that the graph has.
        undecided: how often nothing decided.
    """

    surface: str
    count: int
    chosen: dict[str, int]
    undecided: int


@dataclass(frozen=True, slots=True)
class Coverage:
    """What `coverage_of` found.

    Attributes:
        texts: how many texts were read, those with problems and empty ones not counted.
        empty: texts without a word.
        with_concept: texts with at least one mention.
        sentences: sentences in the texts that were read.
        without_concept: sentences without a mention.
        least_texts: in how many different texts a phrase had to stand to be shown.
        phrases: most frequent first; a part of a longer phrase that is as frequent is left out.
        ambiguous: most frequent first.
        problems: (number of the text from 1, why it was not read); never holds report text.
    """

    texts: int
    empty: int
    with_concept: int
    sentences: int
    without_concept: int
    least_texts: int
    phrases: tuple[Phrase, ...]
    ambiguous: tuple[AmbiguousSurface, ...]
    problems: tuple[tuple[int, str], ...]

    @property
    def share(self) -> float:
        """Share of texts with a concept; NaN without texts."""
        return self.with_concept / self.texts if self.texts else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        problems = [{"row": row, "message": message} for row, message in self.problems]
        return {**asdict(self), "share": self.share if self.texts else None, "problems": problems}


def coverage_of(
    linker: EntityLinker,
    texts: Sequence[str],
    *,
    least_texts: int = LEAST_TEXTS,
    most: int = 50,
    progress: Callable[[int, int], None] | None = None,
) -> Coverage:
    """Read texts and count what is found and what is missed.

    Args:
        linker: what reads them.
        texts: reports.
        least_texts: in how many different texts a phrase must stand to be shown; at least 5.
        most: how many phrases and ambiguous surfaces are shown.
        progress: receives texts done and texts in all.

    Raises:
        ConfigError: `least_texts` below 5, or `most` below 0.
    """
    if least_texts < LEAST_TEXTS:
        raise ConfigError(
            f"least_texts: expected {LEAST_TEXTS} or more (a rare phrase may be a name), got {least_texts}"
        )
    if most < 0:
        raise ConfigError(f"most: expected 0 or more, got {most}")
    counts = _Counts(linker)
    for number, text in enumerate(texts, 1):
        counts.add(number, text)
        if progress is not None:
            progress(number, len(texts))
    return counts.result(least_texts, most)


class _Counts:
    """Counts over texts read so far."""

    def __init__(self, linker: EntityLinker) -> None:
        self._linker = linker
        self._n: Counter[str] = Counter()
        self._phrases: Counter[str] = Counter()
        self._seen: set[int] = set()
        self._chosen: dict[str, Counter[str]] = {}
        self._undecided: Counter[str] = Counter()
        self._problems: list[tuple[int, str]] = []

    def add(self, number: int, text: str) -> None:
        """Read one more text."""
        if not text.strip():
            self._n["empty"] += 1
            return
        try:
            mentions = self._linker(text)
        except KvlpError as error:
            self._problems.append((number, str(error)))
            return
        covered = self._linker.covered(text)
        self._n["texts"] += 1
        self._n["with_concept"] += bool(mentions)
        sentences = [s for part in split_sections(text) for s in split_sentences(text, part.start, part.end)]
        self._n["sentences"] += len(sentences)
        self._n["without_concept"] += _without(sentences, mentions)
        self._count_ambiguous(text, covered, mentions)
        self._count_phrases(text, sentences, sorted([*covered, *((m.start, m.end) for m in mentions)]))

    def _count_ambiguous(self, text: str, covered: Sequence[tuple[int, int]], mentions: Sequence[Mention]) -> None:
        said = {(m.start, m.end): m for m in mentions}
        for span in set(covered):
            surface = text[slice(*span)].lower()
            if surface in self._linker.senses:
                mention = said.get(span)
                chosen = mention.concept if mention else ""
                self._chosen.setdefault(surface, Counter())[chosen] += 1
                self._undecided[surface] += mention is not None and mention.score < 0.9

    def _count_phrases(self, text: str, sentences: Sequence[tuple[int, int]], covered: list[tuple[int, int]]) -> None:
        key = hash(" ".join(text.lower().split()))
        if key in self._seen:
            return
        self._seen.add(key)
        self._phrases.update({p for run in _runs(text, sentences, covered) for p in _parts(run)})
        if len(self._phrases) > _MOST_PHRASES:
            self._phrases = Counter({p: n for p, n in self._phrases.items() if n > 1})

    def result(self, least_texts: int, most: int) -> Coverage:
        """What was counted."""
        n = self._n
        surfaces = sorted(self._chosen, key=lambda s: (-self._chosen[s].total(), s))[:most]
        ambiguous = [
            AmbiguousSurface(s, self._chosen[s].total(), dict(self._chosen[s].most_common()), self._undecided[s])
            for s in surfaces
        ]
        return Coverage(
            texts=n["texts"],
            empty=n["empty"],
            with_concept=n["with_concept"],
            sentences=n["sentences"],
            without_concept=n["without_concept"],
            least_texts=least_texts,
            phrases=tuple(_frequent(self._phrases, least_texts)[:most]),
            ambiguous=tuple(ambiguous),
            problems=tuple(self._problems),
        )


def _without(sentences: Sequence[tuple[int, int]], mentions: Sequence[Mention]) -> int:
    """Sentences in which no mention starts; both are in order."""
    starts = sorted(m.start for m in mentions)
    count = at = 0
    for start, end in sentences:
        while at < len(starts) and starts[at] < start:
            at += 1
        count += not (at < len(starts) and starts[at] < end)
    return count


def _runs(text: str, sentences: Sequence[tuple[int, int]], covered: Sequence[tuple[int, int]]) -> Iterator[list[str]]:
    """Words in a row that nothing covers, without function words, names and numbers between them."""
    at = 0
    for first, stop in sentences:
        run: list[str] = []
        last = first
        for match in _TOKEN.finditer(text, first, stop):
            start, end = match.span()
            while at < len(covered) and covered[at][1] <= start:
                at += 1
            apart = bool(text[last:start].strip())
            ends = (at < len(covered) and covered[at][0] < end) or not _may_be_shown(match[0], opens=start == first)
            if (apart or ends) and run:
                yield run
                run = []
            if not ends:
                run.append(match[0].lower())
            last = end
        if run:
            yield run


def _may_be_shown(word: str, *, opens: bool) -> bool:
    named = word[0].isupper() and not word.isupper() and not opens
    masked = set(word.lower()) == {"x"}
    return not (named or masked or word.lower() in _NO_PHRASE or any(c.isdigit() for c in word))


def _parts(run: Sequence[str]) -> Iterator[str]:
    for size in range(1, min(_LONGEST, len(run)) + 1):
        for start in range(len(run) - size + 1):
            phrase = " ".join(run[start : start + size])
            if len(phrase) > 2:
                yield phrase


def _frequent(counts: Counter[str], least: int) -> list[Phrase]:
    """The frequent ones, without those that almost always stand in one longer phrase that is shown, too."""
    frequent = {p: n for p, n in counts.items() if n >= least}
    inside: dict[str, int] = {}
    for phrase, n in frequent.items():
        words = phrase.split(" ")
        for part in (words[1:], words[:-1]) if len(words) > 1 else ():
            name = " ".join(part)
            inside[name] = max(inside.get(name, 0), n)
    kept = [Phrase(p, n) for p, n in frequent.items() if inside.get(p, 0) < 0.9 * n]
    return sorted(kept, key=lambda p: (-p.texts, p.words))
