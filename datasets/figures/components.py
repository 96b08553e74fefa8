"""Connected parts of a mask, from the runs of its rows: no image library is needed for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Components", "find_components"]


@dataclass(frozen=True, slots=True)
class Components:
    """The 8-connected parts of a mask.

    Attributes:
        boxes: (N, 4) int: top, left, bottom, right; bottom and right are one past the last pixel.
        areas: (N,) int: pixels.
        runs: (R, 4) int: row, first column, one past the last column, component; each row's runs in order.
    """

    boxes: NDArray[np.int64]
    areas: NDArray[np.int64]
    runs: NDArray[np.int64]

    def mask(self, keep: NDArray[np.bool_], shape: tuple[int, int]) -> NDArray[np.bool_]:
        """The pixels (H, W) of the components for which `keep` (N,) is true."""
        edges = np.zeros((shape[0], shape[1] + 1), dtype=np.int8)
        runs = self.runs[keep[self.runs[:, 3]]]
        edges[runs[:, 0], runs[:, 1]] = 1
        edges[runs[:, 0], runs[:, 2]] -= 1
        return np.cumsum(edges[:, :-1], axis=1, dtype=np.int8) > 0


def find_components(mask: NDArray[np.bool_]) -> Components:
    """Return the 8-connected components of a mask (H, W), numbered from 0 in reading order of their first run."""
    rows, starts, ends = _runs(mask)
    if not len(rows):
        return Components(np.zeros((0, 4), np.int64), np.zeros(0, np.int64), np.zeros((0, 4), np.int64))
    _, labels = np.unique(_joined(len(rows), *_touching(rows, starts, ends, mask.shape[1])), return_inverse=True)
    count = int(labels.max()) + 1
    boxes = np.empty((count, 4), np.int64)
    boxes[:, :2], boxes[:, 2:] = np.iinfo(np.int64).max, 0
    np.minimum.at(boxes[:, 0], labels, rows)
    np.minimum.at(boxes[:, 1], labels, starts)
    np.maximum.at(boxes[:, 2], labels, rows + 1)
    np.maximum.at(boxes[:, 3], labels, ends)
    areas = np.bincount(labels, ends - starts, count).astype(np.int64)
    return Components(boxes, areas, np.stack([rows, starts, ends, labels], axis=1))


def _runs(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Row, first column and end of each run of true pixels, in reading order."""
    padded = np.zeros((mask.shape[0], mask.shape[1] + 2), dtype=np.int8)
    padded[:, 1:-1] = mask
    change = np.diff(padded, axis=1)
    rows, starts = np.nonzero(change == 1)
    ends = np.nonzero(change == -1)[1]
    return rows.astype(np.int64), starts.astype(np.int64), ends.astype(np.int64)


def _touching(
    rows: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64], width: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of runs in rows that follow each other and overlap, diagonals included."""
    stride = width + 3
    first = rows * stride + starts  # ascending: so runs of the next row are found by bisection
    last = rows * stride + ends
    low = np.searchsorted(last, (rows + 1) * stride + starts, side="left")
    high = np.searchsorted(first, (rows + 1) * stride + ends, side="right")
    counts = np.maximum(high - low, 0)
    upper = np.repeat(np.arange(len(rows)), counts)
    offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return upper, np.repeat(low, counts) + offsets


def _joined(count: int, one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """The least index that each of `count` runs is joined to, by hooking roots and jumping pointers."""
    root = np.arange(count)
    while True:
        a, b = root[one], root[other]
        if (a == b).all():
            return root
        low, high = np.minimum(a, b), np.maximum(a, b)
        np.minimum.at(root, high, low)
        while (jump := root[root]).tobytes() != root.tobytes():
            root = jump
