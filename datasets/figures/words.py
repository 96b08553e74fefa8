"""The word lists of `words.yaml` as patterns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import yaml

__all__ = ["modality_words", "place_nouns", "place_of_word", "shared_openings"]


@cache
def modality_words() -> Mapping[str, re.Pattern[str]]:
    """Kind of picture -> a pattern of the words for it, in the file's order."""
    return {kind: _pattern(phrases) for kind, phrases in _lists()["modalities"].items()}


@cache
def shared_openings() -> re.Pattern[str]:
    """How a sentence begins that belongs to all panels; for `match`."""
    return _pattern(_lists()["shared_openings"])


@cache
def place_of_word() -> Mapping[str, str]:
    """A word in lower case -> "left", "right", "top", "bottom" or "middle"."""
    return {word: place for place, words in _lists()["places"].items() for word in words}


@cache
def place_nouns() -> tuple[str, ...]:
    """Words before which a place is a panel's label."""
    return tuple(_lists()["place_nouns"])


@cache
def _lists() -> dict[str, Any]:
    text = files("kvlp.datasets.figures").joinpath("words.yaml").read_text(encoding="utf-8")
    lists: dict[str, Any] = yaml.safe_load(text)
    return lists


def _pattern(phrases: Iterable[str]) -> re.Pattern[str]:
    bodies = [re.escape(phrase).replace(r"\*", r"\w*").replace(r"\ ", r"\s+") for phrase in phrases]
    return re.compile(rf"(?<!\w)(?:{'|'.join(bodies)})(?!\w)", re.IGNORECASE)
