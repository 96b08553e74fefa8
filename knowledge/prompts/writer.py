"""Sentences for a concept: present, absent, uncertain, in correct grammar and always in the same order.

    >>> Prompts().sentences("pleural effusion", Assertion.ABSENT, style="plain")
    ['There is no pleural effusion.']

Templates and the words that decide a phrase's number stand in `prompts.yaml`, further styles in `styles.yaml`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from kvlp.errors import ConfigError, KnowledgeError
from kvlp.knowledge.prompts.checks import hint
from kvlp.knowledge.prompts.grammar import Grammar, Phrase, say_clause
from kvlp.knowledge.prompts.templates import KINDS, PLAIN_STYLES, Style, TemplateFile
from kvlp.typing import Assertion, PathLike

if TYPE_CHECKING:
    from kvlp.knowledge.graph import Concept, KnowledgeGraph
    from kvlp.knowledge.prompts.attributes import AttributeBackend, PromptAttribute

__all__ = ["Prompts"]

_SWAPPED = {
    Assertion.PRESENT: Assertion.ABSENT,
    Assertion.ABSENT: Assertion.PRESENT,
    Assertion.UNCERTAIN: Assertion.UNCERTAIN,
}


class Prompts:
    """Writes sentences for concepts and for free text.

    Args:
        graph: where names, synonyms, descriptions and attributes come from; without it every class is free text.
        templates: a YAML file with parts of the bundled `prompts.yaml` or with `styles` of your own, to say things in
            other words.

    Raises:
        KnowledgeError: the file of templates is not of the expected form.
    """

    def __init__(self, graph: KnowledgeGraph | None = None, *, templates: PathLike | None = None) -> None:
        self._graph = graph
        self._file = TemplateFile(templates)
        self._grammar = self._file.grammar
        self._plain = Style("wording", {a: said[:1] for a, said in self._file.sentences.items()})
        self._special = {_key(name): said for name, said in self._file.special.items()}
        self._phrases: dict[tuple[str, str, bool], Phrase | None] = {}
        self._concepts: dict[str, Concept | None] = {}
        self._known: dict[str, list[PromptAttribute]] = {}

    @property
    def content_hash(self) -> str:
        """SHA-256 of the templates and word lists, in hex."""
        return self._file.content_hash

    @property
    def styles(self) -> tuple[str, ...]:
        """Names of all styles."""
        return (*PLAIN_STYLES, *self._file.styles)

    def style(self, name: str) -> Style:
        """The style of a name.

        Raises:
            ConfigError: there is none of that name.
        """
        if name in PLAIN_STYLES:
            count = 1 if name == "plain" else None
            return Style(name, {a: said[:count] for a, said in self._file.sentences.items()})
        if name not in self._file.styles:
            raise ConfigError(f"style '{name}' is unknown; {hint(name, self.styles)}")
        return self._file.styles[name]

    def n_templates(self, assertion: Assertion = Assertion.PRESENT) -> int:
        """How many templates there are for an assertion."""
        return len(self._file.sentences[Assertion(assertion)])

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
        concept = self.concept(concept_or_text)
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
        style: str = "ensemble",
        limit: int | None = None,
    ) -> list[str]:
        """All sentences, without doubles, the plain one of the name first; a limit keeps every surface's plain one.

        Args:
            concept_or_text: a concept, its id, any surface of it, or free text.
            assertion: what the sentences say of it.
            synonyms: with the concept's synonyms too.
            descriptions: with phrases that describe it without naming it.
            definitions: with its definition, cut to the first clause.
            style: "ensemble" of wordings, "plain" for the first alone, or one of `styles`. A style of attributes says
                them of the name; synonyms, descriptions and definitions then have their plain sentence.
            limit: at most so many sentences.

        Raises:
            ConfigError: the text is empty or the style unknown.
        """
        way, assertion = self.style(style), Assertion(assertion)
        concept = self.concept(concept_or_text)
        if concept is None:
            surfaces = [(str(concept_or_text), "")]
        else:
            wanted = {"synonyms": synonyms, "descriptions": descriptions, "definitions": definitions}
            surfaces = list(self._surfaces(concept, self._grammar_of(way), **wanted))
        said: Iterable[str]
        if way.of_attributes:
            plain = [self._say(s, n, assertion, 0, self._plain) for s, n in surfaces]
            said = [plain[0], *self._with_attributes(concept, assertion, way, None), *plain[1:]]
        else:
            rounds = {"plain": 1, "ensemble": max(self.n_templates(assertion), 4)}.get(style, len(way.forms[assertion]))
            said = (self._say(s, n, assertion, i, way) for i in range(rounds) for s, n in surfaces)
        return list(dict.fromkeys(said))[:limit]

    def attribute_sentences(
        self,
        concept_or_text: Concept | str,
        assertion: Assertion = Assertion.PRESENT,
        *,
        attributes: Sequence[PromptAttribute] | None = None,
        style: str = "attributes",
        synonyms: bool = False,
        limit: int | None = None,
    ) -> list[str]:
        """Sentences that say a concept's attributes, the plain sentence of its name first, without doubles.

        Args:
            concept_or_text: a concept, its id, any surface of it, or free text.
            assertion: what the sentences say of it.
            attributes: what is typical of it; None asks graph, definition and descriptions, which know nothing of free
                text.
            style: a style of attributes, one of `styles`: "attributes", "relations", "visual", "location", ...
            synonyms: with the plain sentences of the concept's synonyms at the end.
            limit: at most so many sentences.

        Raises:
            ConfigError: the text is empty, or the style unknown or not of attributes.
        """
        way, assertion = self.style(style), Assertion(assertion)
        if not way.of_attributes:
            names = ", ".join(n for n in self._file.styles if self.style(n).of_attributes)
            raise ConfigError(f"style {style!r} says no attributes; use one of {names}")
        concept = self.concept(concept_or_text)
        surfaces = [(str(concept_or_text), "")]
        if concept is not None:
            wanted = {"synonyms": synonyms, "descriptions": False, "definitions": False}
            surfaces = list(self._surfaces(concept, self._file.sound, **wanted))
        plain = [self._say(s, n, assertion, 0, self._plain) for s, n in surfaces]
        more = self._with_attributes(concept or str(concept_or_text), assertion, way, attributes)
        return list(dict.fromkeys([plain[0], *more, *plain[1:]]))[:limit]

    def concept(self, concept_or_text: Concept | str) -> Concept | None:
        """The graph's concept of an id or surface; None for free text and for classes such as "No Finding"."""
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

    def _with_attributes(
        self,
        concept_or_text: Concept | str | None,
        assertion: Assertion,
        style: Style,
        attributes: Sequence[PromptAttribute] | None,
    ) -> Iterator[str]:
        if concept_or_text is None:
            return
        if isinstance(concept_or_text, str):
            text, number = concept_or_text, ""
        else:
            text, number = concept_or_text.name, concept_or_text.number
        phrase = self._phrase(text, number, self._file.sound) if _key(text) not in self._special else None
        if phrase is None or text[:3].lower() == "no ":
            return
        known = self._attributes(concept_or_text) if attributes is None else attributes
        for part in (self.style(m) for m in style.members) if style.members else (style,):
            yield from self._filled(part, phrase, assertion, known)

    def _attributes(self, concept_or_text: Concept | str) -> Sequence[PromptAttribute]:
        """What graph and definition tell; remembered."""
        from kvlp.knowledge.prompts.attributes import merge

        if isinstance(concept_or_text, str):
            return []
        if concept_or_text.id not in self._known:
            self._known[concept_or_text.id] = merge(b.attributes(concept_or_text) for b in self._backends)
        return self._known[concept_or_text.id]

    @cached_property
    def _backends(self) -> tuple[AttributeBackend, ...]:
        from kvlp.knowledge.prompts.from_definition import DefinitionBackend
        from kvlp.knowledge.prompts.from_graph import GraphBackend

        return GraphBackend(self._graph), DefinitionBackend()

    def _filled(
        self, style: Style, phrase: Phrase, assertion: Assertion, attributes: Sequence[PromptAttribute]
    ) -> Iterator[str]:
        """The style's sentences: the first of each kind of attribute together, then the second, ..."""
        values = {slot: [self._value(a) for a in attributes if a.kind == slot] for slot in style.slots}
        if not all(values.values()):
            return
        for i in range(max(map(len, values.values()), default=1)):
            chosen = {slot: found[i % len(found)] for slot, found in values.items()}
            for template in style.forms[assertion]:
                yield template.fill(phrase, self._file.sound, chosen)

    def _value(self, attribute: PromptAttribute) -> str | Phrase:
        if KINDS[attribute.kind] != "phrase":
            return attribute.text
        return self._phrase(attribute.text, attribute.number, self._file.sound) or attribute.text

    def _surfaces(
        self, concept: Concept, grammar: Grammar, *, synonyms: bool, descriptions: bool, definitions: bool
    ) -> Iterator[tuple[str, str]]:
        yield concept.name, concept.number
        if synonyms:
            yield from ((s, "") for s in concept.synonyms if grammar.is_noun_phrase(s))
        if descriptions:
            yield from ((d, "") for d in concept.descriptions)
        if definitions and concept.definition:
            first = re.split(r"[.;:]", concept.definition, maxsplit=1)[0].strip()
            if first:
                yield first[0].lower() + first[1:] if not first[:2].isupper() else first, ""

    def _say(self, text: str, number: str, assertion: Assertion, template: int, style: Style | None = None) -> str:
        special = self._special.get(_key(text))
        if special is not None:
            ready = special[assertion.value]
            return ready[template % len(ready)]
        if text[:3].lower() == "no ":
            return self._say(text[3:], "", _SWAPPED[assertion], template, style)
        grammar = self._grammar_of(style)
        phrase = self._phrase(text, number, grammar)
        if phrase is None:
            return say_clause(text, assertion)
        templates = style.forms[assertion] if style else self._file.sentences[assertion]
        return templates[template % len(templates)].fill(phrase, grammar, {})

    def _grammar_of(self, style: Style | None) -> Grammar:
        """The default styles keep the sentences that models were made with."""
        return self._grammar if style is None or style.name in PLAIN_STYLES else self._file.sound

    def _phrase(self, text: str, number: str, grammar: Grammar) -> Phrase | None:
        key = (text, number, grammar is self._grammar)
        if key not in self._phrases:
            self._phrases[key] = grammar.parse(text, number)
        return self._phrases[key]


def _key(text: str) -> str:
    return re.sub(r"[\s_\-]+", " ", text).strip(" .").lower()
