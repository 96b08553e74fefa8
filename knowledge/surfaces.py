"""How surfaces (names and synonyms as people write them) are compared: case, hyphens and accents do not count."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable, Sequence

__all__ = ["FUZZY_LIMIT", "contains_phrase", "fold", "fold_all", "near"]

_JOINERS = re.compile(r"[-‐-―_/\s]+")
_APOSTROPHES = re.compile(r"['’`]")
#: difflib compares with every candidate: beyond this many only those that share the first letters are compared
FUZZY_LIMIT = 20_000


def fold(text: str) -> str:
    """Return `text` in the form in which surfaces are compared.

    Lower case, accents removed, hyphens, underscores, slashes and white space as one blank, no apostrophes:
    "Port-A-Cath" and "port a cath" fold alike.
    """
    plain = text if text.isascii() else _without_accents(text)
    return _JOINERS.sub(" ", _APOSTROPHES.sub("", plain)).strip().lower()


def fold_all(texts: Sequence[str]) -> list[str]:
    """Return `fold` of each text, many times as fast as one by one where they are not ASCII."""
    together = unicodedata.normalize("NFKD", "\0".join(texts))
    for accent in filter(unicodedata.combining, set(together)):
        together = together.replace(accent, "")
    together = _JOINERS.sub(" ", _APOSTROPHES.sub("", together)).lower()
    folded = [text.strip(" ") for text in together.split("\0")] if texts else []
    return folded if len(folded) == len(texts) else [fold(text) for text in texts]


def _without_accents(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def near(word: str, candidates: Iterable[str], n: int = 3) -> list[str]:
    """Return at most `n` candidates that look like `word`, best first (already folded strings)."""
    pool = list(dict.fromkeys(candidates))
    if len(pool) > FUZZY_LIMIT:
        pool = [c for c in pool if c[:2] == word[:2]]
    return difflib.get_close_matches(word, pool, n=n, cutoff=0.6)


def contains_phrase(text: str, phrase: str) -> bool:
    """Say whether `phrase` stands in `text` as whole words, in singular or plural (both already folded)."""
    if not phrase:
        return False
    stem = (
        phrase[:-1] if len(phrase) > 3 and phrase.endswith("s") and not phrase.endswith(("ss", "is", "us")) else phrase
    )
    return re.search(rf"(?<!\w){re.escape(stem)}(?:s|es)?(?!\w)", text) is not None
