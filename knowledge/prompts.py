"""Sentences for a concept: present, absent, uncertain, in correct grammar and always in the same order.

    >>> Prompts().sentences("pleural effusion", Assertion.ABSENT, style="plain")
    ['There is no pleural effusion.']

Templates and the words that decide a phrase's number stand in `prompts.yaml`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import yaml

from kvlp.errors import ConfigError, KnowledgeError
from kvlp.typing import Assertion, PathLike

if TYPE_CHECKING:
    from kvlp.knowledge.graph import Concept, KnowledgeGraph

__all__ = ["Number", "Phrase", "Prompts"]

Number: TypeAlias = Literal["count", "mass", "plural"]

_DATA = Path(__file__).with_name("prompts.yaml")
_LEADING = re.compile(r"^(?:there (?:is|are) )?(?:(?P<article>an?|some|the) )?", re.IGNORECASE)
_COPULA = re.compile(r" (is|are|was|were) ")
#: a verb that makes a clause of the words; one behind "that" or "which" does not
_BEFORE_CLAUSE = r" (?:that|which|whose|who|because|where|if|as|is|are|was|were) "
_CLAUSE = re.compile(rf"^(?:(?!{_BEFORE_CLAUSE}).)* (?:is|are|was|were) ")
_SWAPPED = {
    Assertion.PRESENT: Assertion.ABSENT,
    Assertion.ABSENT: Assertion.PRESENT,
    Assertion.UNCERTAIN: Assertion.UNCERTAIN,
}


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

    def fill(self, template: str) -> str:
        """Put the phrase into a template with the fields {a} {A} {x} {X} {is}."""
        a = self.with_article
        verb = "are" if self.number == "plural" else "is"
        return template.format_map({"a": a, "A": _start(a), "x": self.text, "X": _start(self.text), "is": verb})


class Prompts:
    """Writes sentences for concepts and for free text.

    Args:
        graph: where names, synonyms and descriptions come from; without it every class is free text.
        templates: a YAML file like the bundled `prompts.yaml`, to say things in other words.

    Raises:
        KnowledgeError: the file of templates is not of the expected form.
    """

    def __init__(self, graph: KnowledgeGraph | None = None, *, templates: PathLike | None = None) -> None:
        self._graph = graph
        self._raw = _read(Path(templates) if templates is not None else _DATA)
        data = _parse(self._raw)
        self._templates = {Assertion(k): tuple(v) for k, v in data["templates"].items()}
        self._special: dict[str, Mapping[str, Sequence[str]]] = {n: s for s in data["special"] for n in s["names"]}
        self._grammar = _Grammar(data["number"])
        self._phrases: dict[tuple[str, str], Phrase | None] = {}
        self._concepts: dict[str, Concept | None] = {}

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the templates and word lists, in hex."""
        return hashlib.sha256(self._raw.encode()).hexdigest()

    def n_templates(self, assertion: Assertion = Assertion.PRESENT) -> int:
        """How many templates there are for an assertion."""
        return len(self._templates[Assertion(assertion)])

    def sentence(
        self,
        concept_or_text: Concept | str,
        assertion: Assertion,
        *,
        surface: str | None = None,
        template: int = 0,
    ) -> str:
        """One sentence.

        Args:
            concept_or_text: a concept, its id, any surface of it, or free text ("left basal opacity").
            assertion: what the sentence says of it.
            surface: the words to use instead of the concept's name.
            template: which wording; counted round, so that any integer is valid.

        Raises:
            ConfigError: the text is empty.
        """
        concept = self._concept(concept_or_text)
        text = surface if surface is not None else (concept.name if concept else str(concept_or_text))
        number = concept.number if concept and text == concept.name else ""
        return self._say(text, number, Assertion(assertion), template)

    def sentences(
        self,
        concept_or_text: Concept | str,
        assertion: Assertion = Assertion.PRESENT,
        *,
        synonyms: bool = True,
        descriptions: bool = False,
        definitions: bool = False,
        style: Literal["ensemble", "plain"] = "ensemble",
        limit: int | None = None,
    ) -> list[str]:
        """All sentences, without doubles, the plain one of the name first; a limit keeps every surface's plain one.

        Args:
            concept_or_text: a concept, its id, any surface of it, or free text.
            assertion: what the sentences say of it.
            synonyms: with the concept's synonyms too.
            descriptions: with phrases that describe it without naming it.
            definitions: with its definition, cut to the first clause.
            style: "plain" uses the first template only.
            limit: at most so many sentences.

        Raises:
            ConfigError: the text is empty or the style unknown.
        """
        if style not in ("ensemble", "plain"):
            raise ConfigError(f"style {style!r} is unknown; use 'ensemble' or 'plain'")
        assertion = Assertion(assertion)
        concept = self._concept(concept_or_text)
        if concept is None:
            surfaces = [(str(concept_or_text), "")]
        else:
            wanted = {"synonyms": synonyms, "descriptions": descriptions, "definitions": definitions}
            surfaces = list(self._surfaces(concept, **wanted))
        rounds = 1 if style == "plain" else max(self.n_templates(assertion), 4)
        said = (self._say(s, n, assertion, i) for i in range(rounds) for s, n in surfaces)
        return list(dict.fromkeys(said))[:limit]

    def _surfaces(
        self, concept: Concept, *, synonyms: bool, descriptions: bool, definitions: bool
    ) -> Iterator[tuple[str, str]]:
        yield concept.name, concept.number
        if synonyms:
            yield from ((s, "") for s in concept.synonyms if self._grammar.is_noun_phrase(s))
        if descriptions:
            yield from ((d, "") for d in concept.descriptions)
        if definitions and concept.definition:
            first = re.split(r"[.;:]", concept.definition, maxsplit=1)[0].strip()
            if first:
                yield first[0].lower() + first[1:] if not first[:2].isupper() else first, ""

    def _say(self, text: str, number: str, assertion: Assertion, template: int) -> str:
        special = self._special.get(_key(text))
        if special is not None:
            ready = special[assertion.value]
            return ready[template % len(ready)]
        if text[:3].lower() == "no ":
            return self._say(text[3:], "", _SWAPPED[assertion], template)
        phrase = self._phrase(text, number)
        if phrase is None:
            return _clause(text, assertion)
        templates = self._templates[assertion]
        return phrase.fill(templates[template % len(templates)])

    def _phrase(self, text: str, number: str) -> Phrase | None:
        key = (text, number)
        if key not in self._phrases:
            self._phrases[key] = self._grammar.parse(text, number)
        return self._phrases[key]

    def _concept(self, concept_or_text: Concept | str) -> Concept | None:
        if not isinstance(concept_or_text, str):
            return concept_or_text
        if self._graph is None or _key(concept_or_text) in self._special:
            return None
        if concept_or_text not in self._concepts:
            try:
                self._concepts[concept_or_text] = self._graph.concept(concept_or_text)
            except KnowledgeError:
                self._concepts[concept_or_text] = None
        return self._concepts[concept_or_text]


class _Grammar:
    """Tells number and article of a phrase from word lists."""

    def __init__(self, data: Mapping[str, Sequence[str]]) -> None:
        self._sets = {k: frozenset(str(w) for w in v) for k, v in data.items()}
        self._count_endings = tuple(data["count_endings"])
        self._mass_endings = tuple(data["mass_endings"])
        self._quantifiers = tuple(f"{q} " for q in data["quantifiers"])
        self._a_before, self._an_before = tuple(data["a_before"]), tuple(data["an_before"])

    def parse(self, text: str, number: str = "") -> Phrase | None:
        """Make a phrase of words; None if they are a clause ("the heart is enlarged")."""
        words = " ".join(text.replace("_", " ").split()).rstrip(".")
        if not words:
            raise ConfigError("expected a class name or phrase, got empty text; give at least one word")
        match = _LEADING.match(words)
        article = (match["article"] or "").lower() if match else ""
        bare = _unshout(words[match.end() :] if match else words) or words
        if _CLAUSE.search(f" {bare} "):
            return None
        if article in ("a", "an"):
            number = "count"
        if number not in ("count", "mass", "plural"):
            number = self.number(bare)
        if article != "the":
            article = self.article(bare) if number == "count" else ""
        return Phrase(bare, number, article)  # type: ignore[arg-type]

    def number(self, phrase: str) -> Number:
        """Count, mass or plural, by the head noun."""
        head = self._head(phrase)
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
        head = self._head(surface)
        return not _CLAUSE.search(f" {surface} ") and not head.endswith(("ed", "ic")) and head != "clear"

    def _head(self, phrase: str) -> str:
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


def _clause(text: str, assertion: Assertion) -> str:
    """Say a clause with "is" or "are" as it stands, denied, or in doubt."""
    sentence = _start(" ".join(text.split()).rstrip(".")) + "."
    if assertion is Assertion.PRESENT:
        return sentence
    said = r" \1 not " if assertion is Assertion.ABSENT else " may be "
    return _COPULA.sub(said, sentence, count=1)


def _start(text: str) -> str:
    return text[:1].upper() + text[1:]


def _unshout(text: str) -> str:
    """Lower-case a title ("Pleural Effusion"), keep abbreviations and names inside a phrase ("Kerley B lines")."""
    words = text.split()
    if not all(w[0].isupper() or not w[0].isalpha() for w in words):
        return text
    return " ".join(w if any(c.isupper() or c.isdigit() for c in w[1:]) or len(w) == 1 else w.lower() for w in words)


def _key(text: str) -> str:
    return re.sub(r"[\s_\-]+", " ", text).strip(" .").lower()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise KnowledgeError(f"expected UTF-8 text in {path}; save the templates as UTF-8") from None


def _parse(raw: str) -> dict[str, Any]:
    try:
        data = yaml.safe_load(raw)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark else ""
        raise KnowledgeError(f"the templates are no valid YAML{line}") from None
    parts = {"templates", "special", "number"}
    if not isinstance(data, dict) or set(data) != parts:
        raise KnowledgeError(f"templates: expected the keys {sorted(parts)}; see the bundled prompts.yaml")
    missing = [a.value for a in Assertion if not data["templates"].get(a.value)]
    if missing:
        raise KnowledgeError(f"templates: no sentence for {', '.join(missing)}; give at least one each")
    return data
