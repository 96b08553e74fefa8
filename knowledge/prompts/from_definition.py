"""Attributes that definition and descriptions tell by their words: appearance, color, shape, texture, location."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

from kvlp.knowledge.prompts.attributes import PromptAttribute, merge
from kvlp.knowledge.prompts.grammar import Grammar, is_clause
from kvlp.knowledge.prompts.rules import AttributeRules
from kvlp.knowledge.prompts.templates import TemplateFile
from kvlp.knowledge.surfaces import fold
from kvlp.typing import PathLike

if TYPE_CHECKING:
    from kvlp.knowledge.graph import Concept

__all__ = ["DefinitionBackend"]

_LOOKS = ("color", "shape", "texture")


class DefinitionBackend:
    """Takes attributes out of a concept's definition and descriptions by the word lists of `attributes.yaml`.

    An adjective's score is the share of the texts that say it.

    Args:
        rules: a YAML file like the bundled `attributes.yaml`.
        most: at most so many of a kind.
    """

    name = "definition"

    def __init__(self, *, rules: PathLike | None = None, most: int = 3) -> None:
        self._most = most
        self._rules = AttributeRules(rules)

    def provenance(self) -> dict[str, str]:
        """Hash of the rules; the concept's words are in every key of a cache."""
        return {"template_hash": self._rules.content_hash, "most": str(self._most)}

    def attributes(self, concept: Concept) -> list[PromptAttribute]:
        """The attributes of a concept; none without a definition and descriptions."""
        if (not concept.definition and not concept.descriptions) or self._is_left_out(concept):
            return []
        found = [*self._appearance(concept), *self._location(concept), *self._definition(concept)]
        for kind in _LOOKS:
            found += self._looks(kind, concept)
        return merge([found])

    def _is_left_out(self, concept: Concept) -> bool:
        return bool(concept.semantic_types) and concept.semantic_types[0] in self._rules.graph["without"]

    @cached_property
    def _grammar(self) -> Grammar:
        return TemplateFile().sound

    def _denies(self, words: Sequence[str]) -> bool:
        return not set(words).isdisjoint(self._rules.definition["negations"])

    def _appearance(self, concept: Concept) -> list[PromptAttribute]:
        """Phrases that tell how it looks, the descriptions first; those that deny something would be denied twice."""
        told = [(d, f"description {n}") for n, d in enumerate(concept.descriptions, 1)]
        told += [(seen, "definition") for seen in self._seen_as(concept.definition)]
        kept = [(t, source) for t, source in told if not is_clause(t) and not self._denies(_words(t))]
        kept = [(t, source) for t, source in kept if not t.lower().startswith(self._undeniable)]
        return [
            PromptAttribute("appearance", text.rstrip("."), 1.0, source, self._number(text))
            for text, source in kept[: self._most]
        ]

    def _number(self, text: str) -> str:
        """Grammatical number: nouns joined by "and" are several, of those joined by "or" the first counts."""
        words, head = _words(text), self._grammar.head(text)
        before = words[: words.index(head) + 1] if head in words else words
        if "and" in before:
            return "plural"
        return self._grammar.number(re.split(r",| or ", text)[0] if "or" in before else text)

    @cached_property
    def _undeniable(self) -> tuple[str, ...]:
        """Beginnings of a phrase that "no" cannot stand before: "no several spots" says something else."""
        return tuple(f"{word} " for word in self._rules.definition["undeniable"])

    def _seen_as(self, definition: str) -> Iterator[str]:
        cues = "|".join(re.escape(cue) for cue in self._rules.definition["seen_as"])
        match = re.search(rf"\b(?:{cues}) ([^.;:,]+)", definition)
        if match:
            yield match[1].strip()

    def _looks(self, kind: str, concept: Concept) -> list[PromptAttribute]:
        """Adjectives of a kind, those that most texts say first."""
        texts = [*concept.descriptions, *self._seen_as(concept.definition)]
        heads = [set(self._before_head(text)) for text in texts]
        said = Counter[str]()
        for adjective, cues in self._rules.definition[kind].items():
            said[adjective] = sum(not words.isdisjoint(cues) for words in heads)
        best = [(adjective, n) for adjective, n in said.most_common(self._most) if n]
        return [PromptAttribute(kind, a, round(n / len(texts), 4), f"{n} of {len(texts)} texts") for a, n in best]

    def _before_head(self, text: str) -> list[str]:
        """The words up to the head noun, unless they deny."""
        words, head = _words(text), self._grammar.head(text)
        before = words[: words.index(head) + 1] if head in words else words
        return [] if self._denies(before) else before

    def _location(self, concept: Concept) -> list[PromptAttribute]:
        """The first phrase of place in the definition: "between the lung and the chest wall"."""
        rules, words = self._rules.definition, _first_clause(concept.definition).split()
        for i, (word, after) in enumerate(pairwise(words)):
            if self._denies([word.lower()]):
                return []
            if word in rules["places"] and after in rules["determiners"]:
                place = list(self._place(words[i + 1 :], joined=word == "between"))
                nouns = set(fold(" ".join(place)).split()) - set(rules["determiners"])
                tells = nouns.isdisjoint(rules["no_place"]) and not nouns <= set(fold(concept.name).split())
                return [PromptAttribute("location", " ".join([word, *place]), 0.5, "definition")] if tells else []
        return []

    def _place(self, words: Sequence[str], *, joined: bool) -> Iterator[str]:
        """The words of a place; with "and" only where two are joined, as behind "between"."""
        rules = self._rules.definition
        ends = {*rules["places"], *rules["place_ends"], *(() if joined else ("and",))}
        before = words[0]
        for word, after in pairwise([*words, ""]):
            participle = word.endswith(("ed", "ing")) and before not in rules["determiners"]
            if word in ends or participle or (word == "of" and after not in rules["determiners"]):
                return
            before = word
            yield word.rstrip(",")
            if word.endswith(","):
                return

    def _definition(self, concept: Concept) -> list[PromptAttribute]:
        """The definition's first clause, to stand inside a sentence."""
        first = _lowered(_first_clause(concept.definition))
        return [PromptAttribute("definition", first, 1.0, "definition")] if first and not is_clause(first) else []


def _first_clause(text: str) -> str:
    return re.split(r"[.;:]", text, maxsplit=1)[0].strip()


def _words(text: str) -> list[str]:
    return re.findall(r"[\w-]+", text.lower())


def _lowered(text: str) -> str:
    """Without a sentence's upper-case start; abbreviations keep theirs."""
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]
