"""One form for the names of classes and labels, and whether a model's training texts named a class."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from kvlp.errors import KnowledgeError

if TYPE_CHECKING:
    from kvlp.knowledge.graph import KnowledgeGraph

__all__ = ["AND_OTHERS", "Names"]

#: Stands in a model's list of named concepts where it is not whole: the model began from one that does not say.
AND_OTHERS = "and others, not known"


class Names:
    """Brings class and label names to one form: the graph's concept id if it knows the name, else lower-case words."""

    def __init__(self, graph: KnowledgeGraph | None) -> None:
        self.graph = graph
        self._known: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        if name not in self._known:
            self._known[name] = self._find(name)
        return self._known[name]

    def in_graph(self, name: str) -> bool:
        """Whether the graph has a concept of this name."""
        return self.graph is not None and self(name) in self.graph

    def named(self, name: str, trained: Iterable[str] | None) -> bool | None:
        """Whether a class, a synonym or a descendant stood in training texts; None if that cannot be told.

        It cannot be told where the model does not say, or says `AND_OTHERS`; nor, for a class that it does not list,
        without a graph that knows both the class and what the model lists: a synonym may stand there.

        Args:
            name: of a class.
            trained: concept ids or names that a model lists; one that the graph does not know ("left pleural effusion")
                counts for every class whose name stands in it.
        """
        if trained is None:
            return None
        listed = list(trained)
        own = {self(name)}
        if self.graph is not None and self.in_graph(name):
            own |= self.graph.descendants(self(name))
        if not own.isdisjoint(map(self, listed)) or self._stands_in(own, listed):
            return True
        in_graph = [other for other in listed if self.in_graph(other)]
        certain = AND_OTHERS not in listed and (not listed or (bool(in_graph) and self.in_graph(name)))
        return False if certain else None

    def naming(self, names: Iterable[str], trained: Iterable[str] | None) -> str:
        """The honest name for a score of these classes: "prompted classification" if training texts named one of them
        (or a synonym, or something more specific), "zero-shot" if none, "not known" if that cannot be told."""
        known = None if trained is None else list(trained)
        stood = [self.named(name, known) for name in names]
        if any(stood):
            return "prompted classification"
        return "not known" if None in stood else "zero-shot"

    def _stands_in(self, own: Iterable[str], listed: Iterable[str]) -> bool:
        """Whether a surface of one of these concepts is part of a listed name that the graph does not know."""
        phrases = [f" {_words(other)} " for other in listed if not self.in_graph(other)]
        if not phrases:
            return False
        surfaces = {_words(text) for key in own for text in self._surfaces(key)} - {""}
        return any(f" {surface} " in phrase for phrase in phrases for surface in surfaces)

    def _surfaces(self, key: str) -> Iterable[str]:
        return self.graph[key].surfaces if self.graph is not None and key in self.graph else (key,)

    def _find(self, name: str) -> str:
        plain = _words(name)
        if self.graph is None:
            return plain
        try:
            return self.graph.concept(name).id
        except KnowledgeError:
            return plain


def _words(name: str) -> str:
    return re.sub(r"[\W_]+", " ", name).strip().lower()
