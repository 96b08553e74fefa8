"""Whether a picture can be a frontal chest radiograph at all: a coarse check on a thumbnail, not a classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Plausibility", "radiograph_check"]


@dataclass(frozen=True, slots=True)
class Plausibility:
    """`ok`, or the `reason` why an image is not plausibly a frontal radiograph."""

    ok: bool
    reason: str = ""


def radiograph_check(pixels: NDArray[Any]) -> Plausibility:
    """Check an image of shape (H, W) or (H, W, 3): uint8, uint16, or floating in [0, 1]."""
    if pixels.min() == pixels.max():
        return Plausibility(False, "one single grey")
    return Plausibility(True)
