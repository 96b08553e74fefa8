"""Words and small pieces that the blocks of an evaluation share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

from kvlp.eval.intervals import Interval
from kvlp.eval.results import Result

__all__ = ["KINDS", "NOTE", "interval_of", "plain", "target_of", "titled", "upper"]

_T = TypeVar("_T")
#: what each score is, in words
KINDS = {"POS": "“there is X”", "NEG": "“there is no X”, turned round", "PAIR": "both combined", "VERSUS": "A minus B"}
NOTE = "Small print: 95 % interval. Bold: mean over the classes of a group, each class counting alike."


def interval_of(row: Result) -> Interval:
    """A row's figure as an interval to show."""
    return Interval(row.value, row.low, row.high, 0, row.method, p=row.p)


def target_of(row: Result) -> str:
    """What a row is about, to read."""
    if row.target != "macro":
        return plain(row.target)
    return "mean of all classes" if row.group in ("", "all") else f"mean: {row.group}"


def titled(title: str, items: Sequence[_T], most: int) -> list[tuple[str, Sequence[_T]]]:
    """Split into parts of nearly equal size, none longer than `most`, each under a numbered title."""
    count = math.ceil(len(items) / most)
    edges = [round(i * len(items) / max(count, 1)) for i in range(count + 1)]
    parts = [items[a:b] for a, b in pairwise(edges)]
    return [(f"{title} ({i} of {count})" if count > 1 else title, part) for i, part in enumerate(parts, start=1)]


def plain(name: str) -> str:
    """A class name to read: concept ids without underscores."""
    return name.replace("_", " ")


def upper(text: str) -> str:
    """The first letter as a capital."""
    return text[:1].upper() + text[1:]
