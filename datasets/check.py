"""Check a manifest row by row: nothing is repaired or replaced, everything found is named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from kvlp.datasets.images import inspect_image, pixel_hash
from kvlp.datasets.manifest import Manifest, Record, label_problem
from kvlp.errors import DataError, KvlpError, MissingExtraError

__all__ = ["CheckReport", "Problem", "check_manifest"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding on one row. `row` counts from 1; `severity` is "error" or "warning"."""

    row: int
    kind: str
    severity: str
    message: str


@dataclass(frozen=True, slots=True)
class CheckReport:
    """All findings in row order, and how often each kind occurs."""

    rows: int
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True if there are no errors; warnings do not count."""
        return not self.errors

    @property
    def errors(self) -> list[Problem]:
        """The findings that make a manifest unfit."""
        return [problem for problem in self.problems if problem.severity == "error"]

    @property
    def counts(self) -> dict[str, int]:
        """Kind of problem -> number of rows."""
        return dict(sorted(Counter(problem.kind for problem in self.problems).items()))

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        errors = len(self.errors)
        return {
            "rows": self.rows,
            "ok": self.ok,
            "errors": errors,
            "warnings": len(self.problems) - errors,
            "counts": self.counts,
            "problems": [asdict(problem) for problem in self.problems],
        }


def check_manifest(
    manifest: Manifest,
    *,
    images: bool = True,
    jobs: int = 2,
    allow: Collection[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> CheckReport:
    """Return everything that is wrong with a manifest's rows.

    Errors: rows that cannot be read, missing and corrupt images, duplicates (id, row, pixels), a patient or study in
    two splits, labels outside 1, 0, -1, and an empty text where most rows have one.
    Warnings: a row with neither text nor labels elsewhere, an image that is not plausibly a frontal radiograph.

    Args:
        manifest: loaded with `strict=False`, so that faulty rows are named here.
        images: decode every image; otherwise only look whether the file is there.
        jobs: threads that decode.
        allow: kinds of error that count as warnings, once a person has looked at them.
        progress: called with rows done and all rows.
    """
    problems = [Problem(p.row, p.kind, "error", p.message) for p in manifest.problems]
    problems += _labels(manifest)
    problems += _texts(manifest)
    problems += _duplicates(manifest)
    problems += _leaks(manifest)
    problems += _images(manifest, decode=images, jobs=jobs, progress=progress)
    problems = [replace(p, severity="warning") if p.kind in allow else p for p in problems]
    return CheckReport(len(manifest), sorted(problems, key=lambda p: (p.row, p.kind)))


def _labels(manifest: Manifest) -> Iterator[Problem]:
    for row, record in enumerate(manifest, 1):
        if fault := label_problem(record.labels):
            yield Problem(row, "label_range", "error", fault)


def _texts(manifest: Manifest) -> Iterator[Problem]:
    """An empty text is an error in a manifest of reports, and a warning in one of labels if the labels lack too."""
    empty = [row for row, record in enumerate(manifest, 1) if not record.report.strip()]
    severity = "error" if 2 * len(empty) <= len(manifest) else "warning"
    for row in empty:
        if severity == "error":
            yield Problem(row, "empty_text", severity, "the text is empty, though most rows have one")
        elif not manifest[row - 1].labels:
            yield Problem(row, "empty_text", severity, "neither text nor labels")


def _duplicates(manifest: Manifest) -> Iterator[Problem]:
    ids: dict[str, int] = {}
    contents: dict[str, int] = {}
    for row, record in enumerate(manifest, 1):
        content = repr([getattr(record, name) for name in Record.__dataclass_fields__ if name != "id"])
        first = contents.setdefault(content, row)
        if first != row:
            yield Problem(row, "duplicate_row", "error", f"the same as row {first}")
        if (first := ids.setdefault(record.id, row)) != row:
            yield Problem(row, "duplicate_id", "error", f"the same id as row {first}")


def _leaks(manifest: Manifest) -> Iterator[Problem]:
    """Name each row whose patient (or study, where no patient is given) was met before in another split."""
    seen: dict[tuple[str, str], dict[str, int]] = {}
    for row, record in enumerate(manifest, 1):
        who = ("patient", record.patient_id) if record.patient_id else ("study", record.study_id)
        if not who[1]:
            continue
        splits = seen.setdefault(who, {})
        splits.setdefault(record.split, row)
        other = next((split for split in splits if split != record.split), None)
        if other is not None:
            message = f"its {who[0]} is in split {record.split!r} and, in row {splits[other]}, in {other!r}"
            yield Problem(row, "split_leak", "error", message)


def _images(
    manifest: Manifest, *, decode: bool, jobs: int, progress: Callable[[int, int], None] | None
) -> Iterator[Problem]:
    if not any(record.image for record in manifest):
        yield Problem(1, "no_images", "warning", "no row has an image: a manifest of texts alone")
        return
    first_of: dict[str, int] = {}
    with ThreadPoolExecutor(max_workers=max(1, jobs)) as pool:
        results: Iterable[tuple[str, list[tuple[str, str, str]]]]
        results = pool.map(lambda record: _inspect(manifest, record, decode=decode), manifest)
        for row, (digest, found) in enumerate(results, 1):
            for kind, severity, message in found:
                yield Problem(row, kind, severity, message)
            if digest and (first := first_of.setdefault(digest, row)) != row:
                yield Problem(row, "duplicate_image", *_same_pixels(manifest, first, row))
            if progress:
                progress(row, len(manifest))


def _same_pixels(manifest: Manifest, first: int, row: int) -> tuple[str, str]:
    """A copy is an error: it counts twice, and across splits it leaks."""
    one, other = manifest[first - 1], manifest[row - 1]
    across = f" in another split ({one.split!r}, {other.split!r})" if one.split != other.split else ""
    return "error", f"the same pixels as row {first}{across}"


def _inspect(manifest: Manifest, record: Record, *, decode: bool) -> tuple[str, list[tuple[str, str, str]]]:
    """Return the pixels' hash and the findings (kind, severity, message) of one image."""
    if not record.image:
        return "", [("missing_image", "error", "no image is named")]
    path = manifest.path_of(record)
    try:
        if not path.exists():
            return "", [("missing_image", "error", f"{record.image}: no such file")]
        if not decode:
            return "", []
        grey, plausible = inspect_image(path)
    except MissingExtraError:
        raise
    except (KvlpError, OSError, ValueError) as problem:
        return "", [("corrupt_image", "error", _short(problem))]
    digest = pixel_hash(grey)
    found = (
        []
        if plausible.ok
        else [("not_radiograph", "warning", f"not plausibly a frontal radiograph: {plausible.reason}")]
    )
    return digest, found


def _short(problem: Exception) -> str:
    return " ".join(str(problem).split()) if isinstance(problem, DataError) else type(problem).__name__
