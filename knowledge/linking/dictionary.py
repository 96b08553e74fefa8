"""Finds many phrases in a text at once, whole words only, in one pass over normalised text.

One dict holds every phrase and every beginning of one, word by word: from each word of the text the search goes on as
long as the words so far begin a phrase. That takes time linear in the text, is ready as soon as the dict is, and needs
no automaton (one over 60,000 surfaces takes as long to build as some thousand reports to read).

Phrases belong to groups (concepts, triggers, subjects, predicates); within a group the leftmost, then longest, match
wins, and groups do not disturb each other.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Generic, TypeAlias, TypeVar

from kvlp.knowledge.linking.normalise import normalise

__all__ = ["Dictionary", "beginnings_of", "expand"]

T = TypeVar("T")
Found: TypeAlias = "tuple[int, int, T]"
_CROSSES = re.compile(r"[,;:()\[\]!?]|\.\s|\n\s*\n")
_PLAIN = re.compile(r"[a-z0-9 ]*")
_GROUP = re.compile(r"\(([^()]*)\)")


class Dictionary(Generic[T]):
    """Phrases in groups, and where they stand in a text.

    Args:
        groups: for each group a mapping from a normalised phrase to what it means.
        beginnings: those of the first group's phrases, where they are known (see `beginnings_of`).
    """

    def __init__(self, groups: Sequence[Mapping[str, T]], beginnings: Collection[str] | None = None) -> None:
        self._n_groups = len(groups)
        first, *others = groups
        begun = beginnings_of(first) if beginnings is None else beginnings
        beginnings = {*begun, *beginnings_of(phrase for group in others for phrase in group)}
        # a phrase -> (group, meaning) pairs; empty for what is no phrase but begins one
        self._meanings: dict[str, tuple[tuple[int, T], ...]] = dict.fromkeys(beginnings, ())
        pairs = {id(meaning): ((0, meaning),) for meaning in first.values()}
        self._meanings.update(zip(first, [pairs[id(meaning)] for meaning in first.values()], strict=True))
        for number, group in enumerate(others, 1):
            for phrase, meaning in group.items():
                self._meanings[phrase] = (*self._meanings.get(phrase, ()), (number, meaning))
        self._meanings.pop("", None)
        self._size = sum(map(bool, self._meanings.values()))
        # words with which longer phrases begin
        self._first_words = {b for b in beginnings if " " not in b}

    def __len__(self) -> int:
        return self._size

    def find(self, text: str) -> list[list[Found]]:
        """Find all phrases: for each group a list of (start, end, meaning), in order, apart from each other."""
        normal = normalise(text)
        whole, span = normal.text + " ", normal.span if normal.shifted else _same
        meanings_of, find, first_words = self._meanings.get, whole.find, self._first_words
        hits: list[list[Found]] = [[] for _ in range(self._n_groups)]
        done = [0] * self._n_groups
        first = 0
        for word in normal.text.split(" "):
            stop = end_of_word = first + len(word)
            meanings = meanings_of(word)
            if meanings is not None:
                found = [(stop, meanings)]
                if word in first_words:
                    while meanings is not None and (stop := find(" ", stop + 1)) > 0:
                        meanings = meanings_of(whole[first:stop])
                        if meanings:
                            found.append((stop, meanings))
                    found.reverse()
                for stop, meanings in found:
                    if meanings:
                        start, end = span(first, stop)
                        if stop > end_of_word and _CROSSES.search(text, start, end):
                            continue
                        for group, meaning in meanings:
                            if first >= done[group]:
                                hits[group].append((start, end, meaning))
                                done[group] = stop
            first = end_of_word + 1
        return hits


def _same(start: int, end: int) -> tuple[int, int]:
    return start, end


def beginnings_of(phrases: Iterable[str]) -> set[str]:
    """The phrases without their last word, without their last two words ... down to one word."""
    found: set[str] = set()
    todo = {p.rpartition(" ")[0] for p in phrases}
    while todo:
        found |= todo
        todo = {p.rpartition(" ")[0] for p in todo} - found
    return found - {""}


def expand(phrases: Sequence[str]) -> Iterator[str]:
    """Write out alternatives: "no (new|) mass" gives "no new mass" and "no mass"."""
    for phrase in phrases:
        match = _GROUP.search(phrase)
        if match is None:
            plain = phrase if _PLAIN.fullmatch(phrase) else normalise(phrase).text
            yield " ".join(plain.split())
        else:
            yield from expand([phrase[: match.start()] + word + phrase[match.end() :] for word in match[1].split("|")])
