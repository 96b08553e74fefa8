"""Copies of one picture that are not equal byte for byte: re-encoded, resized, brightened, slightly cropped.

Chest radiographs of different patients look alike, so a near-duplicate is found in two steps. Candidates share low
frequencies: the DCT coefficients of a perceptual hash, kept as numbers and measured from the mean of the data, for each
of several crops. A candidate counts once its details (ribs, vessels, letters) agree too, after one picture was moved
and scaled onto the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kvlp.datasets.registration import detail_correlation
from kvlp.errors import ShapeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Ints = NDArray[np.intp]

__all__ = ["DETAIL", "SIDE", "NearDuplicate", "closest", "fingerprint", "near_duplicates"]

#: side of a fingerprint, in pixels
SIDE = 64
#: correlation of details from which two pictures are one: chosen in docs/leaks.md, far above what two patients reach
DETAIL = 0.8

#: correlation of low frequencies that makes a candidate
_ALIKE = 0.6
#: shares of the sides cut off in the crops that are compared
_CROPS = (0.0, 0.02, 0.04, 0.06, 0.08)
#: coefficients of the cosine transform, each way, without the mean
_WAVES = 8
#: with no more pairs than these every one is a candidate: the mean of few pictures says nothing
_FEW_PAIRS = 1024


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """Rows of two arrays of fingerprints that show one picture; `score` is the correlation of their details."""

    first: int
    second: int
    score: float


def fingerprint(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture without its plain frame, stretched to (SIDE, SIDE).

    Args:
        grey: uint8 (H, W), displayed grey.
    """
    from PIL import Image

    image = Image.fromarray(grey)
    image.thumbnail((4 * SIDE, 4 * SIDE), Image.Resampling.BOX)  # noise goes before the frame is looked for
    inside = Image.fromarray(_without_frame(np.asarray(image)))
    return np.asarray(inside.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.uint8)


def near_duplicates(
    first: NDArray[np.uint8], second: NDArray[np.uint8], *, candidates: Sequence[tuple[int, int]] = ()
) -> list[NearDuplicate]:
    """Find every pair of a row of `first` and a row of `second` that are one picture, best first.

    Args:
        first: uint8 (N, SIDE, SIDE), from `fingerprint`.
        second: uint8 (M, SIDE, SIDE).
        candidates: pairs (row of first, row of second) to look at besides those with like low frequencies.

    Raises:
        ShapeError: other shapes.
    """
    for name, rows in (("first", first), ("second", second)):
        if rows.ndim != 3 or rows.shape[1:] != (SIDE, SIDE):
            raise ShapeError(f"{name} must have shape (N, {SIDE}, {SIDE}) but has shape {rows.shape}")
    pairs = _candidates(first, second)
    pairs |= {pair: 1.0 for pair in candidates if pair not in pairs}
    found = []
    order = sorted(pairs)
    for start in range(0, len(order), 256):
        part = order[start : start + 256]
        rows, others = np.array(part, dtype=np.intp).T
        scale = np.array([pairs[pair] for pair in part])
        scores = detail_correlation(first[rows], second[others], scale)
        found += [NearDuplicate(*pair, float(s)) for pair, s in zip(part, scores, strict=True) if s >= DETAIL]
    return sorted(found, key=lambda pair: (-pair.score, pair.first, pair.second))


def closest(first: NDArray[np.float32], second: NDArray[np.float32], most: int = 3) -> list[tuple[int, int]]:
    """Pairs (row of first, row of second): for each row of the smaller array the `most` nearest of the other.

    Args:
        first: float32 (N, D), rows of length 1, or 0.
        second: float32 (M, D).
        most: neighbours of a row.
    """
    if len(first) < len(second):
        return [(i, j) for j, i in closest(second, first, most)]
    most = min(most, len(first))
    pairs = []
    for start in range(0, len(second), 256):
        table = second[start : start + 256] @ first.T
        nearest = np.argpartition(-table, most - 1, axis=1)[:, :most] if most else np.empty((0, 0), dtype=np.intp)
        pairs += [(int(i), start + row) for row, found in enumerate(nearest) for i in found]
    return pairs


def _without_frame(grey: NDArray[np.uint8], spread: int = 8) -> NDArray[np.uint8]:
    """Cut off rows and columns at the edges that hold one grey (as letterboxing adds), a third of each side at most."""
    cuts = []
    for axis in (0, 1):
        plain = np.ptp(grey, axis=1 - axis) <= spread
        most = len(plain) // 3
        inside = np.flatnonzero(~plain)
        low, high = (inside[0], inside[-1] + 1) if inside.size else (0, len(plain))
        cuts.append(slice(min(low, most), max(high, len(plain) - most)))
    return grey[tuple(cuts)]


def _waves(crop: float) -> Floats:
    """Rows that a picture is multiplied by to get its cosine coefficients within a crop: (_WAVES, SIDE)."""
    edges = np.clip(np.arange(SIDE + 1), crop * SIDE, (1 - crop) * SIDE)
    weight, middle = np.diff(edges), (edges[1:] + edges[:-1]) / 2 - crop * SIDE
    waves = np.cos(np.pi * np.arange(1, _WAVES + 1)[:, None] * middle / ((1 - 2 * crop) * SIDE))
    return (waves * weight).astype(np.float32)


def _descriptors(pictures: NDArray[np.uint8], crop: float) -> Floats:
    """Cosine coefficients of each picture, of length 1: (N, _WAVES ** 2)."""
    waves = _waves(crop)
    out = np.empty((len(pictures), _WAVES * _WAVES), dtype=np.float32)
    for start in range(0, len(pictures), 4096):
        part = slice(start, start + 4096)
        out[part] = (waves @ pictures[part].astype(np.float32) @ waves.T).reshape(-1, _WAVES * _WAVES)
    return _unit(out)


def _unit(rows: Floats) -> Floats:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def _candidates(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> dict[tuple[int, int], float]:
    """Pair -> the scale of the second picture on the first at which they are most alike."""
    if len(first) * len(second) <= _FEW_PAIRS:
        return {(i, j): 1.0 for i in range(len(first)) for j in range(len(second))}
    whole = np.concatenate([_descriptors(first, 0.0), _descriptors(second, 0.0)])
    middle, spread = whole.mean(axis=0), whole.std(axis=0) + 1e-6

    def views(pictures: NDArray[np.uint8]) -> list[Floats]:
        return [_unit((_descriptors(pictures, crop) - middle) / spread) for crop in _CROPS]

    ours, theirs = views(first), views(second)
    whole_of_ours, whole_of_theirs = ours[0], theirs[0]
    best: dict[tuple[int, int], tuple[float, float]] = {}
    for crop, one, other in zip(_CROPS, ours, theirs, strict=True):
        for rows, columns, scale in ((whole_of_ours, other, 1 - 2 * crop), (one, whole_of_theirs, 1 / (1 - 2 * crop))):
            for row, column, alike in _above(rows, columns, _ALIKE):
                best[row, column] = max(best.get((row, column), (0.0, 1.0)), (alike, scale))
    return {pair: scale for pair, (_, scale) in best.items()}


def _above(rows: Floats, others: Floats, least: float) -> Iterator[tuple[int, int, float]]:
    """Pairs whose inner product is at least `least`."""
    for start in range(0, len(rows), 256):
        table = rows[start : start + 256] @ others.T
        for row, column in zip(*np.nonzero(table >= least)):
            yield start + int(row), int(column), float(table[row, column])
