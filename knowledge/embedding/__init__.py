"""Vectors of a graph's concepts, and how well they tell its links. Names are imported on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvlp.knowledge.embedding.cache import cache_folder
    from kvlp.knowledge.embedding.fit import embed
    from kvlp.knowledge.embedding.links import LinkReport, evaluate_links
    from kvlp.knowledge.embedding.settings import METHODS
    from kvlp.knowledge.embedding.vectors import ConceptVectors

_WHERE = {
    "ConceptVectors": "vectors",
    "LinkReport": "links",
    "METHODS": "settings",
    "cache_folder": "cache",
    "embed": "fit",
    "evaluate_links": "links",
}

__all__ = ["METHODS", "ConceptVectors", "LinkReport", "cache_folder", "embed", "evaluate_links"]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'kvlp.knowledge.embedding' has no attribute {name!r}")
    value = getattr(import_module(f"kvlp.knowledge.embedding.{_WHERE[name]}"), name)
    globals()[name] = value
    return value
