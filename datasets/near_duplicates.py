"""Copies of one picture that are not equal byte for byte: re-encoded, resized, brightened, slightly cropped.

Chest radiographs of different patients look alike, so a near-duplicate is found in two steps. Candidates share low
frequencies: the DCT coefficients of a perceptual hash, kept as numbers and measured from the mean of the data, for each
of several crops. A candidate counts once its details (ribs, vessels, letters) agree too, after one picture was moved
and scaled onto the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

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
#: least correlation of details from which two pictures are one; docs/leaks.md says what copies and others reach
DETAIL = 0.8
#: ... and where all pictures of the data are much alike, so many standard deviations above chance pairs, up to a limit
_DEVIATIONS, _CHANCE_PAIRS, _ENOUGH = 5.2, 128, 0.95

#: a candidate agrees by this much in its low frequencies, and is among the nearest of its row; of fewer pictures than
#: `_MANY` what they have in common is not well known, so more of them are looked at
_ALIKE, _NEAREST, _MANY = 0.6, 3, 1000
#: coefficients of the cosine transform, each way
_WAVES = 8
#: with no more pairs than these every one is a candidate: the spread of few pictures says nothing
_FEW_PAIRS = 400

#: shares of the width and height cut off left, right, above, below
Window: TypeAlias = tuple[float, float, float, float]
#: crops that are compared: even ones, and those of one side each way
_WINDOWS: tuple[Window, ...] = (
    *((share,) * 4 for share in (0.0, 0.02, 0.04, 0.06, 0.08)),
    *((*across, *down) for across in ((0.05, 0.0), (0.0, 0.05)) for down in ((0.05, 0.0), (0.0, 0.05))),
)


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
    first: NDArray[np.uint8],
    second: NDArray[np.uint8],
    *,
    candidates: Sequence[tuple[int, int]] = (),
    jobs: int = 2,
) -> list[NearDuplicate]:
    """Find every pair of a row of `first` and a row of `second` that are one picture, best first.

    Args:
        first: uint8 (N, SIDE, SIDE), from `fingerprint`.
        second: uint8 (M, SIDE, SIDE).
        candidates: pairs (row of first, row of second) to look at besides those with like low frequencies.
        jobs: threads that compare candidates.

    Raises:
        ShapeError: other shapes.
    """
    for name, rows in (("first", first), ("second", second)):
        if rows.ndim != 3 or rows.shape[1:] != (SIDE, SIDE):
            raise ShapeError(f"{name} must have shape (N, {SIDE}, {SIDE}) but has shape {rows.shape}")
    if len(first) > len(second):  # rows of the smaller ask for their nearest
        turned = near_duplicates(second, first, candidates=[(j, i) for i, j in candidates], jobs=jobs)
        return sorted((NearDuplicate(p.second, p.first, p.score) for p in turned), key=_best_first)
    if not len(first):
        return []
    pairs = _candidates(first, second, candidates)
    order = sorted(pairs)

    def compared(part: list[tuple[int, int]]) -> Floats:
        rows, others = np.array(part, dtype=np.intp).T
        return detail_correlation(first[rows], second[others], np.array([pairs[pair] for pair in part]))

    with ThreadPoolExecutor(max_workers=max(1, jobs)) as pool:
        parts = [order[start : start + 64] for start in range(0, len(order), 64)]
        scores = [float(score) for some in pool.map(compared, parts) for score in some]
    if max(scores, default=0.0) < DETAIL:
        return []
    least = _least(first, second)
    found = [NearDuplicate(*pair, score) for pair, score in zip(order, scores, strict=True) if score >= least]
    return sorted(found, key=_best_first)


def _best_first(pair: NearDuplicate) -> tuple[float, int, int]:
    return -pair.score, pair.first, pair.second


def _least(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """The correlation that makes a copy in these data: `DETAIL`, or up to `_ENOUGH` where chance pairs come near it.

    From the median and the 9th decile of Fisher's z of chance pairs, which a few copies among them do not move.
    """
    if len(first) * len(second) < _CHANCE_PAIRS:
        return DETAIL
    rng = np.random.default_rng(0)
    pairs = rng.choice(len(first) * len(second), size=_CHANCE_PAIRS, replace=False)
    rows, others = np.divmod(pairs, len(second))
    scores = [detail_correlation(first[rows[s : s + 64]], second[others[s : s + 64]]) for s in range(0, len(rows), 64)]
    middle, high = np.quantile(np.arctanh(np.clip(np.concatenate(scores), -0.999, 0.999)), (0.5, 0.9))
    return float(np.clip(np.tanh(middle + _DEVIATIONS * (high - middle) / 1.2816), DETAIL, _ENOUGH))


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


def _waves(before: float, after: float) -> Floats:
    """Rows that take SIDE / 2 pixels to the cosine coefficients of what is left within two cuts."""
    edges = np.clip(np.linspace(0, 1, SIDE // 2 + 1), before, 1 - after)
    weight, middle = np.diff(edges), (edges[1:] + edges[:-1]) / 2 - before
    waves = np.cos(np.pi * np.arange(_WAVES)[:, None] * middle / (1 - before - after))
    return (waves * weight).astype(np.float32)


def _coefficients(pictures: NDArray[np.uint8]) -> Floats:
    """Cosine coefficients within each window, of length 1, so that brightness and contrast do not count: (W, N, F)."""
    waves = [(_waves(*window[:2]).T, _waves(*window[2:])) for window in _WINDOWS]
    out = np.empty((len(_WINDOWS), len(pictures), _WAVES * _WAVES), dtype=np.float32)
    half = SIDE // 2
    for start in range(0, len(pictures), 1024):
        part = pictures[start : start + 1024]
        part = part.reshape(-1, half, 2, half, 2).mean(axis=(2, 4), dtype=np.float32)
        for number, (across, down) in enumerate(waves):
            out[number, start : start + 1024] = (down @ part @ across).reshape(len(part), -1)
    out[..., 0] = 0  # the mean
    return _unit(out)


def _unit(rows: Floats) -> Floats:
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-6)


def _whitening(rows: Floats) -> tuple[Floats, Floats]:
    """Mean (F,) and a matrix (F, K) after which all directions vary alike: what radiographs share does not count.

    Directions that hardly vary are kept small, the more so the fewer the rows: they are noise.
    """
    middle = rows.mean(axis=0)
    _, spread, axes = np.linalg.svd(rows - middle, full_matrices=False)
    variance = spread**2 / len(rows)
    floor = 4e-4 * variance[0] + variance.sum() / len(rows) + 1e-12
    return middle, (axes.T / np.sqrt(variance + floor)).astype(np.float32)


def _place(first: Window, second: Window) -> tuple[float, float, float, float]:
    """Scale and shift, across and down, that lay a window of the second picture on a window of the first."""
    out = []
    for one, other in ((first[:2], second[:2]), (first[2:], second[2:])):
        scale = (1 - sum(other)) / (1 - sum(one))
        out += [scale, 2 * other[0] - 2 * one[0] * scale + scale - 1]
    return out[0], out[1], out[2], out[3]


def _candidates(
    first: NDArray[np.uint8], second: NDArray[np.uint8], given: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], tuple[float, float, float, float]]:
    """Pair -> where the second picture lies on the first, of the windows in which they are most alike."""
    ours, theirs = _coefficients(first), _coefficients(second)
    middle, axes = _whitening(np.concatenate([ours[0], theirs[0]]))
    ours, theirs = _unit((ours - middle) @ axes), _unit((theirs - middle) @ axes)
    count = len(first) + len(second)
    if len(first) * len(second) <= _FEW_PAIRS:
        rows, columns = np.divmod(np.arange(len(first) * len(second)), len(second))
    else:
        least, most = (_ALIKE, _NEAREST) if count >= _MANY else (0.0, _NEAREST + _MANY // count)
        rows, columns = _nearest(ours, theirs, least, most)
    if given:
        more = np.array(given, dtype=np.intp).T
        rows, columns = np.concatenate([rows, more[0]]), np.concatenate([columns, more[1]])
    whole = _WINDOWS[0]
    places = [_place(whole, window) for window in _WINDOWS] + [_place(window, whole) for window in _WINDOWS]
    alike = np.concatenate(
        [
            np.einsum("pf,wpf->wp", ours[0, rows], theirs[:, columns]),
            np.einsum("wpf,pf->wp", ours[:, rows], theirs[0, columns]),
        ]
    )
    return {(int(i), int(j)): places[w] for i, j, w in zip(rows, columns, alike.argmax(axis=0), strict=True)}


def _nearest(ours: Floats, theirs: Floats, least: float, most: int) -> tuple[Ints, Ints]:
    """Rows and columns of the pairs alike by `least` in some window, the `most` nearest of each row.

    Args:
        ours: (W, N, F), a descriptor a window; the first window is the whole picture.
        theirs: (W, M, F).
    """
    rows, columns = [], []
    for start in range(0, ours.shape[1], 512):
        found: list[tuple[Ints, Ints, Floats]] = []
        for left in range(0, theirs.shape[1], 1024):
            part, block = ours[:, start : start + 512], theirs[:, left : left + 1024]
            best = part[0] @ block[0].T
            for window in range(1, len(ours)):
                np.maximum(best, part[0] @ block[window].T, out=best)
                np.maximum(best, part[window] @ block[0].T, out=best)
            row, column = np.nonzero(best >= least)
            found.append((row, column + left, best[row, column]))
        row, column, alike = (np.concatenate(parts) for parts in zip(*found))
        order = np.lexsort((-alike, row))
        row, column = row[order], column[order]
        rank = np.arange(len(row)) - np.searchsorted(row, row)
        rows.append(row[rank < most] + start)
        columns.append(column[rank < most])
    return np.concatenate(rows), np.concatenate(columns)
