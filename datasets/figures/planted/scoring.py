"""How many pairs came out as planted: right box, right label, right words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kvlp.datasets.figures.panels import Box
from kvlp.datasets.figures.planted.packages import PlantedPanel

__all__ = ["LEAST_OVERLAP", "Found", "Tally", "score_pairs"]

#: a box is right if intersection over union with the planted one is at least this
LEAST_OVERLAP = 0.75


class Found(NamedTuple):
    """A pair that came out: label, box and text."""

    label: str
    box: Box
    text: str


@dataclass(frozen=True, slots=True)
class Tally:
    """Pairs that are right, pairs that came out, pairs that were planted."""

    right: int = 0
    found: int = 0
    planted: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.right + other.right, self.found + other.found, self.planted + other.planted)

    @property
    def f1(self) -> float:
        """2 right / (found + planted); 1 where nothing was planted and nothing came out."""
        return 2 * self.right / (self.found + self.planted) if self.found + self.planted else 1.0


def score_pairs(found: Sequence[Found], planted: Sequence[PlantedPanel]) -> Tally:
    """Count: a pair is right if a planted one has its label, its box (`LEAST_OVERLAP`) and the same words in order."""
    truth = {panel.label: panel for panel in planted}
    labels = [pair.label for pair in found]
    right = sum(
        pair.label in truth
        and labels.count(pair.label) == 1
        and pair.box.overlap(truth[pair.label].box) >= LEAST_OVERLAP
        and _words(pair.text) == _words(truth[pair.label].text)
        for pair in found
    )
    return Tally(right, len(found), len(planted))


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
