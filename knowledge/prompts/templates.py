"""Files of templates: read, checked in full, and filled.

A file is YAML in UTF-8 with any of the parts `templates`, `special`, `number` (see prompts.yaml) and `styles` (see
styles.yaml); what it leaves out is taken from the bundled files. Each fault is told in one line: where it stands, what
was expected, what came.
"""

from __future__ import annotations

import hashlib
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kvlp.errors import KnowledgeError
from kvlp.knowledge.prompts.checks import hint, read_bundled, read_yaml, require_known, require_mapping, require_words
from kvlp.knowledge.prompts.grammar import Grammar, Phrase, start
from kvlp.typing import Assertion, PathLike

__all__ = ["KINDS", "PLAIN_STYLES", "Style", "Template", "TemplateFile"]

#: kind of attribute -> what its text is: an adjective, "in the lung", a noun phrase, or a text that stands for itself
KINDS: dict[str, str] = {
    "side": "modifier",
    "severity": "modifier",
    "color": "modifier",
    "shape": "modifier",
    "texture": "modifier",
    "location": "place",
    "appearance": "phrase",
    "parent": "phrase",
    "cause": "phrase",
    "effect": "phrase",
    "sign": "phrase",
    "disease": "phrase",
    "opposite": "phrase",
    "normal": "text",
    "definition": "text",
}
#: the styles that `templates` gives: all wordings, or the first one alone
PLAIN_STYLES = ("ensemble", "plain")
_PHRASE_FIELDS = ("a", "A", "x", "X")
_OWN_FIELDS = (*_PHRASE_FIELDS, "is")
_MODIFIERS = tuple(kind for kind, what in KINDS.items() if what == "modifier")
_FORMS = {"modifier": (), "place": (), "phrase": ("x", "is"), "text": ("X",)}
_PARTS = ("templates", "special", "number", "styles")
_NAMES = tuple(assertion.value for assertion in Assertion)


@dataclass(frozen=True, slots=True)
class Template:
    """A sentence with fields, checked.

    Attributes:
        parts: what stands before a field, the field, and its form; the last may have no field.
        slots: the kinds of attribute that it needs.
    """

    parts: tuple[tuple[str, str, str], ...]
    slots: frozenset[str]

    @classmethod
    def parse(cls, text: str, where: str) -> Template:
        """Check a template and take it apart.

        Raises:
            KnowledgeError: a lone brace, an unknown field or form; `where` begins the message.
        """
        try:
            found = list(string.Formatter().parse(text))
        except ValueError as error:
            raise KnowledgeError(f"{where}: {error}; write {{{{ and }}}} for braces that are no field") from None
        for _, field, form, conversion in found:
            if field is not None:
                _require_field(field, f"!{conversion}" if conversion else form or "", where)
        parts = tuple((literal, field or "", form or "") for literal, field, form, _ in found)
        modifiers = {kind for _, field, form in parts if field in _PHRASE_FIELDS for kind in form.split()}
        return cls(parts, frozenset({field for _, field, _ in parts if field in KINDS} | modifiers))

    def fill(self, phrase: Phrase, grammar: Grammar, values: Mapping[str, str | Phrase]) -> str:
        """Write the sentence; `values` has an entry for each slot."""
        return "".join(literal + _filled(field, form, phrase, grammar, values) for literal, field, form in self.parts)


def _filled(field: str, form: str, phrase: Phrase, grammar: Grammar, values: Mapping[str, str | Phrase]) -> str:
    if field in _PHRASE_FIELDS:
        for kind in reversed(form.split()):
            phrase = grammar.modified(phrase, str(values[kind]))
        said = phrase.with_article if field in "aA" else phrase.text
        return start(said) if field.isupper() else said
    if field in ("", "is"):
        return phrase.verb if field else ""
    value = values[field]
    if isinstance(value, Phrase):
        return {"": value.with_article, "x": value.text, "is": value.verb}[form]
    return start(value) if form == "X" else value


def _require_field(field: str, form: str, where: str) -> None:
    require_known(field, (*_OWN_FIELDS, *KINDS), f"{where}: field")
    forms: Sequence[str] = _MODIFIERS if field in _PHRASE_FIELDS else _FORMS.get(KINDS.get(field, ""), ())
    asked = form.split() if field in _PHRASE_FIELDS and not form.startswith("!") else [form] if form else []
    for one in asked:
        if one not in forms:
            advice = f"behind the colon: {hint(one, forms)}" if forms else f"write {{{field}}}"
            raise KnowledgeError(f"{where}: {{{field}:{one}}} is not understood; {advice}")


@dataclass(frozen=True, slots=True)
class Style:
    """A named way to say things: templates by assertion, or a list of other styles."""

    name: str
    forms: Mapping[Assertion, tuple[Template, ...]]
    members: tuple[str, ...] = ()

    @property
    def slots(self) -> tuple[str, ...]:
        """The kinds of attribute that its sentences need, in order."""
        needed = {slot for said in self.forms.values() for template in said for slot in template.slots}
        return tuple(kind for kind in KINDS if kind in needed)

    @property
    def of_attributes(self) -> bool:
        """Whether it says something of attributes, and so needs them."""
        return bool(self.members or self.slots)


class TemplateFile:
    """Everything that a file of templates says, checked; parts that it leaves out are the bundled ones.

    Args:
        path: a YAML file; None for the bundled ones.

    Attributes:
        sentences: assertion -> templates of the styles "ensemble" and "plain", the plain one first.
        special: name of a class that is no noun phrase -> assertion's value -> sentences.
        styles: name -> style.
        number: word lists that tell the number of a phrase.
        grammar: number and article of phrases, by these lists.
        sound: the same for all styles but "ensemble" and "plain", with more words; see `sound` in styles.yaml.

    Raises:
        KnowledgeError: the file is missing, no UTF-8 or YAML, or not of the expected form.
    """

    def __init__(self, path: PathLike | None = None) -> None:
        base_raw, base = read_bundled("prompts.yaml")
        styles_raw, styles = read_bundled("styles.yaml")
        raw, data = ("", {}) if path is None else read_yaml(Path(path))
        where = "prompts.yaml" if path is None else str(path)
        for key in data:
            require_known(key, _PARTS, f"{where}: key")
        merged = {**base, **data}
        self._raws = (base_raw, styles_raw, raw)
        self.sentences = _forms(merged["templates"], f"{where}: templates")
        if any(template.slots for said in self.sentences.values() for template in said):
            raise KnowledgeError(f"{where}: templates: attributes belong into a style; write it under 'styles'")
        self.special = dict(_special(merged["special"], f"{where}: special"))
        self.number = _word_lists(merged["number"], base["number"], f"{where}: number")
        self.grammar = Grammar(self.number)
        self.sound = Grammar({key: [*self.number.get(key, ()), *words] for key, words in _sound(styles, self.number)})
        self.styles = _styles(styles["styles"], "styles.yaml") | _styles(data.get("styles", {}), where)
        _require_members(self.styles, where)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the files, in hex."""
        return hashlib.sha256("\0".join(self._raws).encode()).hexdigest()


def _forms(data: object, where: str) -> dict[Assertion, tuple[Template, ...]]:
    """Templates by assertion; each of the three has at least one."""
    said = require_mapping(data, where)
    for name in said:
        require_known(name, _NAMES, f"{where}: assertion")
    _require_each(said, where)
    return {Assertion(name): tuple(_templates(said[name], f"{where}: {name}")) for name in _NAMES}


def _require_each(said: Mapping[str, Any], where: str) -> None:
    missing = [name for name in _NAMES if not said.get(name)]
    if missing:
        raise KnowledgeError(f"{where}: no sentence for {', '.join(missing)}; give at least one each")


def _templates(data: object, where: str) -> Iterator[Template]:
    for n, text in enumerate(require_words(data, where), 1):
        yield Template.parse(text, f"{where}, sentence {n}")


def _special(data: object, where: str) -> Iterator[tuple[str, Mapping[str, Sequence[str]]]]:
    if not isinstance(data, list):
        raise KnowledgeError(f"{where}: expected a list, got {type(data).__name__}; see the bundled prompts.yaml")
    for n, entry in enumerate(data, 1):
        said = require_mapping(entry, f"{where}, entry {n}")
        for key in said:
            require_known(key, ("names", *_NAMES), f"{where}, entry {n}: key")
        _require_each(said, f"{where}, entry {n}")
        ready = {key: require_words(said.get(key), f"{where}, entry {n}: {key}") for key in ("names", *_NAMES)}
        yield from ((name, ready) for name in ready["names"])


def _word_lists(data: object, bundled: Mapping[str, Any], where: str) -> Mapping[str, Sequence[str]]:
    """The word lists that tell a number; one that the file leaves out is the bundled one."""
    lists = require_mapping(data, where)
    for key, words in lists.items():
        require_known(key, bundled, f"{where}: list")
        require_words(words, f"{where}: {key}")
    return {**bundled, **lists}


def _sound(styles: Mapping[str, Any], number: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, list[str]]]:
    for key in dict.fromkeys([*number, *styles["sound"]]):
        yield key, require_words(styles["sound"].get(key, []), f"styles.yaml: sound: {key}")


def _styles(data: object, where: str) -> dict[str, Style]:
    styles = {}
    for name, said in require_mapping(data, f"{where}: styles").items():
        place = f"{where}: style '{name}'"
        if name in PLAIN_STYLES or not isinstance(name, str):
            raise KnowledgeError(f"{place}: this name is taken; write such sentences under 'templates'")
        if isinstance(said, list):
            styles[name] = Style(name, {}, tuple(require_words(said, place)))
        else:
            styles[name] = Style(name, _forms(said, place))
    return styles


def _require_members(styles: Mapping[str, Style], where: str) -> None:
    single = [name for name, style in styles.items() if not style.members]
    for style in styles.values():
        for member in style.members:
            require_known(member, single, f"{where}: style '{style.name}': style")
