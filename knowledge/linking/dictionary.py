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
from itertools import chain, pairwise, repeat
from typing import Any, Generic, TypeAlias, TypeVar

from kvlp.knowledge.linking.normalise import Normal, normalise

__all__ = ["Dictionary", "beginnings_of", "expand"]

T = TypeVar("T")
Found: TypeAlias = "tuple[int, int, T]"
# begins with a set of characters and looks back from there: that is searched several times faster
_CROSSES = re.compile(r"[,;:()\[\]!?.\n](?:(?<=[,;:()\[\]!?])|(?<=\.)\s|(?<=\n)\s*\n)")
_NOTHING = (None,)
_PLAIN = re.compile(r"[a-z0-9 ]*")
_GROUP = re.compile(r"\(([^()]*)\)")


class _Groups(tuple[tuple[int, Any], ...]):
    """Groups that a phrase belongs to, with what it means there. (A phrase of the first group alone has its bare
    meaning instead: a table of 100,000 is then a copy, ready at once.)"""

    __slots__ = ()


#: of what only begins a phrase
_BEGINS = _Groups()


class Dictionary(Generic[T]):
    """Phrases in groups, and where they stand in a text.

    Args:
        groups: for each group a mapping from a normalised phrase to what it means.
        beginnings: those of the first group's phrases that are no phrases themselves, where they are known (see
            `beginnings_of`).
    """

    def __init__(self, groups: Sequence[Mapping[str, T]], beginnings: Collection[str] | None = None) -> None:
        self._n_groups = len(groups)
        first, *others = groups
        self._meanings: dict[str, Any] = dict(first)
        if not all(first.values()):
            self._meanings = {phrase: _Groups([(0, meaning)]) for phrase, meaning in first.items()}
        begun = beginnings_of(first).difference(first) if beginnings is None else beginnings
        self._meanings.update(zip(begun, repeat(_BEGINS)))
        for number, group in enumerate(others, 1):
            alone = {id(meaning): _Groups([(number, meaning)]) for meaning in group.values()}
            for phrase, meaning in group.items():
                there = self._meanings.get(phrase)
                self._meanings[phrase] = _Groups([*_pairs(there), (number, meaning)]) if there else alone[id(meaning)]
        for beginning in beginnings_of(phrase for group in others for phrase in group):
            self._meanings.setdefault(beginning, _BEGINS)
        self._meanings.pop("", None)

    def __len__(self) -> int:
        return sum(map(bool, self._meanings.values()))

    def find(self, text: str) -> list[list[Found]]:
        """Find all phrases: for each group a list of (start, end, meaning), in order, apart from each other."""
        normal = normalise(text)
        words, meanings_of = normal.text.split(" "), self._meanings.get
        # of each word alone, and with the next one: most words begin nothing longer
        pairs = map(meanings_of, map(" ".join, pairwise(words)))
        hits: list[list[Found]] = [[] for _ in range(self._n_groups)]
        done = [0] * self._n_groups
        first = 0
        for word, meanings, longer in zip(words, map(meanings_of, words), chain(pairs, _NOTHING), strict=True):
            stop = first + len(word)
            if longer is not None:
                for end, said in self._phrases(text, normal, first, stop):
                    for group, meaning in _pairs(said):
                        if first >= done[group]:
                            hits[group].append((first, end, meaning))
                            done[group] = end
            elif meanings:
                for group, meaning in meanings if meanings.__class__ is _Groups else ((0, meanings),):
                    if first >= done[group]:
                        hits[group].append((first, stop, meaning))
                        done[group] = stop
            first = stop + 1
        return [[(*normal.span(s, e), m) for s, e, m in group] for group in hits] if normal.shifted else hits

    def _phrases(self, text: str, normal: Normal, first: int, stop: int) -> list[tuple[int, Any]]:
        """The phrases that begin with a word, the longest first: where each ends, and what it means."""
        whole, meanings_of = normal.text, self._meanings.get
        meanings = meanings_of(whole[first:stop])
        found = [(stop, meanings)] if meanings else []
        length, word = len(whole), stop
        while stop < length:
            stop = whole.find(" ", stop + 1)
            if stop < 0:
                stop = length
            meanings = meanings_of(whole[first:stop])
            if meanings:
                found.insert(0, (stop, meanings))
            elif meanings is None:
                break
        if found and found[0][0] > word and _CROSSES.search(text, *normal.span(first, found[0][0])) is not None:
            return [f for f in found if f[0] == word or not _CROSSES.search(text, *normal.span(first, f[0]))]
        return found


def _pairs(said: Any) -> Iterable[tuple[int, Any]]:
    return said if said.__class__ is _Groups else ((0, said),)


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
