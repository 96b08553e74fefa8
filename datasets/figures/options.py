"""What a user may choose about the import of figures."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from difflib import get_close_matches

from kvlp.datasets.figures.modality import KEPT, KINDS
from kvlp.errors import ConfigError

__all__ = ["VERSION", "FigureOptions"]

#: changes whenever the same input would come out differently; then nothing that was made before is carried on
VERSION = 1


@dataclass(frozen=True, slots=True)
class FigureOptions:
    """Choices of the importer.

    Attributes:
        licence: patterns such as "CC BY*" (`*`, `?`, any case), several with commas between; "" keeps all.
        keep: kinds of picture to keep, out of `modality.KINDS`.
        min_confidence: pairs below are dropped, 0 to 1.
        min_side: panels whose shorter side has fewer pixels are dropped.
        third_party: also keep figures that say they are someone else's.
        ocr: "auto", "tesseract" or "none".
    """

    licence: str = ""
    keep: tuple[str, ...] = KEPT
    min_confidence: float = 0.0
    min_side: int = 64
    third_party: bool = False
    ocr: str = "auto"

    def __post_init__(self) -> None:
        """Raises: ConfigError for an unknown kind of picture or a number out of range."""
        for kind in self.keep:
            if kind not in KINDS:
                near = get_close_matches(kind, KINDS, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ConfigError(f"no kind of picture is called {kind!r}{hint} Kinds: {', '.join(KINDS)}")
        if not 0 <= self.min_confidence <= 1 or self.min_side < 1:
            raise ConfigError(
                f"expected min_confidence within 0 to 1 and min_side >= 1, got {self.min_confidence}, {self.min_side}"
            )

    def fingerprint(self, engine: str) -> str:
        """A hash of everything that decides what comes out: these choices, the OCR engine and this module's version."""
        told = {**asdict(self), "engine": engine, "version": VERSION}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
