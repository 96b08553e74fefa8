"""Splits in which no patient is on two sides."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import replace

from kvlp.datasets.manifest import Manifest, Record
from kvlp.errors import ConfigError

__all__ = ["split_by_patient"]

DEFAULT_FRACTIONS: Mapping[str, float] = {"train": 0.8, "dev": 0.1, "test": 0.1}


def split_by_patient(manifest: Manifest, fractions: Mapping[str, float] = DEFAULT_FRACTIONS, seed: int = 0) -> Manifest:
    """Assign every record a split; all records of a patient get the same one.

    Where no patient is given, the study, else the record stands alone. Patients are dealt out by source and first
    label, so that each split has about the same share of each. The ids and the seed alone decide, not the row order.

    Args:
        manifest: existing splits are replaced.
        fractions: split name -> share of the patients; they sum to 1.
        seed: another seed, another split.

    Raises:
        ConfigError: fractions that are negative or do not sum to 1.
    """
    total = sum(fractions.values())
    if not fractions or any(not f >= 0 for f in fractions.values()) or not math.isclose(total, 1, abs_tol=1e-6):
        shown = ", ".join(f"{name}={share:g}" for name, share in fractions.items())
        raise ConfigError(f"split fractions: expected shares from 0 to 1 that sum to 1, got {shown or 'none'}")
    groups: dict[str, list[Record]] = {}
    for record in manifest:
        groups.setdefault(_owner(record), []).append(record)
    order = sorted(groups, key=lambda owner: (_stratum(groups[owner]), _shuffle_key(owner, seed)))
    taken = dict.fromkeys(fractions, 0)
    split_of: dict[str, str] = {}
    for number, owner in enumerate(order, 1):
        # the split that lacks most of its share so far: every run of patients, so every stratum, comes out right
        split_of[owner] = max(taken, key=lambda name: fractions[name] * number - taken[name])
        taken[split_of[owner]] += 1
    return Manifest([replace(r, split=split_of[_owner(r)]) for r in manifest], manifest.root)


def _owner(record: Record) -> str:
    for kind, value in (("patient", record.patient_id), ("study", record.study_id)):
        if value:
            return f"{kind}:{value}"
    return f"record:{record.id}"


def _stratum(records: list[Record]) -> tuple[str, str]:
    """Source and first present label of a patient's first record (by id)."""
    first = min(records, key=lambda record: record.id)
    present = (name for name, value in first.labels.items() if value == 1)
    return first.source, next(present, "")


def _shuffle_key(owner: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}|{owner}".encode()).digest()
