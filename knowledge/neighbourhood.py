"""What stands around a concept, in groups that a person can take in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kvlp.knowledge.graph import Concept, KnowledgeGraph

__all__ = ["Group", "neighbourhood"]

#: beyond so many neighbours they are put in order by name alone
_MANY = 2000


@dataclass(frozen=True, slots=True)
class Group:
    """Neighbours by one relation in one direction.

    Attributes:
        type: the relation; "" stands for all relations beyond the limit.
        out: whether the concept in the middle is the head.
        concepts: the neighbours that are named.
        more: how many others there are.
    """

    type: str
    out: bool
    concepts: tuple[Concept, ...]
    more: int

    @property
    def title(self) -> str:
        """The relation in words: "may cause" outwards, "may cause this" inwards."""
        words = self.type.replace("_", " ") or "by other relations"
        if self.type == "is_a":
            return "is a" if self.out else "kinds"
        if self.out or not self.type:
            return words
        return f"has this as {words[4:]}" if words.startswith("has ") else f"{words} this"


def neighbourhood(graph: KnowledgeGraph, concept_id: str, *, limit: int = 8, relations: int = 4) -> list[Group]:
    """Return the neighbours of a concept: is_a upwards, is_a downwards, then the other relations, largest first.

    Args:
        graph: the graph.
        concept_id: id of the concept.
        limit: how many places a group has, "+n more" among them; those with most relations of their own come first.
        relations: how many relations beside is_a are shown in each direction; the rest is counted.
    """
    held: dict[tuple[str, bool], dict[str, None]] = {}
    for r in graph.neighbours(concept_id, direction="both"):
        out = r.head == concept_id
        other = r.tail if out else r.head
        if other in graph and other != concept_id:
            held.setdefault((r.type, out), {})[other] = None
    order = sorted(held, key=lambda key: (key[0] != "is_a", not key[1], -len(held[key]), key[0]))
    groups: list[Group] = []
    for out in (True, False):
        mine = [key for key in order if key[1] == out]
        shown = [key for key in mine if key[0] == "is_a"] + [key for key in mine if key[0] != "is_a"][:relations]
        groups += [_group(graph, key, held[key], limit) for key in shown]
        rest = {i for key in mine if key not in shown for i in held[key]}
        groups += [Group("", out, (), len(rest))] if rest else []
    return sorted(groups, key=lambda g: (g.type != "is_a", not g.out))


def _group(graph: KnowledgeGraph, key: tuple[str, bool], others: Iterable[str], limit: int) -> Group:
    ids = list(others)
    known = {i: 0 if len(ids) > _MANY else -len(graph.neighbours(i, direction="both")) for i in ids}
    ids.sort(key=lambda i: (known[i], graph[i].name.lower(), i))
    named = ids[: limit if len(ids) <= limit else limit - 1]  # the last place is that of "+n more"
    return Group(*key, tuple(graph[i] for i in named), len(ids) - len(named))
