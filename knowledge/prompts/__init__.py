"""Sentences and attributes of concepts: what a model is asked with. Names are imported on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvlp.knowledge.prompts.attributes import AttributeBackend, AttributePrompts, PromptAttribute
    from kvlp.knowledge.prompts.cache import AttributeCache
    from kvlp.knowledge.prompts.from_definition import DefinitionBackend
    from kvlp.knowledge.prompts.from_graph import GraphBackend
    from kvlp.knowledge.prompts.from_masked import MaskedBackend
    from kvlp.knowledge.prompts.grammar import Number, Phrase
    from kvlp.knowledge.prompts.writer import Prompts

_WHERE = {
    "AttributeBackend": "attributes",
    "AttributeCache": "cache",
    "AttributePrompts": "attributes",
    "DefinitionBackend": "from_definition",
    "GraphBackend": "from_graph",
    "MaskedBackend": "from_masked",
    "Number": "grammar",
    "Phrase": "grammar",
    "PromptAttribute": "attributes",
    "Prompts": "writer",
}

__all__ = [
    "AttributeBackend",
    "AttributeCache",
    "AttributePrompts",
    "DefinitionBackend",
    "GraphBackend",
    "MaskedBackend",
    "Number",
    "Phrase",
    "PromptAttribute",
    "Prompts",
]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'kvlp.knowledge.prompts' has no attribute {name!r}")
    value = getattr(import_module(f"kvlp.knowledge.prompts.{_WHERE[name]}"), name)
    globals()[name] = value
    return value
