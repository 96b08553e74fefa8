"""The words of `attributes.yaml` and the places of a graph, as phrases that the linker's one pass over a text finds."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvlp.errors import KnowledgeError
from kvlp.knowledge.linking.assertion import read_yaml
from kvlp.knowledge.linking.dictionary import expand
from kvlp.knowledge.linking.normalise import variants
from kvlp.typing import PathLike

if TYPE_CHECKING:
    from kvlp.knowledge.graph import Concept, KnowledgeGraph

__all__ = ["AttributeRule", "AttributeRules", "Cue", "attribute_words", "read_attribute_rules", "unsided"]

_PARTS = {"severities", "changes", "rules", "place_types", "plurals", "unsided", "renames"}
_SIDES = ("left", "right", "bilateral")
_STATUSES = ("historical", "hypothetical", "family")
_SIDE_WORD = re.compile(r"\b(left|right|bilateral|both)\b")


@dataclass(frozen=True, slots=True)
class AttributeRule:
    """One rule of the data file; its keys are explained there."""

    name: str
    sets: str
    phrases: tuple[str, ...]
    value: str | tuple[str, ...] = ""
    side: str = ""
    looks: str = ""
    types: tuple[str, ...] = ()
    capitals: bool = False
    example: str = ""


@dataclass(frozen=True, slots=True)
class AttributeRules:
    """The data file, read.

    Attributes:
        rules: in file order.
        severities: from the least to the most.
        changes: the one that counts first comes first.
        place_types: semantic types of concepts that are places.
        plurals: last words that make both sides of a paired place.
        unsided: names of concepts that take no side or place from their neighbours.
        renames: finds words behind which the same shadow gets another name.
    """

    rules: tuple[AttributeRule, ...]
    severities: tuple[str, ...]
    changes: tuple[str, ...]
    place_types: frozenset[str]
    plurals: tuple[str, ...]
    unsided: tuple[str, ...]
    renames: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class Cue:
    """What a phrase says of the findings around it.

    Attributes:
        sets: side, severity, change, status, place or nothing.
        value: what it sets; "" for a place.
        side: the side that it says or implies.
        places: concepts of the graph.
        weak: the side is only implied by a plural, a word for a side overrules it.
        looks: of a status: forward or backward.
        types: of a status: the semantic types that it counts for; empty for all.
        capitals: it counts only where it is written in capitals.
    """

    sets: str
    value: str = ""
    side: str = ""
    places: tuple[str, ...] = ()
    weak: bool = False
    looks: str = ""
    types: tuple[str, ...] = ()
    capitals: bool = False


@cache
def read_attribute_rules(path: PathLike | None = None) -> AttributeRules:
    """Read the rules (default: the bundled ones).

    Raises:
        KnowledgeError: not UTF-8, no YAML, a missing part, or an unknown value.
    """
    file = Path(path) if path is not None else Path(__file__).with_name("attributes.yaml")
    data = read_yaml(file, _PARTS)
    values = {
        "side": _SIDES,
        "severity": tuple(data["severities"]),
        "change": tuple(data["changes"]),
        "status": _STATUSES,
    }
    rules = tuple(_rule(row, values, file) for row in data["rules"])
    renames = re.compile(rf"\b(?:{'|'.join(data['renames'])})\b", re.IGNORECASE)
    return AttributeRules(
        rules,
        values["severity"],
        values["change"],
        frozenset(data["place_types"]),
        tuple(data["plurals"]),
        tuple(data["unsided"]),
        renames,
    )


def _rule(row: dict[str, Any], values: Mapping[str, Collection[str]], file: Path) -> AttributeRule:
    lists = {k: tuple(v) for k, v in row.items() if isinstance(v, list)}
    try:
        rule = AttributeRule(**{**row, **lists})
    except TypeError:
        raise KnowledgeError(f"{file}: rule '{row.get('name', '?')}' has an unknown or missing key") from None
    if rule.sets not in (*values, "place", "nothing"):
        wanted = ", ".join((*values, "place", "nothing"))
        raise KnowledgeError(f"{file}: rule '{rule.name}' sets '{rule.sets}'; expected one of {wanted}")
    if rule.sets in values and rule.value not in values[rule.sets]:
        wanted = ", ".join(values[rule.sets])
        raise KnowledgeError(f"{file}: rule '{rule.name}' has the value '{rule.value}'; expected one of {wanted}")
    if (rule.sets == "status") != (rule.looks in ("forward", "backward")):
        raise KnowledgeError(f"{file}: rule '{rule.name}' looks '{rule.looks}'; a status looks forward or backward")
    return rule


def attribute_words(graph: KnowledgeGraph, rules: AttributeRules) -> dict[str, Cue]:
    """Normalised phrase -> what it says, for the rules and for every surface of the graph's places."""
    words: dict[str, Cue] = {}
    for concept in graph.concepts:
        if rules.place_types.intersection(concept.semantic_types):
            words.update(_place_words(graph, concept, rules.plurals))
    for rule in rules.rules:
        cue = _cue(rule, graph)
        if cue is not None:
            words.update(dict.fromkeys(expand(rule.phrases), cue))
    return words


def _cue(rule: AttributeRule, graph: KnowledgeGraph) -> Cue | None:
    if rule.sets != "place":
        value = str(rule.value)
        return Cue(
            rule.sets, value, value if rule.sets == "side" else "", (), False, rule.looks, rule.types, rule.capitals
        )
    places = tuple(_known(graph, rule.value))
    return Cue("place", "", rule.side, places) if places else None


def _known(graph: KnowledgeGraph, names: Iterable[str]) -> Iterator[str]:
    for name in names:
        concept = graph.get(name)
        if concept is not None:
            yield concept.id


def _place_words(graph: KnowledgeGraph, concept: Concept, plurals: tuple[str, ...]) -> Iterator[tuple[str, Cue]]:
    """The surfaces of a place, each with the side that it implies.

    A word for a side counts unless it belongs to the name of what is on no side: the graph knows the left lung as a
    side of the lung, but not the left ventricle as a side of anything.
    """
    own = _side_of(graph, concept)
    sideless = own is None
    texts = [s.lower() for s in concept.surfaces]
    sides = {m[0] for text in texts for m in _SIDE_WORD.finditer(text)}
    paired = not own and (bool(graph.neighbours(concept.id, "side_of", "in")) or {"left", "right"} <= sides)
    for surface in concept.surfaces:
        for form in variants(surface):
            said = _SIDE_WORD.search(form)
            side = "" if sideless else own or (said[1].replace("both", "bilateral") if said else "")
            both = not side and paired and form.endswith(plurals)
            yield form, Cue("place", "", "bilateral" if both else side, (concept.id,), both)


def _side_of(graph: KnowledgeGraph, concept: Concept) -> str | None:
    """The side on which a place lies: "" for none, None for a place whose name only sounds like one."""
    said = _SIDE_WORD.search(concept.name.lower())
    above = _above(graph, concept.id)
    for place in [concept.id, *above]:
        word = _SIDE_WORD.search(graph[place].name.lower())
        if word and graph.neighbours(place, "side_of"):
            return word[1]
    return None if said and not any(graph.neighbours(p, "side_of") for p in above) else ""


def _above(graph: KnowledgeGraph, concept: str) -> list[str]:
    """What a place is a part of, from near to far."""
    found: dict[str, None] = {}
    todo = [concept]
    while todo:
        for relation in graph.neighbours(todo.pop(0), "part_of"):
            if relation.tail not in found:
                found[relation.tail] = None
                todo.append(relation.tail)
    return list(found)


def unsided(graph: KnowledgeGraph, names: Iterable[str]) -> frozenset[str]:
    """The named concepts, their kinds and parts, and everything that lies in one of them."""
    found: set[str] = set()
    todo = list(_known(graph, names))
    while todo:
        concept = todo.pop()
        if concept in found:
            continue
        found.add(concept)
        todo += graph.descendants(concept)
        for kind in ("part_of", "located_in"):
            todo += [r.head for r in graph.neighbours(concept, kind, "in")]
    return frozenset(found)
