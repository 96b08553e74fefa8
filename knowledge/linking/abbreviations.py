"""Abbreviations that a text defines: "chronic obstructive pulmonary disease (COPD)", "ETT (endotracheal tube)".

What a text defines outranks what the graph knows: where it says "pectus excavatum (PE)", PE is no embolism there. The
linker reads the long form wherever the short one stands.

Reference: Schwartz and Hearst 2003 (doi:10.1142/9789812776303_0042).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, TypeAlias

from kvlp.errors import ConfigError, MissingExtraError
from kvlp.knowledge.linking.rewriting import Edit

__all__ = ["Abbreviation", "abbreviation_edits", "find_abbreviations", "finder", "scispacy_abbreviations"]

_BRACKETS = re.compile(r"\(([^()\[\]\n;:]{2,120})\)")
_SHORT = re.compile(r"[^\W_][\w./&-]{0,9}[^\W_]")
_LAST_WORD = re.compile(r"([^\s(),;:.]+)[ \t]*\Z")
_OPENS = re.compile(r"[.;:!?]\s|\n\s*\n|[()]")
_SMALL_WORDS = frozenset(("of", "the", "and", "in", "for", "to", "with", "a", "an", "on", "by", "or"))
_SCORE = 0.95


@dataclass(frozen=True, slots=True)
class Abbreviation:
    """A definition in a text.

    Attributes:
        short: the abbreviation.
        long: what it stands for, as the text says it.
        start: first character of the definition's first part, long or short.
        end: one past the closing bracket.
        long_start: first character of the long form.
    """

    short: str
    long: str
    start: int
    end: int
    long_start: int


#: finds the definitions in a text
Finder: TypeAlias = Callable[[str], list[Abbreviation]]


def find_abbreviations(text: str) -> list[Abbreviation]:
    """Find the definitions in a text, in order; a short form keeps its first meaning."""
    found: dict[str, Abbreviation] = {}
    for match in _BRACKETS.finditer(text) if "(" in text else ():
        definition = _long_before(text, match) or _short_before(text, match)
        if definition is not None:
            found.setdefault(definition.short, definition)
    return list(found.values())


def scispacy_abbreviations(text: str) -> list[Abbreviation]:
    """Find the definitions by scispaCy's AbbreviationDetector, on a blank English pipeline (no model, no download).

    Raises:
        MissingExtraError: the extra `knowledge` is not installed.
    """
    found: dict[str, Abbreviation] = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\[W036\]")  # its matcher has no patterns where nothing is defined
        doc = _pipeline()(text)
    for short in sorted(doc._.abbreviations, key=lambda span: span.start_char):
        long = short._.long_form
        bracket = _BRACKETS.search(text, min(short.start_char, long.start_char))
        if bracket is None or short.text in found:
            continue
        start = min(short.start_char, long.start_char)
        found[short.text] = Abbreviation(short.text, long.text, start, bracket.end(), long.start_char)
    return list(found.values())


_FINDERS: dict[str, Finder] = {"own": find_abbreviations, "scispacy": scispacy_abbreviations}


def finder(name: str) -> Finder:
    """The finder of a name.

    Raises:
        ConfigError: no such finder.
        MissingExtraError: scispaCy is asked for and not installed.
    """
    if name not in _FINDERS:
        raise ConfigError(f"no finder of abbreviations '{name}'; expected own, scispacy or none")
    if name == "scispacy":
        _pipeline()
    return _FINDERS[name]


def abbreviation_edits(text: str, find: Finder = find_abbreviations) -> list[Edit]:
    """Write abbreviations out wherever they stand, and take them out of their definition."""
    defined = {a.short: a for a in find(text)} if "(" in text else {}
    return list(_edits(text, defined)) if defined else []


def _edits(text: str, defined: dict[str, Abbreviation]) -> Iterator[Edit]:
    for a in defined.values():
        if a.start < a.long_start:
            yield Edit(a.start, a.long_start, "", _SCORE)
        yield Edit(a.long_start + len(a.long), a.end, "", _SCORE)
    for match in _words_from("".join(sorted({short[0] for short in defined}))).finditer(text):
        start, word = match.start(1), match[1].rstrip("./&-")
        known = defined.get(word) or defined.get(word.removesuffix("s").removesuffix("'"))
        if known is not None and not known.start <= start < known.end:
            yield Edit(start, start + len(word), known.long, _SCORE)


@lru_cache
def _words_from(letters: str) -> re.Pattern[str]:
    """Whole words that begin with one of these letters; that leaves out most of a text at once."""
    return re.compile(rf"(?:\A|[^\w./&'-])[_./&'-]*([{re.escape(letters)}][\w./&'-]*)")


def _long_before(text: str, brackets: re.Match[str]) -> Abbreviation | None:
    """Long form (SHORT)."""
    short = brackets[1].strip()
    if not _is_short(short):
        return None
    words = min(len(short) + 5, 2 * len(short))
    first = _start_of_words(text, brackets.start(), words)
    start = _match(short, text[first : brackets.start()])
    if start is None:
        return None
    long = text[first + start : brackets.start()].rstrip()
    return Abbreviation(short, long, first + start, brackets.end(), first + start)


def _short_before(text: str, brackets: re.Match[str]) -> Abbreviation | None:
    """SHORT (long form)."""
    word = _LAST_WORD.search(text, max(0, brackets.start() - 14), brackets.start())
    long = brackets[1].strip()
    if word is None or not _is_short(word[1]) or _match(word[1], long) != 0:
        return None
    if len(long.split()) > min(len(word[1]) + 5, 2 * len(word[1])):
        return None
    return Abbreviation(word[1], long, word.start(1), brackets.end(), text.index(long, brackets.start()))


def _is_short(word: str) -> bool:
    return _SHORT.fullmatch(word) is not None and sum(c.isupper() for c in word) * 2 >= len(word.rstrip("s"))


def _start_of_words(text: str, stop: int, words: int) -> int:
    """Where the last so many words of the sentence before a place begin."""
    first = max(0, stop - 24 * words)
    for match in _OPENS.finditer(text, first, stop):
        first = match.end()
    starts = [m.start() for m in re.finditer(r"\S+", text[first:stop])]
    return first + (starts[-words:] or [0])[0]


def _match(short: str, long: str) -> int | None:
    """Where in `long` the long form begins: all letters of `short` in order from behind, the first one at a word."""
    at = len(long)
    for k in range(len(short) - 1, -1, -1):
        letter = short[k].lower()
        if not letter.isalnum():
            continue
        at -= 1
        while at >= 0 and (long[at].lower() != letter or (k == 0 and at > 0 and long[at - 1].isalnum())):
            at -= 1
        if at < 0:
            return None
    form = long[at:].lower().split()
    words = sum(w not in _SMALL_WORDS for w in form)
    sound = (
        len(" ".join(form)) > len(short)
        and short.lower() not in form
        and words <= max(len(short), 3 * (len(short) - 2))
    )
    return at if sound else None


@cache
def _pipeline() -> Any:
    try:
        import scispacy.abbreviation  # noqa: F401  it registers the component
        import spacy
    except ImportError as error:
        raise MissingExtraError("scispacy", "knowledge") from error
    nlp = spacy.blank("en")
    nlp.add_pipe("abbreviation_detector")
    return nlp
