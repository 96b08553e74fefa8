"""Published figures beside ours. They come from the data cards alone, each with where it was read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from kvlp.eval.benchmarks.cards import Card, Published
from kvlp.eval.benchmarks.run import Coverage
from kvlp.eval.results import Result

__all__ = ["Expected", "beside"]


@dataclass(frozen=True, slots=True)
class Expected:
    """One published figure and ours.

    Attributes:
        model: whose figure.
        figure: which: "auc macro all PAIR".
        published: theirs.
        ours: ours with its interval in words; "" where we have no such row.
        within: whether theirs lies in our interval; None where we have no interval.
        comparable: "yes", "partly" or "no".
        because: what differs.
        source: where theirs was read.
    """

    model: str
    figure: str
    published: float
    ours: str
    within: bool | None
    comparable: str
    because: str
    source: str

    @property
    def text(self) -> str:
        """One line to print."""
        why = f" ({self.because})" if self.because else ""
        ours = f"ours {self.ours or 'none'} [{self.figure}]"
        return f"{self.model} {self.published:g}; {ours}; comparable: {self.comparable}{why}; {self.source}"

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def beside(card: Card, rows: Sequence[Result], coverage: Coverage) -> list[Expected]:
    """Every published figure of a card beside the row of ours that it names.

    A figure over less than the whole benchmark is comparable to none.
    """
    return [_expected(published, rows, coverage) for published in card.published]


def _expected(published: Published, rows: Sequence[Result], coverage: Coverage) -> Expected:
    own = next((row for row in rows if _is(row, published.row)), None)
    known = own is not None and not math.isnan(own.low)
    comparable, because = published.comparable, published.because
    if not coverage.whole:
        comparable, because = "no", f"ours is not over the whole benchmark ({coverage})"
    return Expected(
        model=published.model,
        figure=" ".join(published.row.values()),
        published=published.value,
        ours=own.text if own is not None else "",
        within=bool(own.low <= published.value <= own.high) if own is not None and known else None,
        comparable=comparable,
        because=because,
        source=published.source,
    )


def _is(row: Result, wanted: Mapping[str, str]) -> bool:
    return all(getattr(row, name) == value for name, value in wanted.items())
