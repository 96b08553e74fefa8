"""Short answers compared: exact match and overlap of words, and which answers a closed question leaves open."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

__all__ = ["candidates", "exact", "normalised", "token_f1"]

_ARTICLES = frozenset({"a", "an", "the"})
_WORD = re.compile(r"[^\W_]+(?:[.'’-][^\W_]+)*")
_AUXILIARY = re.compile(r"(is|are|was|were|does|do|did|has|have|had|can|could|will|would|should)\b", re.IGNORECASE)
#: candidates of a yes-no question, in this order
YES_NO = ("yes", "no")


def normalised(answer: str) -> str:
    """An answer in one form: lower case, without punctuation and articles, single blanks."""
    return " ".join(word for word in _WORD.findall(answer.casefold()) if word not in _ARTICLES)


def exact(answer: str, truth: str) -> float:
    """1 if the two are the same after `normalised`, else 0. An empty answer is never right."""
    said = normalised(answer)
    return float(bool(said) and said == normalised(truth))


def token_f1(answer: str, truth: str) -> float:
    """F1 of the words of both, each counted as often as it stands there; in [0, 1], 0 for no word in common."""
    said, right = Counter(normalised(answer).split()), Counter(normalised(truth).split())
    common = sum((said & right).values())
    return 2 * common / (sum(said.values()) + sum(right.values())) if common else 0.0


def candidates(question: str, pool: Iterable[str]) -> Sequence[str]:
    """The answers that a closed question leaves open.

    Answers of the pool that stand in a question with "or" ("right or left?"); else yes and no for a question that
    begins with is, are, does, ...; else the whole pool but yes and no. The right answer is not looked at.

    Args:
        question: its words.
        pool: normalised closed answers of the data set.
    """
    others = list(dict.fromkeys(answer for answer in pool if answer and answer not in YES_NO))
    words = f" {normalised(question)} "
    if " or " in words:
        named = [answer for answer in others if f" {answer} " in words]
        named = [a for a in named if not any(a != b and f" {a} " in f" {b} " for b in named)]
        if len(named) > 1:
            return named
    return YES_NO if _AUXILIARY.match(question.strip()) or not others else others
