"""Is a text English? A check by script and function words, so that other languages are refused by name, not misread.

A report in telegram style has hardly any function words, and medical Latin ("situs inversus", "pectus excavatum") none
of a living language: what shows no other language is let through. A text is refused only when the function words of
one other language are many and outnumber the English ones clearly, or when most of its letters are no Latin ones.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import cache
from pathlib import Path
from typing import NamedTuple

from kvlp.errors import ConfigError, DataError
from kvlp.knowledge.linking.assertion import read_yaml

__all__ = ["check_language", "known_language", "language_of", "may_be_foreign"]

#: characters that are looked at; a report tells its language sooner
_LOOKED_AT = 2000
#: fewer words tell nothing
_FEWEST_WORDS = 8
#: a foreign text has at least this many words of its language, this share of all, and this many times the English ones
_FEWEST_FOREIGN, _LEAST_SHARE, _LEAST_RATIO = 3, 0.12, 2.0
#: of a script that is not Latin
_FEWEST_LETTERS = 12

_WORD = re.compile(r"[^\W\d_]+")
_NOT_LATIN = re.compile(r"[^\W\x00-\u02af]")


class _Words(NamedTuple):
    """The data file, read."""

    english: frozenset[str]
    languages: dict[str, tuple[str, ...]]  #: word -> the languages that it tells of
    scripts: dict[str, str]


@cache
def _words() -> _Words:
    data = read_yaml(Path(__file__).with_name("languages.yaml"), {"english", "others", "scripts"})
    english = frozenset(data["english"].split())
    languages: dict[str, tuple[str, ...]] = {}
    for name, words in data["others"].items():
        for word in set(words.split()) - english:
            languages[word] = (*languages.get(word, ()), name)
    return _Words(english, languages, data["scripts"])


def language_of(text: str) -> str | None:
    """The language that a text is clearly written in, if that is not English; else None.

    Time does not grow beyond the first 2,000 characters. Short texts, lists of terms, telegram style and Latin terms
    are None.
    """
    english, languages, _ = _words()
    head = text[:_LOOKED_AT]
    if not head.isascii():
        head = unicodedata.normalize("NFC", head)
        script = _script(head) if _NOT_LATIN.search(head) else None
        if script is not None:
            return script
    if len(languages.keys() & head.lower().split()) < _FEWEST_FOREIGN:  # nearly every English text ends here
        return None
    words = _WORD.findall(head.lower())
    if len(words) < _FEWEST_WORDS:
        return None
    foreign = [w for w in words if w in languages]
    counts = Counter(name for w in foreign for name in languages[w])
    name, n = max(counts.items(), key=lambda row: row[1])
    n_english = sum(w in english for w in words)
    enough = n >= _FEWEST_FOREIGN and n >= _LEAST_SHARE * len(words) and n >= _LEAST_RATIO * n_english
    return name if enough and len({w for w in foreign if name in languages[w]}) >= _FEWEST_FOREIGN else None


def may_be_foreign(text: str) -> bool:
    """Whether a part of a text has anything that tells of another language; a text of parts that have not has not."""
    return not (text.isascii() and _words().languages.keys().isdisjoint(text.lower().split()))


def _script(text: str) -> str | None:
    """The language of a text whose letters are mostly not Latin."""
    letters = [c for c in text if c.isalpha()]
    known = _words().scripts
    others = Counter(unicodedata.name(c, "?").split()[0] for c in letters if c > "\u02af")
    scripts = Counter({name: n for name, n in others.items() if name in known})
    if scripts.total() < _FEWEST_LETTERS or 2 * scripts.total() <= len(letters):
        return None
    kana = scripts["HIRAGANA"] + scripts["KATAKANA"]
    return "Japanese" if kana else known[scripts.most_common(1)[0][0]]


def check_language(text: str) -> None:
    """Refuse a text that is clearly not English.

    Raises:
        DataError: the text looks like another language, which the message names.
    """
    found = language_of(text)
    if found is not None:
        raise DataError(
            f"expected English report text, this looks like {found}; translate it, or read it anyway"
            " with language=None (--any-language)"
        )


def known_language(language: str | None) -> str | None:
    """The language that texts must have, as an option gives it.

    Raises:
        ConfigError: neither "en" nor None.
    """
    if language not in ("en", None):
        raise ConfigError(f"expected language 'en' or None, got {language!r}; kvlp reads English reports only")
    return language
