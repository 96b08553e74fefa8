"""Reading reports: concepts of a graph in text, with present, absent or uncertain. Names are imported on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvlp.knowledge.linking.assertion import Rule, Rules, read_rules
    from kvlp.knowledge.linking.candidates import CandidateLinker
    from kvlp.knowledge.linking.coverage import Coverage, coverage_of
    from kvlp.knowledge.linking.dictionary import Dictionary
    from kvlp.knowledge.linking.linker import EntityLinker
    from kvlp.knowledge.linking.mention import Mention

_WHERE = {
    "CandidateLinker": "candidates",
    "Coverage": "coverage",
    "Dictionary": "dictionary",
    "EntityLinker": "linker",
    "Mention": "mention",
    "Rule": "assertion",
    "Rules": "assertion",
    "coverage_of": "coverage",
    "read_rules": "assertion",
}

__all__ = [
    "CandidateLinker",
    "Coverage",
    "Dictionary",
    "EntityLinker",
    "Mention",
    "Rule",
    "Rules",
    "coverage_of",
    "read_rules",
]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'kvlp.knowledge.linking' has no attribute {name!r}")
    value = getattr(import_module(f"kvlp.knowledge.linking.{_WHERE[name]}"), name)
    globals()[name] = value
    return value
