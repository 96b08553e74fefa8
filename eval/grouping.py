"""Groups of patients by attribute (sex, age, view, ...), and which of them are too small to be shown. NumPy alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvlp.errors import ConfigError, ShapeError
from kvlp.eval.metrics import Bools
from kvlp.eval.resampling import Clusters

__all__ = ["Attribute", "Attributes", "Shown", "countable", "parse_attributes"]

#: attribute -> the group of each row, "" where it is not known
Attributes: TypeAlias = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Attribute:
    """The groups of one attribute, or of a pair of attributes.

    Attributes:
        name: "sex", or "age and sex".
        groups: G names, sorted.
        number: shape (N,), index of each row's group; -1 where it is not known.
        pair: whether it is a pair.
    """

    name: str
    groups: tuple[str, ...]
    number: NDArray[np.intp]
    pair: bool


def parse_attributes(attributes: Attributes, rows: int, *, pairs: bool = True) -> Iterator[Attribute]:
    """Every attribute with at least two groups, in order, then (if asked) every pair of these.

    Raises:
        ShapeError: an attribute that does not have one group for each of the rows.
    """
    single = {name: np.asarray(values, dtype=np.str_) for name, values in attributes.items()}
    for name, values in single.items():
        if values.shape != (rows,):
            raise ShapeError(f"attribute {name!r} must have shape ({rows},), a group for each row; got {values.shape}")
    single = {name: values for name, values in single.items() if len(set(values.tolist()) - {""}) > 1}
    both = {
        f"{a} and {b}": np.array([f"{x}, {y}" if x and y else "" for x, y in zip(single[a], single[b], strict=True)])
        for a, b in combinations(single, 2)
        if pairs
    }
    for name, values in {**single, **both}.items():
        groups = tuple(sorted(set(values.tolist()) - {""}))
        if len(groups) > 1:
            place = {group: i for i, group in enumerate(groups)}
            number = np.array([place.get(value, -1) for value in values.tolist()], dtype=np.intp)
            yield Attribute(name, groups, number, name in both)


@dataclass(frozen=True, slots=True)
class Shown:
    """Which groups of an attribute are shown, for the rows that count.

    Attributes:
        patients: shape (G,), patients of each group among these rows.
        hidden: shape (G,), whether they are fewer than k.
        counted: shape (G,), whether the group's counts may be told.
    """

    patients: NDArray[np.intp]
    hidden: Bools
    counted: Bools

    @classmethod
    def of(cls, attribute: Attribute, counts: Bools, clusters: Clusters, k: int) -> Shown:
        """Count patients and hide.

        Args:
            attribute: the groups.
            counts: shape (N,), the rows that count.
            clusters: the patient of each row.
            k: groups of fewer patients are hidden.
        """
        if k < 1:
            raise ConfigError(f"k is {k}; expected at least 1 patient")
        groups = len(attribute.groups)
        rows = counts & (attribute.number >= 0)
        held = np.unique(clusters.number[rows] * groups + attribute.number[rows])
        patients = np.bincount(held % groups, minlength=groups)
        hidden = patients < k
        return cls(patients, hidden, countable(patients, hidden, k, pair=attribute.pair))


def countable(patients: NDArray[np.intp], hidden: Bools, k: int, *, pair: bool) -> Bools:
    """Whose counts may be told, so that none of a hidden group can be worked out: shape (G,).

    The total minus the told counts would be the hidden group's. So the smallest shown groups keep theirs back too,
    until they hold 2 k patients. The groups of a pair add up in two ways, so there none tells if one is hidden.
    """
    told = ~hidden
    if not (hidden & (patients > 0)).any():
        return told
    if pair:
        return np.zeros_like(told)
    held = 0
    for group in np.argsort(patients, kind="stable"):
        if told[group] and held < 2 * k:
            told[group] = False
            held += int(patients[group])
    return told
