"""A figure as a JSON row that says how it was made, and atomic files of such rows. Loads NumPy alone."""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from kvlp.datasets.files import atomic_write
from kvlp.errors import DataError
from kvlp.eval.intervals import Interval
from kvlp.typing import PathLike

__all__ = ["Provenance", "Result", "hash_of", "read_results", "versions", "write_results"]


_DETAILS = ("calibration", "data", "picture", "subgroup", "threshold")


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a figure depends on, the same for all rows of one evaluation.

    Attributes:
        split: name of the split ("test").
        split_hash: hash of its images and labels.
        model_hash: hash of the weights and their preprocessing; where the query network scored, of that too.
        graph_hash: content hash of the knowledge graph; "" if none was used.
        prompt_hash: hash of every prompt, in order.
        seed: seed of the resamples.
        versions: package -> version.
        scorer: what of the model scored: its "encoders" or its "query" network; "" where that is not the question.
        pooling: how images became studies: "mean", "max", "embeddings"; "" where each image stands for itself.
    """

    split: str = ""
    split_hash: str = ""
    model_hash: str = ""
    graph_hash: str = ""
    prompt_hash: str = ""
    seed: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    scorer: str = ""
    pooling: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """One figure.

    Attributes:
        metric: short name, "auc".
        target: what it is about: a class, a query, "macro".
        value: the figure; NaN if undefined (null in JSON).
        low: lower end of the 95 % interval.
        high: upper end.
        method: how the interval was made.
        definition: what the metric is, in one sentence.
        n: images (or queries) that counted.
        n_positive: positive ones among them.
        n_groups: patients among them.
        setting: which score: "POS", "NEG", "PAIR", a control's or another model's name.
        group: the group of classes of a macro: "seen", "unseen".
        task: "zero-shot", "prompted classification", "not known" (which of the two), "mixed", "retrieval", "control".
        p: two-sided p-value, for a difference; else NaN.
        notes: warnings in words.
        provenance: hashes, seed and versions.
    """

    metric: str
    target: str
    value: float
    low: float
    high: float
    method: str
    definition: str
    n: int
    n_positive: int = 0
    n_groups: int = 0
    setting: str = ""
    group: str = ""
    task: str = ""
    p: float = math.nan
    notes: tuple[str, ...] = ()
    provenance: Provenance = field(default_factory=Provenance)

    @classmethod
    def of(cls, interval: Interval, *, metric: str, target: str, definition: str, **more: object) -> Result:
        """Build a row from an interval; `more` are further fields of a Result."""
        resamples = f", {interval.n_resamples} resamples" if interval.n_resamples else ""
        degenerate = f", {interval.n_degenerate} of them undefined and left out" if interval.n_degenerate else ""
        own = {
            "value": interval.value,
            "low": interval.low,
            "high": interval.high,
            "method": interval.method + resamples + degenerate,
            "n": interval.n,
            "n_positive": interval.n_positive,
            "n_groups": interval.n_groups,
            "p": interval.p,
            "notes": interval.notes,
        }
        return cls(metric=metric, target=target, definition=definition, **{**own, **more})  # type: ignore[arg-type]

    @property
    def is_detail(self) -> bool:
        """Whether it is one of a great many: such rows stand in the files and on the page, and are not printed."""
        return self.task in _DETAILS

    @property
    def text(self) -> str:
        """The figure in words: "0.893 (0.858 to 0.924)", "1.000 (no interval)" or "undefined"."""
        return str(Interval(self.value, self.low, self.high, 0, ""))

    def to_dict(self) -> dict[str, object]:
        """A flat dict for JSON: NaN becomes None, the provenance's fields stand beside the others."""
        row: dict[str, object] = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "provenance"}
        row |= asdict(self.provenance)
        row["notes"] = list(self.notes)
        return {key: _plain(value) for key, value in row.items()}

    @classmethod
    def from_dict(cls, row: Mapping[str, object]) -> Result:
        """The inverse of `to_dict`; unknown keys are an error."""
        outer = {f.name for f in fields(cls)} - {"provenance"}
        inner = {f.name for f in fields(Provenance)}
        unknown = sorted(set(row) - outer - inner)
        if unknown:
            raise DataError(f"result row has the unknown key {unknown[0]!r}")
        known = {key: row[key] for key in outer & set(row)}
        for key in ("value", "low", "high", "p"):
            known[key] = math.nan if known.get(key) is None else known[key]
        known["notes"] = tuple(known.get("notes") or ())  # type: ignore[arg-type]
        provenance = Provenance(**{key: row[key] for key in inner & set(row)})  # type: ignore[arg-type]
        return cls(**known, provenance=provenance)  # type: ignore[arg-type]


def write_results(path: PathLike, results: Iterable[Result]) -> Path:
    """Write rows as JSON lines, whole or not at all."""
    lines = [json.dumps(result.to_dict(), ensure_ascii=False, allow_nan=False) for result in results]
    atomic_write(path, "".join(line + "\n" for line in lines).encode())
    return Path(path)


def read_results(path: PathLike) -> list[Result]:
    """Read the rows of `write_results`.

    Raises:
        DataError: a line is not such a row; the line number is named.
    """
    results = []
    try:
        text = Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text; expected JSON lines written by kvlp eval") from None
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise DataError(f"expected an object, got {type(row).__name__}")
            results.append(Result.from_dict(row))
        except (ValueError, TypeError, DataError) as error:
            raise DataError(f"{path}, line {number}: not a result row ({error})") from None
    return results


def hash_of(value: object) -> str:
    """sha256 (hex) of a JSON-like value, the same for the same content."""
    text = json.dumps(value, ensure_ascii=True, sort_keys=True, separators=(",", ":"), default=_jsonable)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def versions() -> dict[str, str]:
    """Versions of Python and of the packages that a figure depends on, read without importing them."""
    found = {"python": platform.python_version()}
    for name in ("kvlp", "numpy", "torch", "open_clip_torch", "timm", "transformers", "pillow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _plain(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def _jsonable(value: object) -> object:
    if isinstance(value, Sequence | set | frozenset):
        return sorted(value) if isinstance(value, set | frozenset) else list(value)
    return str(value)
