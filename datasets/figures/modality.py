"""What kind of picture a panel is: three plain measures of its pixels, then the words of its caption. No model.

The pixels say drawing, colour or grey; the words choose among the kinds that look so. Every answer carries its reason.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kvlp.datasets.figures.words import modality_words

__all__ = ["KEPT", "KINDS", "Modality", "PixelFacts", "pixel_facts", "tell_modality"]

#: a grey picture that no word names: most likely a radiological one
UNNAMED = "radiology"
KINDS = (*modality_words(), UNNAMED)
#: what is kept unless the user says otherwise
KEPT = ("radiograph", "ct", "mr", "ultrasound", "nuclear", "angiography", UNNAMED)
_LOOKS = {
    "grey": ("radiograph", "ct", "mr", "ultrasound", "nuclear", "angiography", "microscopy", "endoscopy", "photograph"),
    "colour": ("microscopy", "photograph", "endoscopy", "nuclear", "ultrasound", "mr", "ct", "angiography"),
    "drawing": ("plot",),
}
_SATURATED, _COLOURFUL = 40, 0.12
_WHITE, _MOSTLY_WHITE, _FEW_TONES = 243, 0.45, 0.3


@dataclass(frozen=True, slots=True)
class PixelFacts:
    """Shares of a picture's pixels, 0 to 1: strongly coloured, white, in between black and white; pink to purple."""

    coloured: float
    white: float
    toned: float
    pink: float

    @property
    def look(self) -> str:
        """ "drawing", "colour" or "grey"."""
        if self.white >= _MOSTLY_WHITE and self.toned < _FEW_TONES:
            return "drawing"
        return "colour" if self.coloured >= _COLOURFUL else "grey"


@dataclass(frozen=True, slots=True)
class Modality:
    """A kind out of `KINDS`, and why: "grey picture; the sub-caption says ct"."""

    kind: str
    reason: str


def pixel_facts(pixels: NDArray[np.uint8]) -> PixelFacts:
    """Measure a picture (H, W, 3) uint8."""
    step = max(1, max(pixels.shape[:2]) // 256)
    small = pixels[::step, ::step].astype(np.int16)
    low, high = small.min(axis=2), small.max(axis=2)
    red, green, blue = small[..., 0], small[..., 1], small[..., 2]
    coloured = high - low > _SATURATED
    return PixelFacts(
        coloured=float(coloured.mean()),
        white=float((low >= _WHITE).mean()),
        toned=float(((low < 225) & (high > 40)).mean()),
        pink=float(((red > green + 20) & (blue > green + 12)).mean()),
    )


def tell_modality(pixels: NDArray[np.uint8], own: str, shared: str = "") -> Modality:
    """Tell what kind of picture a panel is.

    Args:
        pixels: the panel, (H, W, 3) uint8.
        own: the words said of it alone.
        shared: the words said of the whole figure; they count where the panel's own name no kind.
    """
    facts = pixel_facts(pixels)
    for text, where in ((own, "the sub-caption"), (shared, "the caption")):
        kind = _named(text, _LOOKS[facts.look])
        if kind:
            return Modality(kind, f"{facts.look} picture; {where} says {kind}")
    if facts.look == "drawing":
        return Modality("plot", "mostly white with few tones")
    if facts.look == "grey":
        return Modality(UNNAMED, "grey picture; no word names its kind")
    pink = facts.pink > 0.4
    return Modality(
        "microscopy" if pink else "photograph", f"colour picture{', mostly pink to purple' if pink else ''}"
    )


def _named(text: str, allowed: tuple[str, ...]) -> str:
    """The kind that a text names most often among those allowed; the first in the word list of equal ones; or ""."""
    counts = {kind: len(pattern.findall(text)) for kind, pattern in modality_words().items() if kind in allowed}
    best = max(counts, key=counts.__getitem__)
    return best if counts[best] else ""
