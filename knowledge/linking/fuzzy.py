"""Spelling tolerance: words that nobody knows are put right where just one word of the graph or the rules is meant.

A word is left alone if it stands in a surface, in a rule or in `known_words.txt`, or is one of these with a prefix or
an ending. Others are compared with the words of surfaces and rules: one slip (a letter too many, too few, wrong, or two
exchanged) from five letters on, two from nine. Where two different words fit equally well, or where a prefix of another
meaning is as near (hypo, hyper), the word stays as it is. Slips of the space bar are mended too ("pleuraleffusion",
"effu sion", "effu-" at a line's end).

References: Garbe 2012 (SymSpell: shortened forms as an index); Boytsov 2011 (optimal string alignment,
doi:10.1145/1963190.1963191).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Collection, Iterable, Iterator
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any

from kvlp.knowledge.linking.normalise import normalise, variants
from kvlp.knowledge.linking.rewriting import Edit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Spelling", "distance"]

_LETTERS = {code: chr(code).lower() if chr(code).isalpha() else " " for code in range(128)}
#: three letters or more, also letters with accents and invisible characters among them
_WORD = re.compile(r"[^\W\d_](?:[^\W\d_]|[\u0300-\u036f\u00ad\u200b-\u200d\u2060\ufeff]){2,}")
_SHORTEST, _LONG, _TOO_LONG = 5, 9, 40
_ONE_SLIP, _TWO_SLIPS, _SPACES = 0.9, 0.8, 0.9
#: shortened forms are made of so many first letters
_INDEXED = 7
_GAP = re.compile(r"[ \t]?|-?[ \t]*\r?\n[ \t]*|-")
#: a word that begins with one of these is a word of its own if the rest is one
_PREFIX = re.compile(
    "anti|auto|bi|brady|cardio|cranio|dis|de|endo|epi|extra|hemi|hydro|hyper|hypo|infra|inter|intra|im|in|juxta|macro|"
    "micro|mid|mini|multi|myo|neo|neuro|non|osteo|over|para|peri|pleuro|pneumo|poly|post|pre|pseudo|retro|re|semi|sub|"
    "super|supra|tachy|trans|ultra|under|un"
)
_ENDING = re.compile(r"(?<=\w{4})(?:(?<!s)s|es|ed|ly|ing|ness|like|oid|al|ic|able|less|ist|itis|osis|ous|ity|(?<!y)y)$")
#: prefixes of which a slip makes the other, and with it another meaning
_OPPOSITE = {"hypo": "hyper", "hyper": "hypo", "intra": "inter", "inter": "intra", "infra": "intra", "para": "peri",
             "peri": "para", "ante": "anti", "anti": "ante", "ad": "ab", "ab": "ad"}  # fmt: skip
#: endings that make another word of the same stem: "scoliotic" is no misspelt "scoliosis"
_FORMS = ("ic", "al", "um", "ia", "is", "in", "us", "ous", "oid", "ory", "ary", "ed", "ing", "ion", "oma")
#: a text with more unknown words than this, and more than one in so many, is no report with slips
_MOST_UNKNOWN = 100
_UNKNOWN_WORDS_KEPT = 100_000


class Spelling:
    """Finds misspelt words.

    Args:
        surfaces: normalised surfaces of the graph.
        phrases: normalised phrases of the rules.
        words: the words of the surfaces, where they are known.
    """

    def __init__(self, surfaces: Collection[str], phrases: Iterable[str], words: frozenset[str] | None = None) -> None:
        self._surfaces = surfaces
        self._phrases = frozenset(phrases)
        self._meant = frozenset(" ".join(surfaces).split()) if words is None else words
        self._words = self._meant.union(" ".join(self._phrases).split())
        self._fixed: dict[str, Edit | None] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_fixed": {}}  # no words of reports in a pickle

    def knows(self, text: str) -> bool:
        """Whether all words of a part of a text are known, so that nothing in it is to be put right."""
        if not text.isascii():
            return False
        return known_words().issuperset(set(text.translate(_LETTERS).split()).difference(self._words))

    def _is_known(self, word: str) -> bool:
        return word in self._words or word in known_words()

    def edits(self, text: str) -> list[Edit]:
        """What to put right in a text; mostly nothing, which costs next to nothing."""
        words = text.translate(_LETTERS).split() if text.isascii() else _WORD.findall(text.lower())
        unknown = set(words).difference(self._words, known_words())
        if not unknown or len(unknown) > max(_MOST_UNKNOWN, len(words) // _MOST_UNKNOWN):
            return []
        return list(self._edits(text, unknown))

    def _edits(self, text: str, unknown: set[str]) -> Iterator[Edit]:
        matches = list(_WORD.finditer(text))
        for k, match in enumerate(matches):
            word = match[0].lower()
            if word not in unknown or len(word) != len(match[0]):  # some capitals become two characters
                continue
            if self._is_known(_folded(word)):
                continue
            joined = self._joined(text, matches[max(k - 1, 0) : k + 2])
            if joined is not None:
                yield joined
                continue
            fixed = self._fix(word)
            if fixed is not None and not (len(word) < _LONG - 1 and _is_a_name(text, match)):
                at = match.start()
                yield Edit(at + fixed.start, at + fixed.end, _as_written(match[0], fixed.text), fixed.score)

    def _joined(self, text: str, matches: list[re.Match[str]]) -> Edit | None:
        """Two neighbours that make one word: "effu sion"."""
        for one, other in pairwise(matches):
            whole = (one[0] + other[0]).lower()
            if whole in self._words and len(whole) > _SHORTEST and _GAP.fullmatch(text, one.end(), other.start()):
                return Edit(one.end(), other.start(), "", _SPACES)
        return None

    def _fix(self, word: str) -> Edit | None:
        """What to change in a word that nobody knows, remembered."""
        if word in self._fixed:
            return self._fixed[word]
        fixed = None
        if _SHORTEST <= len(word) <= _TOO_LONG and "xx" not in word and not self._is_made_of_known(word):
            fixed = self._apart(word) or self._nearest(word)
        if len(self._fixed) < _UNKNOWN_WORDS_KEPT:
            self._fixed[word] = fixed
        return fixed

    def _is_made_of_known(self, word: str) -> bool:
        prefix, ending = _PREFIX.match(word), _ENDING.search(word)
        if prefix and len(word) - prefix.end() > 3 and self._is_known(word[prefix.end() :]):
            return True
        stem = word[: ending.start()] if ending else ""
        return bool(stem) and any(self._is_known(w) for w in (stem, stem + "e", stem[:-1] + "y"))

    def _apart(self, word: str) -> Edit | None:
        """A blank between two words written as one, if there is exactly one way to part them."""
        found = [k for k in range(2, len(word) - 3) if self._are_two(word[:k], word[k:])]
        return Edit(found[0], found[0], " ", _SPACES) if len(found) == 1 else None

    def _are_two(self, left: str, right: str) -> bool:
        if f"{left} {right}" in self._surfaces:
            return True
        leads = left in self._phrases or (left in self._surfaces and len(left) > 3)
        return leads and len(right) >= _SHORTEST and right in self._surfaces

    def _nearest(self, word: str) -> Edit | None:
        reach = _reach(word)
        ranked = sorted((distance(word, other, reach), other) for other in self._index.near(word))
        ranked = [r for r in ranked if r[0] <= min(reach, _reach(r[1])) and _same_prefix(word, r[1])]
        if not ranked:
            return None
        least = ranked[0][0]
        best = [other for d, other in ranked if d == least]
        choice = min(best, key=lambda other: (other[-1] != word[-1], other[0] != word[0]))
        kin = set(variants(choice))
        if any(other not in kin for other in best) or self._is_doubtful(word, choice, least):
            return None
        return Edit(0, len(word), choice, _ONE_SLIP if least == 1 else _TWO_SLIPS)

    def _is_doubtful(self, word: str, choice: str, slips: int) -> bool:
        """Whether something else may be meant: a plain word as near, or a word of the opposite meaning."""
        if slips == 2 and (choice[0] != word[0] or choice not in self._meant):
            return True
        if slips == 2 and any(self._is_known(w) for w in _one_slip(word)):
            return True
        if len(word) <= _SHORTEST and any(w != choice and self._is_known(w) for w in _one_slip(word)):
            return True
        if _same_stem(word, choice):
            return True
        opposites = [p + choice[len(q) :] for q, p in _OPPOSITE.items() if choice.startswith(q)]
        return any(self._is_known(other) and distance(word, other, slips + 1) <= slips + 1 for other in opposites)

    @cached_property
    def _index(self) -> _Index:
        return _Index(sorted(w for w in self._words if len(w) >= _SHORTEST and w.isalpha()))


class _Index:
    """Words by their shortened forms: two words that differ by few slips share one of them."""

    def __init__(self, words: list[str]) -> None:
        import numpy as np

        keys: list[int] = []
        rows: list[int] = []
        for row, word in enumerate(words):
            forms = _shortened(word)
            keys += forms
            rows += [row] * len(forms)
        order = np.argsort(np.asarray(keys, dtype=np.uint32), kind="stable")
        self._words = words
        self._keys: NDArray[np.uint32] = np.asarray(keys, dtype=np.uint32)[order]
        self._rows: NDArray[np.int32] = np.asarray(rows, dtype=np.int32)[order]

    def near(self, word: str) -> set[str]:
        """Words that may be near; some are not."""
        import numpy as np

        forms = np.asarray(sorted(_shortened(word)), dtype=np.uint32)
        first, last = np.searchsorted(self._keys, forms, "left"), np.searchsorted(self._keys, forms, "right")
        return {self._words[row] for a, b in zip(first, last, strict=True) for row in self._rows[a:b]}


def _reach(word: str) -> int:
    """How many slips a word may have."""
    return 0 if len(word) < _SHORTEST else 1 if len(word) < _LONG else 2


def _shortened(word: str) -> set[int]:
    forms = last = {word[:_INDEXED]}
    for _ in range(_reach(word) or 1):
        last = {f[:k] + f[k + 1 :] for f in last for k in range(len(f))}
        forms = forms | last
    return {zlib.crc32(f.encode()) for f in forms}


def distance(a: str, b: str, most: int) -> int:
    """The slips between two words (insert, delete, change, exchange neighbours); `most` + 1 if there are more."""
    if abs(len(a) - len(b)) > most:
        return most + 1
    before: list[int] = []
    last = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            least = min(last[j] + 1, row[-1] + 1, last[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                least = min(least, before[j - 2] + 1)
            row.append(least)
        if min(row) > most:
            return most + 1
        before, last = last, row
    return min(last[-1], most + 1)


def _one_slip(word: str) -> Iterator[str]:
    for k in range(len(word) + 1):
        head, tail = word[:k], word[k:]
        if tail:
            yield head + tail[1:]
        if len(tail) > 1:
            yield head + tail[1] + tail[0] + tail[2:]
        for letter in ascii_lowercase:
            yield head + letter + tail[1:]
            yield head + letter + tail


def _same_stem(word: str, other: str) -> bool:
    """Whether two words are one stem with two endings."""
    ending = next((e for e in _FORMS if word.endswith(e)), None)
    if ending is None or other.endswith(ending) or not other.endswith(_FORMS):
        return False
    return word[:-4] == other[: len(word) - 4]


def _folded(word: str) -> str:
    return word if word.isascii() else normalise(word).text


def _same_prefix(word: str, other: str) -> bool:
    """Whether a prefix with a meaning, as the writer wrote it, is kept: "uncalcified" is not "calcified"."""
    prefix = _PREFIX.match(word)
    return prefix is None or other.startswith(prefix[0]) or (len(prefix[0]) < 3 and other[0] == word[0])


def _is_a_name(text: str, match: re.Match[str]) -> bool:
    """Whether a word in the middle of a sentence has a capital, or a short one is the only one in capitals."""
    if match[0].isupper():
        return len(match[0]) < 7 and not text[max(0, match.start() - 40) : match.end() + 40].isupper()
    before = text[max(0, match.start() - 20) : match.start()].rstrip(" \t")[-1:]
    return match[0][0].isupper() and match[0][1:].islower() and bool(before) and before not in ".:;!?\n\r-*"


def _as_written(raw: str, word: str) -> str:
    return word.upper() if raw.isupper() else word.capitalize() if raw[0].isupper() else word


@cache
def known_words() -> frozenset[str]:
    """The words of `known_words.txt`, and all of one or two letters."""
    text = Path(__file__).with_name("known_words.txt").read_text(encoding="utf-8")
    while text.startswith("#"):
        text = text.partition("\n")[2]
    short = (a + b for a in ascii_lowercase for b in ("", *ascii_lowercase))
    return frozenset([*text.split(), *short])
