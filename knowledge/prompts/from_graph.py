"""Attributes that the graph's relations state: location, side, severity, kinds, causes, effects, signs, opposites."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kvlp.knowledge.prompts.attributes import PromptAttribute, merge
from kvlp.knowledge.prompts.grammar import Grammar, is_clause
from kvlp.knowledge.prompts.rules import AttributeRules
from kvlp.knowledge.prompts.templates import TemplateFile
from kvlp.knowledge.surfaces import fold
from kvlp.typing import PathLike

if TYPE_CHECKING:
    from kvlp.knowledge.graph import Concept, KnowledgeGraph

__all__ = ["GraphBackend"]

#: kind of attribute, relation, and the end of it at which the concept stands
_RELATIONS = (
    ("parent", "is_a", "out"),
    ("cause", "may_cause", "in"),
    ("effect", "may_cause", "out"),
    ("sign", "manifestation_of", "in"),
    ("disease", "manifestation_of", "out"),
    ("opposite", "opposite_of", "both"),
)


class GraphBackend:
    """Reads attributes off the relations of a graph; what a concept lacks comes from what it is a kind of.

    Args:
        graph: without it there are no attributes.
        rules: a YAML file like the bundled `attributes.yaml`.
        most: at most so many of a kind.
    """

    name = "graph"

    def __init__(self, graph: KnowledgeGraph | None, *, rules: PathLike | None = None, most: int = 3) -> None:
        self._graph, self._most = graph, most
        self._rules = AttributeRules(rules)

    def provenance(self) -> dict[str, str]:
        """Hashes of graph and rules."""
        graph_hash = self._graph.content_hash if self._graph is not None else ""
        return {"graph_hash": graph_hash, "template_hash": self._rules.content_hash, "most": str(self._most)}

    def attributes(self, concept: Concept) -> list[PromptAttribute]:
        """The attributes of a concept of the graph; none for anatomy, descriptors and normal statements."""
        if self._graph is None or concept.id not in self._graph or self._is_left_out(concept):
            return []
        kept: list[PromptAttribute] = []
        for attribute in merge([_Reader(self._graph, self._rules.graph, self._grammar).read(concept)]):
            if sum(a.kind == attribute.kind for a in kept) < self._most:
                kept.append(attribute)
        return kept

    def _is_left_out(self, concept: Concept) -> bool:
        return bool(concept.semantic_types) and concept.semantic_types[0] in self._rules.graph["without"]

    @cached_property
    def _grammar(self) -> Grammar:
        return TemplateFile().grammar


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads one graph."""

    graph: KnowledgeGraph
    rules: Mapping[str, Any]
    grammar: Grammar

    def read(self, concept: Concept) -> Iterator[PromptAttribute]:
        """Everything that is said of a concept."""
        yield from self._location(concept)
        yield from self._side(concept)
        yield from self._severity(concept)
        yield from self._related(concept)
        yield from self._normal(concept)

    def _located(self, concept: Concept) -> list[tuple[str, int]]:
        """Places where the concept is, nearest statement first, and how many is_a steps up that is said."""
        level, steps, seen = [concept.id], 0, {concept.id}
        while level:
            places = [r.tail for i in level for r in self.graph.neighbours(i, "located_in") if r.tail in self.graph]
            if places:
                return [(place, steps) for place in dict.fromkeys(places)]
            level = [p for i in level for p in self.graph.parents(i) if p not in seen]
            seen.update(level)
            steps += 1
        return []

    def _location(self, concept: Concept) -> Iterator[PromptAttribute]:
        said = set(fold(concept.name).split())
        for place, steps in self._located(concept):
            name = self.graph[place].name
            if set(fold(name).split()) <= said:  # "a lung nodule in the lung" tells nothing
                continue
            at = self.grammar.head(name) in self.rules["at"]
            where, score = f"{'at' if at else 'in'} the {name}", round(1 / (1 + steps), 4)
            yield PromptAttribute("location", where, score, f"located_in {place}")

    def _side(self, concept: Concept) -> Iterator[PromptAttribute]:
        rules = self.rules
        words = set(fold(f"{concept.name} {concept.definition}").split())
        if words & set(rules["no_side_beside"]):
            return
        place = next((p for p, _ in self._located(concept) if self._has_sides(p)), None)
        if place is not None:
            yield from (PromptAttribute("side", side, 1.0, f"sides of {place}") for side in rules["sides"])

    def _has_sides(self, place: str) -> bool:
        """Whether a place, or what it is part of, is one of a pair by `side_of` or by the rules."""
        seen: set[str] = set()
        todo = [place]
        while todo:
            one = todo.pop()
            seen.add(one)
            if self.graph.neighbours(one, "side_of", "in") or self.graph[one].name in self.rules["paired"]:
                return True
            wholes = (r.tail for r in self.graph.neighbours(one, "part_of"))
            todo += [whole for whole in wholes if whole in self.graph and whole not in seen]
        return False

    def _severity(self, concept: Concept) -> Iterator[PromptAttribute]:
        head = self.grammar.head(concept.name)
        singular = head.removesuffix("s")
        for entry in self.rules["severity"]:
            if head in entry["heads"] or singular in entry["heads"]:
                yield from (PromptAttribute("severity", word, 1.0, f"said of {head}") for word in entry["words"])
                return

    def _related(self, concept: Concept) -> Iterator[PromptAttribute]:
        said = set(fold(concept.name).split())
        for kind, relation, direction in _RELATIONS:
            for r in self.graph.neighbours(concept.id, relation, direction):  # type: ignore[arg-type]
                other = r.tail if r.head == concept.id else r.head
                if other not in self.graph or other == concept.id:
                    continue
                there = self.graph[other]
                if (
                    kind != "parent" or not set(fold(there.name).split()) <= said
                ):  # not "a rib fracture, a kind of fracture"
                    yield PromptAttribute(kind, there.name, 1.0, f"{r.head} {r.type} {r.tail}", there.number)

    def _normal(self, concept: Concept) -> Iterator[PromptAttribute]:
        """Clauses of normal statements that rule the concept, or all of its kind, out."""
        level, steps, seen = [concept.id], 0, {concept.id}
        while level:
            for r in (r for i in level for r in self.graph.neighbours(i, "rules_out", "in")):
                clause = next((s for s in self.graph[r.head].surfaces if is_clause(s)), None)
                if clause is not None:
                    yield PromptAttribute("normal", clause, round(1 / (1 + steps), 4), f"{r.head} {r.type} {r.tail}")
            level = [p for i in level for p in self.graph.parents(i) if p not in seen]
            seen.update(level)
            steps += 1
