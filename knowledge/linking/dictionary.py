"""Finds many phrases in a text at once: one Aho-Corasick automaton over normalised text, whole words only.

Phrases belong to groups (concepts, triggers, subjects, predicates); within a group the leftmost, then longest, match
wins, and groups do not disturb each other. One pass over the text serves them all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import ahocorasick_rs

from kvlp.knowledge.linking.normalise import normalise

__all__ = ["Dictionary", "expand"]

T = TypeVar("T")
_CROSSES = re.compile(r"[,;:()\[\]!?]|\.\s|\n\s*\n")
_GROUP = re.compile(r"\(([^()]*)\)")


class Dictionary(Generic[T]):
    """Phrases in groups, and where they stand in a text.

    Args:
        groups: for each group a mapping from a normalised phrase to what it means.
    """

    def __init__(self, groups: Sequence[Mapping[str, T]]) -> None:
        self._n_groups = len(groups)
        phrases: dict[str, list[tuple[int, T]]] = {}
        for number, group in enumerate(groups):
            for phrase, meaning in group.items():
                phrases.setdefault(phrase, []).append((number, meaning))
        self._phrases = list(phrases)
        self._meanings = list(phrases.values())
        self._several_words = [" " in p for p in self._phrases]
        self._automaton = _automaton(self._phrases)

    def __len__(self) -> int:
        return len(self._phrases)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_automaton"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._automaton = _automaton(self._phrases)

    def find(self, text: str) -> list[list[tuple[int, int, T]]]:
        """Find all phrases: for each group a list of (start, end, meaning), in order, apart from each other."""
        normal = normalise(text)
        found = self._automaton.find_matches_as_indexes(f" {normal.text} ", overlapping=True)
        found.sort(key=_leftmost_longest)
        hits: list[list[tuple[int, int, T]]] = [[] for _ in range(self._n_groups)]
        last = [0] * self._n_groups
        for number, first, stop in found:
            meanings = self._meanings[number]
            if first < last[meanings[0][0]] and len(meanings) == 1:
                continue  # inside a longer match
            start, end = normal.span(first, stop - 2)
            if self._several_words[number] and _CROSSES.search(text, start, end):
                continue
            for group, meaning in meanings:
                if first >= last[group]:
                    hits[group].append((start, end, meaning))
                    last[group] = stop - 2
        return hits


def expand(phrases: Sequence[str]) -> Iterator[str]:
    """Write out alternatives: "no (new|) mass" gives "no new mass" and "no mass"."""
    for phrase in phrases:
        match = _GROUP.search(phrase)
        if match is None:
            yield " ".join(normalise(phrase).text.split())
        else:
            yield from expand([phrase[: match.start()] + word + phrase[match.end() :] for word in match[1].split("|")])


def _automaton(phrases: Sequence[str]) -> ahocorasick_rs.AhoCorasick:
    return ahocorasick_rs.AhoCorasick(
        [f" {p} " for p in phrases], matchkind=ahocorasick_rs.MatchKind.Standard, store_patterns=False
    )


def _leftmost_longest(hit: tuple[int, int, int]) -> int:
    return (hit[1] << 40) - hit[2]
