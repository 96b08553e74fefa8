"""Split conformal prediction for present / absent: sets of labels that hold the truth as often as asked. NumPy alone.

Each label has its own limit, learned on validation rows of that label (label-conditional, Mondrian), so that the rare
one is covered too. The limits lie on the raw scores: only their order counts, and a calibration learned on the same
rows does not spoil the guarantee.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvlp.errors import ConfigError, ShapeError
from kvlp.eval.intervals import Interval, mean_interval
from kvlp.eval.metrics import Floats, known_rows

__all__ = ["ConformalLimits", "SetCoverage", "conformal_limits", "set_coverage"]

_ALL = ("absent", "present", "both", "none")


@dataclass(frozen=True, slots=True)
class ConformalLimits:
    """From which score "present" is in the set, and up to which "absent" is.

    Attributes:
        present_from: lowest score of a set with "present"; -inf where too few positives were seen to leave it out ever.
        absent_to: highest score of a set with "absent"; +inf likewise.
        n_present: positives that the limit was learned on (patients, where groups were given).
        n_absent: negatives, likewise.
    """

    present_from: float = -math.inf
    absent_to: float = math.inf
    n_present: int = 0
    n_absent: int = 0

    def sets(self, y_score: ArrayLike) -> NDArray[np.bool_]:
        """Shape (N, 2): whether "absent" and whether "present" is in the set; both where the score is NaN."""
        scores = np.asarray(y_score, dtype=np.float64)
        unknown = np.isnan(scores)
        return np.stack([unknown | (scores <= self.absent_to), unknown | (scores >= self.present_from)], axis=-1)


def conformal_limits(
    y_true: ArrayLike, y_score: ArrayLike, coverage: float = 0.9, groups: ArrayLike | None = None, *, seed: int = 0
) -> ConformalLimits:
    """Learn the limits of both labels.

    Args:
        y_true: shape (N,); 1, 0, -1 or NaN; rows of the last two are left out.
        y_score: shape (N,), higher means rather present.
        coverage: share of positives whose set shall hold "present", and of negatives whose set shall hold "absent",
            in (0, 1).
        groups: shape (N,), the patient of each row. Images of one patient are not exchangeable: one of them is drawn
            for each label, and the guarantee is for an image of a new patient.
        seed: of that draw.

    The limit of a label is the ceil((n + 1) coverage)-th of its n scores, counted from the conforming end; if there is
    no such score, the label is in every set. A new image of that label is then covered with probability at least
    `coverage`, and below `coverage` + 1 / (n + 1) without ties.

    Raises:
        ConfigError: coverage outside (0, 1).
        ShapeError: groups of another length.

    Reference: Vovk 2012 (conditional validity); Dunn, Wasserman and Ramdas 2023 (one row a group).
    """
    if not 0 < coverage < 1:
        raise ConfigError(f"coverage is {coverage!r}; expected a number above 0 and below 1, such as 0.9")
    positive, scores, rows = known_rows(y_true, y_score)
    patients = None if groups is None else _patients(groups, np.size(y_true))[rows]
    present, absent = (_one_each(scores, at, patients, seed) for at in (positive, ~positive))
    return ConformalLimits(-_limit(-present, coverage), _limit(absent, coverage), present.size, absent.size)


def _patients(groups: ArrayLike, count: int) -> NDArray[np.str_]:
    ids = np.asarray(groups)
    if ids.shape != (count,):
        raise ShapeError(f"groups must have shape ({count},), one patient for each row; got {ids.shape}")
    return ids.astype(np.str_)


def _one_each(scores: Floats, at: NDArray[np.bool_], patients: NDArray[np.str_] | None, seed: int) -> Floats:
    chosen = np.flatnonzero(at)
    if patients is not None:
        shuffled = np.random.default_rng(seed).permutation(chosen)
        chosen = shuffled[np.unique(patients[shuffled], return_index=True)[1]]
    return scores[chosen]


def _limit(scores: Floats, coverage: float) -> float:
    """The ceil((n + 1) coverage)-th smallest; inf if there are fewer."""
    rank = math.ceil((scores.size + 1) * coverage - 1e-9)  # 10 * 0.9 must not become 10
    return float(np.partition(scores, rank - 1)[rank - 1]) if rank <= scores.size else math.inf


@dataclass(frozen=True, slots=True)
class SetCoverage:
    """How often sets held the truth, on labelled rows other than those they were learned on.

    Attributes:
        asked: the coverage asked for.
        marginal: share of all rows whose set holds their label, with its 95 % interval.
        present: the same among positives.
        absent: the same among negatives.
        shares: how often a set was {absent}, {present}, both, or none of the two.
    """

    asked: float
    marginal: Interval
    present: Interval
    absent: Interval
    shares: dict[str, float]


def set_coverage(
    y_true: ArrayLike,
    sets: NDArray[np.bool_],
    asked: float,
    groups: ArrayLike | None = None,
    *,
    n: int = 1000,
    seed: int = 0,
) -> SetCoverage:
    """Measure the coverage of sets (N, 2), as `ConformalLimits.sets` gives them, with intervals over patients.

    Args:
        y_true: shape (N,); 1, 0, -1 or NaN; rows of the last two are left out.
        sets: shape (N, 2).
        asked: the coverage asked for.
        groups: shape (N,), the patient of each row.
        n: bootstrap resamples.
        seed: of the resamples.
    """
    if sets.shape != (np.size(y_true), 2):
        raise ShapeError(f"expected sets of shape ({np.size(y_true)}, 2), got {sets.shape}")
    positive, _, rows = known_rows(y_true, np.zeros(np.size(y_true)))
    patients = None if groups is None else _patients(groups, np.size(y_true))[rows]
    held = np.where(positive, sets[rows, 1], sets[rows, 0]).astype(np.float64)

    def share(at: NDArray[np.bool_]) -> Interval:
        return mean_interval(held[at], None if patients is None else patients[at], n=n, seed=seed)

    kind = np.where(sets[rows].all(axis=1), 2, np.where(sets[rows, 1], 1, np.where(sets[rows, 0], 0, 3)))
    shares = {name: float((kind == i).mean()) if kind.size else math.nan for i, name in enumerate(_ALL)}
    return SetCoverage(asked, share(np.ones_like(positive)), share(positive), share(~positive), shares)
