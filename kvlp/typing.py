"""Names and types that all rooms share. Loads nothing beyond the standard library and NumPy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray: TypeAlias = NDArray[np.floating]
    IntArray: TypeAlias = NDArray[np.integer]

__all__ = [
    "ABSENT",
    "NOT_MENTIONED",
    "PRESENT",
    "UNCERTAIN",
    "Assertion",
    "PathLike",
    "Scorer",
    "label_of",
]

PathLike: TypeAlias = str | Path

#: Label values of CheXpert: present, absent, uncertain, not mentioned. A bare 0 always means absent.
PRESENT, ABSENT, UNCERTAIN, NOT_MENTIONED = 1.0, 0.0, -1.0, math.nan


class Assertion(StrEnum):
    """What a report says of a concept. A concept that it does not speak of has no assertion at all."""

    PRESENT = "present"
    ABSENT = "absent"
    UNCERTAIN = "uncertain"


def label_of(assertion: Assertion | None) -> float:
    """Return the label value of an assertion: 1.0, 0.0, -1.0, or NaN for None (not mentioned)."""
    if assertion is None:
        return NOT_MENTIONED
    return {Assertion.PRESENT: PRESENT, Assertion.ABSENT: ABSENT, Assertion.UNCERTAIN: UNCERTAIN}[assertion]


@runtime_checkable
class Scorer(Protocol):
    """The one contract between models and products: images and prompts in, a table of scores out."""

    def score(self, images: Sequence[object], prompts: Sequence[str]) -> FloatArray:
        """Score N images against C prompts: float32 array of shape (N, C); higher means a better match."""
        ...
