"""Grammar of noun phrases: number and article by word lists, modifiers before them, and clauses said or denied."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from kvlp.errors import ConfigError
from kvlp.typing import Assertion

__all__ = ["Grammar", "Number", "Phrase", "is_clause", "say_clause", "start"]

Number: TypeAlias = Literal["count", "mass", "plural"]

_LEADING = re.compile(r"^(?:there (?:is|are) )?(?:(?P<article>an?|some|the) )?", re.IGNORECASE)
_COPULA = re.compile(r" (is|are|was|were) ")
#: a verb that makes a clause of the words; one behind "that" or "which" does not
_BEFORE_CLAUSE = r" (?:that|which|whose|who|because|where|if|as|is|are|was|were) "
_CLAUSE = re.compile(rf"^(?:(?!{_BEFORE_CLAUSE}).)* (?:is|are|was|were) ")


@dataclass(frozen=True, slots=True)
class Phrase:
    """A noun phrase without its article, and its grammatical number.

    Args:
        text: the phrase as it stands inside a sentence, for example "pleural effusion".
        number: count ("a nodule"), mass ("edema") or plural ("opacities").
        article: the article it takes after "there is": "a", "an", "the" or "".
    """

    text: str
    number: Number
    article: str

    @property
    def with_article(self) -> str:
        """The phrase with its article: "a pleural effusion", "edema"."""
        return f"{self.article} {self.text}" if self.article else self.text

    @property
    def verb(self) -> Literal["is", "are"]:
        """The verb that agrees with it."""
        return "are" if self.number == "plural" else "is"

    def fill(self, template: str) -> str:
        """Put the phrase into a template with the fields {a} {A} {x} {X} {is}."""
        a = self.with_article
        return template.format_map({"a": a, "A": start(a), "x": self.text, "X": start(self.text), "is": self.verb})


class Grammar:
    """Tells number and article of a phrase from word lists (the part `number` of a file of templates)."""

    def __init__(self, data: Mapping[str, Sequence[str]]) -> None:
        self._sets = {k: frozenset(str(w) for w in v) for k, v in data.items()}
        self._count_endings = tuple(data["count_endings"])
        self._mass_endings = tuple(data["mass_endings"])
        self._quantifiers = tuple(f"{q} " for q in data["quantifiers"])
        self._a_before, self._an_before = tuple(data["a_before"]), tuple(data["an_before"])
        self._no_first = tuple(f"{w} " for w in data.get("no_first", ()))
        self._no_last = tuple(f" {w} " for w in data.get("no_last", ()))
        self._no_within = tuple(f" {w} " for w in data.get("no_within", ()))

    def parse(self, text: str, number: str = "") -> Phrase | None:
        """Make a phrase of words; None if they are a clause ("the heart is enlarged").

        Raises:
            ConfigError: no words.
        """
        words = " ".join(text.replace("_", " ").split()).rstrip(".")
        if not words:
            raise ConfigError("expected a class name or phrase, got empty text; give at least one word")
        match = _LEADING.match(words)
        article = (match["article"] or "").lower() if match else ""
        bare = _unshout(words[match.end() :] if match else words) or words
        if is_clause(bare):
            return None
        if article in ("a", "an"):
            number = "count"
        if number not in ("count", "mass", "plural"):
            number = self.number(bare)
        if article != "the":
            article = self.article(bare) if number == "count" else ""
        return Phrase(bare, number, article)  # type: ignore[arg-type]

    def modified(self, phrase: Phrase, modifier: str) -> Phrase:
        """The phrase behind a modifier, with the article that fits now: "an opacity", "a small opacity"."""
        text = f"{modifier} {phrase.text}"
        article = self.article(text) if phrase.article in ("a", "an") else phrase.article
        return Phrase(text, phrase.number, article)

    def number(self, phrase: str) -> Number:
        """Count, mass or plural, by the head noun."""
        head = self.head(phrase)
        if head in self._sets["plural_heads"] or phrase.lower().startswith(self._quantifiers):
            return "plural"
        if head in self._sets["count_heads"]:
            return "count"
        if head in self._sets["mass_heads"]:
            return "mass"
        if re.search(r"(?<![su])s$", head) and not head.endswith("is"):
            return "plural"
        if head.endswith(self._count_endings):
            return "count"
        return "mass" if head.endswith(self._mass_endings) else "count"

    def article(self, phrase: str) -> Literal["a", "an"]:
        """The indefinite article by sound: "an x-ray", "a unilateral", "an NG tube"."""
        low = phrase.lower()
        if low.startswith(self._an_before):
            return "an"
        if low.startswith(self._a_before):
            return "a"
        first = phrase.split()[0]
        first = first.split("-")[0]
        spelt = first[:2].isupper() or not set(first.lower()) & set("aeiouy")
        if spelt:
            return "an" if first[0].upper() in "AEFHILMNORSX" else "a"
        return "an" if low[0] in "aeiou" else "a"

    def is_noun_phrase(self, surface: str) -> bool:
        """Whether a surface can stand after "there is": no clause, no lone adjective ("hyperinflated")."""
        head, words = self.head(surface), f" {surface.lower()} "
        if words[1:].startswith(self._no_first) or words.endswith(self._no_last):
            return False
        if any(word in words for word in self._no_within):
            return False
        return not is_clause(surface) and not head.endswith(("ed", "ic")) and head != "clear"

    def head(self, phrase: str) -> str:
        """The head noun, lower case: the last word before a preposition or a participle that follows it."""
        words = [w.strip(",") for w in phrase.lower().split()]
        stop = next((i for i in range(1, len(words)) if self._follows_head(words, i)), len(words))
        return words[stop - 1]

    def _follows_head(self, words: Sequence[str], i: int) -> bool:
        """Whether a word begins what follows the head noun: "of the lung", "arching toward the lung"."""
        prepositions, word = self._sets["prepositions"], words[i]
        after = words[i + 1] if i + 1 < len(words) else "of"
        participle = word.endswith(("ing", "ed")) and word not in self._sets["mass_heads"]
        return word in prepositions or (
            participle and after != "of" and after in prepositions | self._sets["determiners"]
        )


def is_clause(text: str) -> bool:
    """Whether words have a verb of their own: "the heart is enlarged"."""
    return _CLAUSE.search(f" {text} ") is not None


def say_clause(text: str, assertion: Assertion) -> str:
    """Say a clause with "is" or "are" as it stands, denied, or in doubt."""
    sentence = start(" ".join(text.split()).rstrip(".")) + "."
    if assertion is Assertion.PRESENT:
        return sentence
    said = r" \1 not " if assertion is Assertion.ABSENT else " may be "
    return _COPULA.sub(said, sentence, count=1)


def start(text: str) -> str:
    """The words as a sentence's start: first letter in upper case."""
    return text[:1].upper() + text[1:]


def _unshout(text: str) -> str:
    """Lower-case a title ("Pleural Effusion"), keep abbreviations and names inside a phrase ("Kerley B lines")."""
    words = text.split()
    if not all(w[0].isupper() or not w[0].isalpha() for w in words):
        return text
    return " ".join(w if any(c.isupper() or c.isdigit() for c in w[1:]) or len(w) == 1 else w.lower() for w in words)
