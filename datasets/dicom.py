"""Displayed greys of DICOM radiographs (to come)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvlp.errors import DicomError
from kvlp.typing import PathLike

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["looks_like_dicom", "read_dicom"]


def looks_like_dicom(data: bytes) -> bool:
    """Say whether the bytes carry the DICOM mark."""
    return data[128:132] == b"DICM"


def read_dicom(source: PathLike | bytes, *, max_pixels: float = 64e6) -> NDArray[np.float32]:
    """Return displayed grey, float32 (H, W) in [0, 1]."""
    raise DicomError("DICOM cannot be read yet")
