"""From stored values to displayed greys (PS3.3 C.11), as a table: one entry for each value that a pixel can have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kvlp.errors import DicomError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom.dataset import Dataset

__all__ = ["apply_lut", "apply_window", "grey_table"]


def grey_table(
    dataset: Dataset, values: NDArray[np.int64], occurs: NDArray[np.bool_], *, window: int = 0
) -> NDArray[np.float32]:
    """Return the displayed grey in [0, 1] of each stored value.

    Args:
        dataset: the header.
        values: consecutive stored values, (N,).
        occurs: which of them a pixel has, (N,); the range of an image without window is taken from these.
        window: which of several windows or VOI LUTs; the first if there are fewer.
    """
    padding = _padding(dataset, values)
    modality = _modality(dataset, values)
    grey = _voi(dataset, modality, window)
    if grey is None:
        shown = modality[occurs & ~padding]
        if int(dataset.BitsStored) <= 8:
            shown = _modality(dataset, _stored_range(dataset))
        grey = _stretch(modality, shown)
    if _inverted(dataset):
        grey = 1 - grey
    return np.where(padding, 0, grey).astype(np.float32)


def apply_window(values: NDArray[np.floating], center: float, width: float, function: str) -> NDArray[np.float64]:
    """Map modality values to [0, 1] by a window (C.11.2.1.2 and C.11.2.1.3).

    Raises: DicomError for another function than LINEAR, LINEAR_EXACT, SIGMOID.
    """
    values = np.asarray(values, dtype=np.float64)
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700))))
    if function == "LINEAR_EXACT":
        return np.clip((values - center) / width + 0.5, 0, 1)
    if function != "LINEAR":
        raise DicomError("DICOM VOILUTFunction is unknown; expected LINEAR, LINEAR_EXACT or SIGMOID")
    if width == 1:
        return (values > center - 0.5).astype(np.float64)
    return np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1)


def apply_lut(values: NDArray[np.floating], item: Dataset, *, signed: bool) -> tuple[NDArray[np.float64], int]:
    """Look values up in a Modality or VOI LUT item; return the entries and the bits of an entry.

    Values below the first mapped one take the first entry, those beyond the end the last (C.11.1.1).
    """
    count, first, bits = (int(v) & 0xFFFF for v in item.LUTDescriptor)
    count = count or 65536
    first = first - 65536 if signed and first > 32767 else first
    if not 8 <= bits <= 16:
        raise DicomError(f"DICOM LUT of {bits} bits; expected 8 to 16")
    entries = _entries(item, count)
    index = np.clip(np.rint(values) - first, 0, count - 1).astype(np.int64)
    return entries[index].astype(np.float64), bits


def _entries(item: Dataset, count: int) -> NDArray[np.int64]:
    data = item.LUTData
    if isinstance(data, bytes):
        little = getattr(item, "original_encoding", (None, True))[1] is not False
        if count <= len(data) < 2 * count:
            return np.frombuffer(data, np.uint8)[:count].astype(np.int64)
        words = np.frombuffer(data[: len(data) // 2 * 2], "<u2" if little else ">u2")
    else:
        words = np.atleast_1d(np.asarray(data, dtype=np.int64)) & 0xFFFF
    if words.size < count <= 2 * words.size:  # two 8-bit entries packed in a word
        words = words.astype("<u2").view(np.uint8)
    if words.size < count:
        raise DicomError(f"DICOM LUT is cut off: {words.size} of {count} entries")
    return words[:count].astype(np.int64)


def _modality(dataset: Dataset, values: NDArray[np.int64]) -> NDArray[np.float64]:
    items = dataset.get("ModalityLUTSequence")
    if items:
        return apply_lut(values.astype(np.float64), items[0], signed=_is_signed(dataset))[0]
    slope, intercept = _number(dataset, "RescaleSlope", 1.0), _number(dataset, "RescaleIntercept", 0.0)
    if not (math.isfinite(slope) and math.isfinite(intercept)) or slope == 0:
        raise DicomError("DICOM RescaleSlope or RescaleIntercept is zero or not finite")
    return values * slope + intercept


def _voi(dataset: Dataset, modality: NDArray[np.float64], window: int) -> NDArray[np.float64] | None:
    """Greys by VOI LUT or window; None if the file has neither."""
    items = dataset.get("VOILUTSequence")
    if items:
        item = items[window if window < len(items) else 0]
        entries, bits = apply_lut(modality, item, signed=bool(modality.min() < 0) or _is_signed(dataset))
        return np.clip(entries / ((1 << bits) - 1), 0, 1)
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    least = 1 if function == "LINEAR" else np.nextafter(0, 1)
    pairs = zip(_numbers(dataset, "WindowCenter"), _numbers(dataset, "WindowWidth"))
    windows = [(c, w) for c, w in pairs if math.isfinite(c) and math.isfinite(w) and w >= least]
    if not windows:
        return None
    center, width = windows[window if window < len(windows) else 0]
    return apply_window(modality, center, width, function)


def _stretch(values: NDArray[np.float64], shown: NDArray[np.float64]) -> NDArray[np.float64]:
    if not shown.size or shown.min() == shown.max():
        return np.zeros_like(values)
    low, high = shown.min(), shown.max()
    return np.clip((values - low) / (high - low), 0, 1)


def _stored_range(dataset: Dataset) -> NDArray[np.int64]:
    bits = int(dataset.BitsStored)
    low = -(1 << (bits - 1)) if _is_signed(dataset) else 0
    return np.arange(low, low + (1 << bits))


def _inverted(dataset: Dataset) -> bool:
    """MONOCHROME1 and the shape INVERSE each ask for it; together (as DX images have them) they mean one inversion."""
    shape = str(dataset.get("PresentationLUTShape") or "").strip().upper()
    return str(dataset.PhotometricInterpretation).strip() == "MONOCHROME1" or shape == "INVERSE"


def _padding(dataset: Dataset, values: NDArray[np.int64]) -> NDArray[np.bool_]:
    from kvlp.datasets.dicom import stored_bits

    first = dataset.get("PixelPaddingValue")
    if not isinstance(first, int):
        return np.zeros(values.shape, dtype=bool)
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = [first, limit if isinstance(limit, int) else first]
    # the two may have been written as unsigned words beside signed pixels, or the other way round
    low, high = sorted(int(stored_bits(end, dataset)) for end in ends)
    return (values >= low) & (values <= high)


def _is_signed(dataset: Dataset) -> bool:
    return bool(int(dataset.get("PixelRepresentation") or 0))


def _number(dataset: Dataset, name: str, default: float) -> float:
    found = _numbers(dataset, name)
    return found[0] if found else default


def _numbers(dataset: Dataset, name: str) -> list[float]:
    value: Any = dataset.get(name)
    if value is None or value == "":
        return []
    many = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return [float(v) for v in many]
