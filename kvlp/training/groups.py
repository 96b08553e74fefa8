"""Which rows belong together, so that no row is given what another of its patient or study says."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kvlp.datasets.manifest import Record

__all__ = ["row_groups"]


def row_groups(records: Iterable[Record]) -> tuple[int, ...]:
    """A number for each row, equal where rows share a patient or a study, also by way of other rows."""
    parent: list[int] = []
    first: dict[tuple[str, str], int] = {}

    def top(row: int) -> int:
        while parent[row] != row:
            parent[row] = row = parent[parent[row]]
        return row

    for row, record in enumerate(records):
        parent.append(row)
        for key in (("patient", record.patient_id), ("study", record.study_id)):
            if key[1]:
                low, high = sorted((top(row), top(first.setdefault(key, row))))
                parent[high] = low
    return tuple(top(row) for row in range(len(parent)))
