"""What a search for leaks found: rows, counts, and what could not be looked at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["KINDS", "Leak", "LeakReport"]

#: what is looked for, in this order
KINDS = ("patient", "study", "pixels", "near_duplicate", "report")


@dataclass(frozen=True, slots=True)
class Leak:
    """One thing that stands on two sides or more.

    Attributes:
        kind: one of `KINDS`.
        rows: side -> numbers of its rows, from 1.
        images: paths as the manifest has them, side by side as `rows`; empty unless the kind is one of images.
        score: correlation of a near-duplicate with the other image, at most 1; NaN for the other kinds.
    """

    kind: str
    rows: Mapping[str, tuple[int, ...]]
    images: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    score: float = math.nan

    def __str__(self) -> str:
        where = "; ".join(f"{side} {_listed(numbers)}" for side, numbers in self.rows.items())
        return f"{self.kind}: {where}" + (f" (correlation {self.score:.3f})" if not math.isnan(self.score) else "")

    def to_dict(self) -> dict[str, Any]:
        """The leak as plain JSON values."""
        out: dict[str, Any] = {"kind": self.kind, "rows": {side: list(n) for side, n in self.rows.items()}}
        if self.images:
            out["images"] = {side: list(paths) for side, paths in self.images.items()}
        return out | ({"score": round(self.score, 4)} if not math.isnan(self.score) else {})


@dataclass(frozen=True, slots=True)
class LeakReport:
    """Everything that was found between the sides.

    Attributes:
        sides: side (a split, or "manifest" and "against") -> its rows.
        rows: the leaks, kind by kind.
        boilerplate: reports that many patients share word for word, as normal films do: told, but no leak.
        unknown: kind -> why it could not be looked at.
        unreadable: side -> numbers of the rows whose image cannot be read; nothing is known of these.
    """

    sides: Mapping[str, int]
    rows: Sequence[Leak] = ()
    boilerplate: Sequence[Leak] = ()
    unknown: Mapping[str, str] = field(default_factory=dict)
    unreadable: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """True if no leak was found; see `unknown` for what was not looked at."""
        return not self.rows

    @property
    def counts(self) -> dict[str, int]:
        """Kind -> how many things are shared; 0 for a kind that was looked at and not found."""
        return {kind: sum(leak.kind == kind for leak in self.rows) for kind in KINDS if kind not in self.unknown}

    def affected(self, side: str) -> tuple[int, ...]:
        """Numbers of the rows of one side that stand in any leak, ascending: leave these out, or move them."""
        return tuple(sorted({number for leak in self.rows for number in leak.rows.get(side, ())}))

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return {
            "ok": self.ok,
            "sides": dict(self.sides),
            "counts": self.counts,
            "affected": {side: len(self.affected(side)) for side in self.sides},
            "boilerplate": len(self.boilerplate),
            "unknown": dict(self.unknown),
            "unreadable": {side: list(numbers) for side, numbers in self.unreadable.items()},
            "rows": [leak.to_dict() for leak in self.rows],
            "boilerplate_rows": [leak.to_dict() for leak in self.boilerplate],
        }


def _listed(numbers: Sequence[int], most: int = 6) -> str:
    shown = ", ".join(map(str, numbers[:most]))
    word = "row" if len(numbers) == 1 else "rows"
    return f"{word} {shown}" + (f" and {len(numbers) - most} more" if len(numbers) > most else "")
