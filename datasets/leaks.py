"""What stands on two sides that must be apart: patients, studies, images, reports of two splits or two manifests.

A leak makes every figure of the evaluation too good. Nothing is repaired here; each shared thing is one row that names
row numbers, never a patient or a text.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby

import numpy as np

from kvlp.datasets.leak_report import KINDS, Leak, LeakReport
from kvlp.datasets.manifest import Manifest, Record
from kvlp.datasets.near_duplicates import closest, near_duplicates
from kvlp.datasets.pictures import ImageEncoder, Pictures, read_pictures
from kvlp.errors import ConfigError, DataError

__all__ = ["find_leaks"]

#: A text of fewer words that so many patients share is a template of normal films and tells of no copy. Of 2,888 real
#: reports 84 texts stand in three patients or more, none longer than 56 words.
_COMMON_PATIENTS, _COMMON_WORDS = 3, 60
#: Texts of fewer words coincide by chance.
_WORDS = 8


@dataclass(frozen=True, slots=True)
class _Entry:
    side: str
    number: int
    record: Record
    home: Manifest


def find_leaks(
    manifest: Manifest,
    against: Manifest | None = None,
    *,
    skip: Collection[str] = (),
    model: ImageEncoder | None = None,
    jobs: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> LeakReport:
    """Look for what the splits of a manifest share, or, with `against`, what two manifests share.

    Patients and studies are compared by their ids as they are: give ids of different hospitals different prefixes.

    Args:
        manifest: its splits are the sides; a row without one is on the side "(no split)".
        against: another manifest; then the sides are "manifest" and "against", whatever their splits.
        skip: kinds not to look for; images are read only for "pixels" and "near_duplicate".
        model: its image vectors propose near-duplicates too: those that are cropped or turned further.
        jobs: threads that decode images.
        progress: called with images done and all images.

    Raises:
        DataError: the manifest has one split alone and there is nothing to compare it with.
        ConfigError: an unknown kind in `skip`.
    """
    _require_kinds(skip)
    entries = _entries(manifest, against)
    sides = {side: sum(1 for _ in rows) for side, rows in groupby(entries, key=lambda entry: entry.side)}
    unknown = dict.fromkeys(skip, "not looked for")
    unknown |= {kind: why for kind, why in _missing(entries, sides) if kind not in unknown}
    found: list[Leak] = []
    for kind, key in (("patient", _patient), ("study", _study)):
        if kind not in unknown:
            found += _shared(kind, entries, [key(entry.record) for entry in entries])
    unreadable: dict[str, tuple[int, ...]] = {}
    if not {"pixels", "near_duplicate"} <= unknown.keys():
        leaks, unreadable = _image_leaks(entries, unknown, model, jobs, progress)
        found += leaks
    boilerplate: list[Leak] = []
    if "report" not in unknown:
        leaks, boilerplate = _report_leaks(entries)
        found += leaks
    return LeakReport(sides, found, boilerplate, unknown, unreadable)


def _require_kinds(skip: Iterable[str]) -> None:
    for kind in skip:
        if kind not in KINDS:
            raise ConfigError(f"skip {kind!r}: expected one of {', '.join(KINDS)}")


def _entries(manifest: Manifest, against: Manifest | None) -> list[_Entry]:
    """All rows, side by side in order of the sides' first rows."""
    if against is not None:
        named = (("manifest", manifest), ("against", against))
        entries = [_Entry(side, n, record, rows) for side, rows in named for n, record in enumerate(rows, 1)]
    else:
        entries = [_Entry(r.split or "(no split)", n, r, manifest) for n, r in enumerate(manifest, 1)]
    order = {side: i for i, side in enumerate(dict.fromkeys(entry.side for entry in entries))}
    if len(order) < 2:
        held = f"all {len(entries)} rows are of one split ({next(iter(order))})" if entries else "there is no row"
        raise DataError(f"nothing to compare: {held}; name another manifest, or split this one by `kvlp data split`")
    return sorted(entries, key=lambda entry: order[entry.side])


def _patient(record: Record) -> Hashable:
    return record.patient_id or None


def _study(record: Record) -> Hashable:
    return (record.patient_id, record.study_id) if record.study_id else None


def _missing(entries: Sequence[_Entry], sides: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """Kinds that cannot be looked at since fewer than two sides say anything of them."""
    asked: tuple[tuple[str, str, Callable[[Record], object]], ...] = (
        ("patient", "patient_id", lambda record: record.patient_id),
        ("study", "study_id", lambda record: record.study_id),
        ("report", "text", lambda record: record.report),
        ("pixels", "image", lambda record: record.image),
        ("near_duplicate", "image", lambda record: record.image),
    )
    for kind, column, value in asked:
        silent = [side for side in sides if not any(value(e.record) for e in entries if e.side == side)]
        if len(sides) - len(silent) < 2:
            yield kind, f"not known: no row of {' or of '.join(silent)} has a value in the column {column}"


def _shared(kind: str, entries: Sequence[_Entry], keys: Sequence[Hashable]) -> list[Leak]:
    """A leak for every key that stands on two sides or more; None is no key."""
    groups: dict[Hashable, list[_Entry]] = {}
    for entry, key in zip(entries, keys, strict=True):
        if key is not None:
            groups.setdefault(key, []).append(entry)
    return [_leak(kind, group) for group in groups.values() if len({entry.side for entry in group}) > 1]


def _leak(kind: str, group: Sequence[_Entry], score: float = float("nan")) -> Leak:
    """`group` has the entries of a side together."""
    by_side = {side: list(rows) for side, rows in groupby(group, key=lambda entry: entry.side)}
    images: dict[str, tuple[str, ...]] = {}
    if kind in ("pixels", "near_duplicate"):
        images = {side: tuple(e.record.image for e in rows) for side, rows in by_side.items()}
    return Leak(kind, {side: tuple(e.number for e in rows) for side, rows in by_side.items()}, images, score)


def _image_leaks(
    entries: Sequence[_Entry],
    unknown: Collection[str],
    model: ImageEncoder | None,
    jobs: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[list[Leak], dict[str, tuple[int, ...]]]:
    """Leaks of pixels and near-duplicates, and the rows of each side whose image cannot be read."""
    shown = [entry for entry in entries if entry.record.image]
    near = "near_duplicate" not in unknown
    paths = [entry.home.path_of(entry.record) for entry in shown]
    pictures = read_pictures(paths, prints=near, model=model if near else None, jobs=jobs, progress=progress)
    lost = [entry for entry, read in zip(shown, pictures.read, strict=True) if not read]
    unreadable = {side: tuple(e.number for e in rows) for side, rows in groupby(lost, key=lambda entry: entry.side)}
    leaks = _shared("pixels", shown, [d or None for d in pictures.hashes]) if "pixels" not in unknown else []
    return leaks + (list(_near(shown, pictures, jobs)) if near else []), unreadable


def _near(entries: Sequence[_Entry], pictures: Pictures, jobs: int) -> Iterator[Leak]:
    rows_of = {
        side: np.array([row for row, _ in rows if pictures.read[row]], dtype=np.intp)
        for side, rows in groupby(enumerate(entries), key=lambda item: item[1].side)
    }
    for one, other in combinations(rows_of, 2):
        first, second = rows_of[one], rows_of[other]
        close = () if pictures.vectors is None else closest(pictures.vectors[first], pictures.vectors[second])
        for pair in near_duplicates(pictures.prints[first], pictures.prints[second], candidates=close, jobs=jobs):
            a, b = int(first[pair.first]), int(second[pair.second])
            if pictures.hashes[a] != pictures.hashes[b]:
                yield _leak("near_duplicate", [entries[a], entries[b]], pair.score)


def _report_leaks(entries: Sequence[_Entry]) -> tuple[list[Leak], list[Leak]]:
    """Reports that are the same but for case and spacing: those that tell of a copy, and boilerplate."""
    texts = [" ".join(entry.record.report.casefold().split()) or None for entry in entries]
    owners: dict[str, set[str]] = {}
    for entry, text in zip(entries, texts, strict=True):
        if text is not None:
            owner = entry.record.patient_id or entry.record.study_id or f"{entry.side} {entry.number}"
            owners.setdefault(text, set()).add(owner)
    common = {text for text, who in owners.items() if _is_boilerplate(text, len(who))}
    leaks = _shared("report", entries, [None if text in common else text for text in texts])
    return leaks, _shared("report", entries, [text if text in common else None for text in texts])


def _is_boilerplate(text: str, patients: int) -> bool:
    words = text.count(" ") + 1
    return words < _WORDS or (words < _COMMON_WORDS and patients >= _COMMON_PATIENTS)
