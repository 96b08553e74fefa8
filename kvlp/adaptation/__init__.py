"""A finished model and few labelled images: linear probe, cache of features, learned prompts. Names load lazily."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvlp.adaptation.base_to_new import BaseToNew, base_to_new
    from kvlp.adaptation.cache_adapter import CacheAdapter
    from kvlp.adaptation.few_shot import draw_shots
    from kvlp.adaptation.learned_prompts import LearnedPrompts
    from kvlp.adaptation.linear_probe import LinearProbe

_WHERE = {
    "BaseToNew": "base_to_new",
    "CacheAdapter": "cache_adapter",
    "LearnedPrompts": "learned_prompts",
    "LinearProbe": "linear_probe",
    "base_to_new": "base_to_new",
    "draw_shots": "few_shot",
}

__all__ = ["BaseToNew", "CacheAdapter", "LearnedPrompts", "LinearProbe", "base_to_new", "draw_shots"]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'kvlp.adaptation' has no attribute {name!r}")
    value = getattr(import_module(f"kvlp.adaptation.{_WHERE[name]}"), name)
    globals()[name] = value
    return value
