"""Attributes of a concept for its prompts: where it is, how it looks, what it comes from, by one of several back-ends.

These are what is typical of a concept; what a report says of one finding is a mention's business
(kvlp.knowledge.linking).
Reference: MIU-VL (arXiv 2209.15517): prompts that carry attributes, asked from a masked language model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from kvlp.errors import ConfigError
from kvlp.knowledge.graph import Concept
from kvlp.knowledge.prompts.checks import hint
from kvlp.knowledge.prompts.templates import KINDS
from kvlp.knowledge.surfaces import fold
from kvlp.typing import Assertion, PathLike

if TYPE_CHECKING:
    from kvlp.knowledge.graph import KnowledgeGraph
    from kvlp.knowledge.prompts.cache import AttributeCache

__all__ = ["BACKENDS", "AttributeBackend", "AttributePrompts", "PromptAttribute", "as_row", "merge"]

BACKENDS = ("graph", "definition", "masked")


@dataclass(frozen=True, slots=True)
class PromptAttribute:
    """Something typical of a concept.

    Attributes:
        kind: one of kvlp.knowledge.prompts.templates.KINDS, for example "location".
        text: the words as they stand inside a sentence: "white", "in the pleural space", "heart failure".
        score: how sure the back-end is, in (0, 1]; a probability for a language model.
        source: where it comes from: a relation, a description, a question to a model.
        number: grammatical number of a noun phrase, "" where it is told from the words.
    """

    kind: str
    text: str
    score: float = 1.0
    source: str = ""
    number: str = ""


@runtime_checkable
class AttributeBackend(Protocol):
    """What finds attributes. The same concept always gets the same answer, best first within a kind."""

    @property
    def name(self) -> str:
        """Its name in a cache and in provenance."""
        ...

    def provenance(self) -> dict[str, str]:
        """Everything beside the concept that decides its answers: hashes of model, graph and rules, settings."""
        ...

    def attributes(self, concept: Concept) -> list[PromptAttribute]:
        """The attributes of a concept; of free text too, which comes as a concept with nothing but a name."""
        ...


class AttributePrompts:
    """Prompts that carry attributes of a concept, found by a back-end.

        >>> AttributePrompts(KnowledgeGraph.load("chest")).sentences("pleural effusion", style="location")
        ['There is a pleural effusion.', 'There is a pleural effusion in the pleural space.', ...]

    Args:
        graph: where concepts, and the attributes of the back-ends "graph" and "definition", come from.
        backend: "graph", "definition", "masked", a back-end of yours, or several, whose answers follow one another.
        model: for "masked": the local folder of a masked language model of transformers.
        cache: a folder that keeps answers with their provenance; None for none.
        templates: as for `Prompts`.

    Raises:
        ConfigError: an unknown back-end, or "masked" without a model.
    """

    def __init__(
        self,
        graph: KnowledgeGraph | None,
        *,
        backend: str | AttributeBackend | Sequence[str | AttributeBackend] = ("graph", "definition"),
        model: PathLike | None = None,
        cache: PathLike | None = None,
        templates: PathLike | None = None,
    ) -> None:
        from kvlp.knowledge.prompts.cache import AttributeCache
        from kvlp.knowledge.prompts.writer import Prompts

        several = [backend] if isinstance(backend, str) or not isinstance(backend, Sequence) else list(backend)
        self.backends = tuple(_backend(one, graph, model) for one in several)
        self.prompts = Prompts(graph, templates=templates)
        self._graph = graph
        self._cache: AttributeCache | None = AttributeCache(cache) if cache is not None else None

    def attributes(self, concept_or_text: Concept | str, kinds: Iterable[str] | None = None) -> list[PromptAttribute]:
        """The attributes of a concept (its id, a surface, or free text), best first within a kind, without doubles.

        Raises:
            ConfigError: an unknown kind.
        """
        wanted = _kinds(kinds)
        concept = self.prompts.concept(concept_or_text) or _free(str(concept_or_text))
        found = merge(self._ask(backend, concept) for backend in self.backends)
        return [a for a in found if a.kind in wanted]

    def sentences(
        self,
        concept_or_text: Concept | str,
        assertion: Assertion = Assertion.PRESENT,
        *,
        synonyms: bool = False,
        style: str = "attributes",
        limit: int | None = None,
    ) -> list[str]:
        """Sentences with the attributes, the plain one first; see `Prompts.sentences`."""
        if not self.prompts.style(style).of_attributes:
            return self.prompts.sentences(concept_or_text, assertion, synonyms=synonyms, style=style, limit=limit)
        attributes = self.attributes(concept_or_text)
        options: dict[str, Any] = {"synonyms": synonyms, "style": style, "limit": limit}
        return self.prompts.attribute_sentences(concept_or_text, assertion, attributes=attributes, **options)

    def provenance(self) -> list[dict[str, str]]:
        """What decides the answers, one entry a back-end."""
        return [{"backend": backend.name, **backend.provenance()} for backend in self.backends]

    def _ask(self, backend: AttributeBackend, concept: Concept) -> list[PromptAttribute]:
        if self._cache is None:
            return backend.attributes(concept)
        return self._cache.through(backend, concept)


def merge(answers: Iterable[Iterable[PromptAttribute]]) -> list[PromptAttribute]:
    """Answers one after the other, ordered by kind; of two with the same kind and words the first stays."""
    kept: dict[tuple[str, str], PromptAttribute] = {}
    for attribute in (a for answer in answers for a in answer):
        kept.setdefault((attribute.kind, attribute.text.lower()), attribute)
    order = list(KINDS)
    return sorted(kept.values(), key=lambda a: order.index(a.kind))


def as_row(attribute: PromptAttribute) -> dict[str, Any]:
    """An attribute as JSON keeps it."""
    return asdict(attribute)


def _backend(one: str | AttributeBackend, graph: KnowledgeGraph | None, model: PathLike | None) -> AttributeBackend:
    if not isinstance(one, str):
        return one
    if one == "graph":
        from kvlp.knowledge.prompts.from_graph import GraphBackend

        return GraphBackend(graph)
    if one == "definition":
        from kvlp.knowledge.prompts.from_definition import DefinitionBackend

        return DefinitionBackend()
    if one == "masked":
        from kvlp.knowledge.prompts.from_masked import MaskedBackend

        if model is None:
            raise ConfigError("backend 'masked' needs model=FOLDER, the local folder of a masked language model")
        return MaskedBackend(model)
    raise ConfigError(f"backend '{one}' is unknown; {hint(one, BACKENDS)}")


def _kinds(kinds: Iterable[str] | None) -> frozenset[str]:
    wanted = frozenset(KINDS if kinds is None else [kinds] if isinstance(kinds, str) else kinds)
    unknown = sorted(wanted - set(KINDS))
    if unknown:
        raise ConfigError(f"attribute '{unknown[0]}' is unknown; {hint(unknown[0], KINDS)}")
    return wanted


def _free(text: str) -> Concept:
    words = " ".join(text.replace("_", " ").split())
    if not words:
        raise ConfigError("expected a class name or phrase, got empty text; give at least one word")
    return Concept(fold(words), words)
