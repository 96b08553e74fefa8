"""Rows of what the scored images share with other rows, and of which of them the model was trained on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from kvlp.datasets.leak_report import KINDS
from kvlp.eval.results import Result

if TYPE_CHECKING:
    from kvlp.eval.evaluate import Evaluation

__all__ = ["leak_rows"]

_MEANING = {
    "patient": "patients that stand on two sides",
    "study": "studies that stand on two sides",
    "pixels": "images whose decoded pixels stand on two sides",
    "near_duplicate": "pictures that are nearly the same on two sides",
    "report": "reports that stand word for word on two sides",
}


def leak_rows(result: Evaluation) -> None:
    """Add a row for each kind of leak that was looked for, and the exposure of the scored images."""
    report = result.options.leaks
    if report is not None:
        sides = ", ".join(f"{side} ({rows:,} rows)" for side, rows in report.sides.items())
        counts = {**report.counts, "boilerplate": len(report.boilerplate)}
        for kind in (*KINDS, "boilerplate"):
            known = kind in counts
            note = (f"sides: {sides}",) if known else (f"not known: {report.unknown[kind]}",)
            result.results.append(
                Result(
                    metric="leaks", target=kind, value=float(counts[kind]) if known else math.nan, low=math.nan,
                    high=math.nan, method="a count: no interval", n=sum(report.sides.values()), task="leak", notes=note,
                    definition=_MEANING.get(kind, "reports that many patients share word for word: told, but no leak"),
                    provenance=result.provenance,
                )
            )  # fmt: skip
    if result.exposure is not None:
        result.results.extend(result.exposure.results(result.provenance))
