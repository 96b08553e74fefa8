"""One form for the names of classes and labels, and whether a model's training texts named a class."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from kvlp.errors import KnowledgeError

if TYPE_CHECKING:
    from kvlp.knowledge.graph import KnowledgeGraph

__all__ = ["Names"]


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
        """Whether a class, a synonym or a descendant stood in training texts; None if the model does not say."""
        if trained is None:
            return None
        own = {self(name)}
        if self.graph is not None and self.in_graph(name):
            own |= self.graph.descendants(self(name))
        return not own.isdisjoint(self(other) for other in trained)

    def naming(self, names: Iterable[str], trained: Iterable[str] | None) -> str:
        """The honest name for a score of these classes: "prompted classification" if training texts named one of them
        (or a synonym, or something more specific), "zero-shot" if none, "not known" if the model does not say."""
        known = None if trained is None else list(trained)
        stood = [self.named(name, known) for name in names]
        if any(stood):
            return "prompted classification"
        return "not known" if None in stood else "zero-shot"

    def _find(self, name: str) -> str:
        plain = re.sub(r"[\W_]+", " ", name).strip().lower()
        if self.graph is None:
            return plain
        try:
            return self.graph.concept(name).id
        except KnowledgeError:
            return plain
