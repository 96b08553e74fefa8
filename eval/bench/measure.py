"""What a benchmark returns: values with their spread, from runs that alternate so that drift hits all alike."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from kvlp.datasets.files import atomic_write
from kvlp.eval.results import versions
from kvlp.typing import PathLike

__all__ = ["BenchOptions", "Measure", "alternate", "ratio", "write_measures"]


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """How to run a benchmark.

    Attributes:
        size: a multiple of the benchmark's usual size; 1 is what the docs show.
        repeats: alternating runs of each contestant.
        seed: seed of whatever is drawn.
        settings: a benchmark's own settings by name ("reports": a CSV file, "peer_python": an interpreter).
        say: receives one line of progress.
    """

    size: float = 1.0
    repeats: int = 5
    seed: int = 0
    settings: Mapping[str, str] = field(default_factory=dict)
    say: Callable[[str], None] = lambda line: None


@dataclass(frozen=True, slots=True)
class Measure:
    """One measured thing.

    Attributes:
        name: what was measured ("reports per second").
        subject: of whom ("kvlp", "spaCy EntityRuler + negspacy", "kvlp / negspacy").
        value: the median over repeats.
        unit: "1/s", "s", "MB", "ratio" ...
        low: the least of the repeats.
        high: the greatest.
        n: repeats.
        notes: what was compared, on which input, with which limits.
    """

    name: str
    subject: str
    value: float
    unit: str
    low: float
    high: float
    n: int
    notes: str = ""

    @classmethod
    def of(cls, name: str, subject: str, values: Sequence[float], unit: str, notes: str = "") -> Measure:
        """Median and range of repeated values."""
        return cls(name, subject, statistics.median(values), unit, min(values), max(values), len(values), notes)


def alternate(contestants: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Run each contestant in turn, `repeats` rounds; the order turns round by round. Returns seconds by contestant."""
    names = list(contestants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(repeats):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            start = time.perf_counter()
            contestants[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(ours: Sequence[float], theirs: Sequence[float], name: str, subject: str, notes: str = "") -> Measure:
    """How many times faster we are: their seconds over ours, round by round."""
    return Measure.of(name, subject, [t / o for o, t in zip(ours, theirs, strict=True)], "ratio", notes)


def write_measures(path: PathLike, bench: str, measures: Sequence[Measure], options: BenchOptions) -> Path:
    """Write the measures as one JSON document that says on what they were taken."""
    document = {
        "bench": bench,
        "size": options.size,
        "repeats": options.repeats,
        "seed": options.seed,
        "machine": {"cores": os.cpu_count(), "architecture": platform.machine(), "system": platform.system()},
        "versions": dict(versions()),
        "measures": [asdict(m) for m in measures],
    }
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(target, (json.dumps(document, indent=1) + "\n").encode())
    return target
