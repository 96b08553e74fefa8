"""What a manifest says of each patient: age band, sex, view, device, site, source, for comparing groups."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvlp.datasets.manifest import Record

__all__ = ["ATTRIBUTES", "age_band", "record_attributes"]

#: attribute -> the columns it is read from, the first that a manifest has; compared without case, spaces and marks
ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "age": ("age", "patientage", "ageyears", "ageatstudy"),
    "sex": ("sex", "gender", "patientsex", "patientgender"),
    "race": ("race", "ethnicity"),
    "view": ("view",),
    "device": ("device", "scanner", "manufacturer"),
    "site": ("site", "hospital", "institution", "centre", "center"),
    "source": ("source",),
}
#: lower edges of the age bands, in years
AGE_EDGES = (0, 20, 40, 60, 80)
#: further values of an attribute are put together under "other"
MOST = 12
_AGE = re.compile(r"0*(\d{1,3})(?:\.\d+)?\s*(y|yrs?|years?|m|months?|w|weeks?|d|days?)?", re.IGNORECASE)
_SEX = {"f": "female", "female": "female", "w": "female", "m": "male", "male": "male", "o": "other", "other": "other"}
_UNKNOWN = frozenset({"", "u", "unk", "unknown", "na", "n/a", "nan", "none", "null", "not known", "?"})


def record_attributes(records: Sequence[Record]) -> dict[str, list[str]]:
    """Attribute -> the group of each record, "" where it is not known; only attributes with at least two groups.

    Read from the fields `view` and `source` and from further columns of the manifest, see `ATTRIBUTES`. Ages become
    bands of 20 years, sexes "female", "male" and "other"; of more than twelve groups the rarest become "other".
    """
    tables = [_columns(record) for record in records]
    found = {}
    for name, columns in ATTRIBUTES.items():
        column = next((c for c in columns if any(c in table for table in tables)), "")
        read = _READERS.get(name, _plain)
        values = _capped([read(table.get(column, "")) for table in tables])
        if len(set(values) - {""}) > 1:
            found[name] = values
    return found


def age_band(text: str) -> str:
    """The band of an age in years: "63", "063Y" and "63 years" are "60-79"; "" for what is none, or above 120."""
    match = _AGE.fullmatch(text.strip())
    if match is None:
        return ""
    years = int(match[1]) if (match[2] or "y")[0].lower() == "y" else 0 if int(match[1]) < 240 else -1
    if not 0 <= years <= 120:
        return ""
    at = sum(edge <= years for edge in AGE_EDGES) - 1
    return f"{AGE_EDGES[at]} and over" if at == len(AGE_EDGES) - 1 else f"{AGE_EDGES[at]}-{AGE_EDGES[at + 1] - 1}"


def _columns(record: Record) -> dict[str, str]:
    own = {re.sub(r"[^a-z]", "", name.lower()): value for name, value in record.extra.items()}
    return {**own, "view": record.view, "source": record.source}


def _plain(text: str) -> str:
    value = " ".join(text.split())
    return "" if value.lower() in _UNKNOWN else value


def _sex(text: str) -> str:
    return _SEX.get(text.strip().lower(), "")


def _capped(values: list[str]) -> list[str]:
    counts = Counter(value for value in values if value)
    if len(counts) <= MOST:
        return values
    kept = {value for value, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[: MOST - 1]}
    return [value if value in kept or not value else "other" for value in values]


_READERS: dict[str, Callable[[str], str]] = {"age": age_band, "sex": _sex}
