"""Benchmark `graph`: a made-up release of UMLS's size is built into a graph and opened again, each in its own process.

Size 1 is a full release: 17 M names, 4 M concepts, 50 M relation rows. Settings: `from=0.1` measures that size first,
and how time and memory grow from it to `--size`; `scratch=DIR` is where the release and the graph lie for the while.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from kvlp.errors import ConfigError, KvlpError
from kvlp.eval.bench.measure import BenchOptions, Measure
from kvlp.eval.bench.rrf import FULL, write_release

__all__ = ["run"]


def run(options: BenchOptions) -> list[Measure]:
    """Measure building and opening; with the setting `from`, at two sizes.

    Raises:
        ConfigError: an unknown setting, or one that is no size.
    """
    unknown = set(options.settings) - {"from", "scratch"}
    if unknown:
        raise ConfigError(f"benchmark graph has no setting '{min(unknown)}'; it has from, scratch")
    try:
        sizes = [float(options.settings["from"])] if "from" in options.settings else []
    except ValueError:
        raise ConfigError(f"from={options.settings['from']}: expected a size such as 0.1") from None
    runs = [_at_size(size, options) for size in [*sizes, options.size]]
    measures = [measure for run in runs for measure in run]
    return measures + (_growth(runs[0], runs[1]) if len(runs) == 2 else [])


def _at_size(size: float, options: BenchOptions) -> list[Measure]:
    room = options.settings.get("scratch")
    if room is not None:
        Path(room).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="kvlp-graph-", dir=room) as scratch:
        release, out = Path(scratch) / "release", Path(scratch) / "graph"
        concepts, names, relations = (max(1, round(size * FULL[of])) for of in ("concepts", "names", "relations"))
        start = time.perf_counter()
        rows = write_release(release, concepts=concepts, names=names, relations=relations, seed=options.seed)
        written = time.perf_counter() - start
        options.say(f"size {size:g}: {rows['MRCONSO.RRF']:,} names, {rows['MRREL.RRF']:,} relation rows written")
        _forget(release)
        start = time.perf_counter()
        built = _process("build", str(release), str(out))
        seconds = time.perf_counter() - start
        load = f"load average {os.getloadavg()[1]:.1f} on {os.cpu_count()} cores (1 is this process)"
        options.say(f"size {size:g}: built in {seconds:.0f} s, {built['peak_mb']:.0f} MB")
        opened = []
        for _ in range(options.repeats):
            _forget(out)
            opened.append(_process("reopen", str(out)))
        megabytes = sum(path.stat().st_size for path in out.iterdir()) / 1e6
    kept = built["report"]["kept"]
    notes = (
        f"{rows['MRCONSO.RRF']:,} rows of names and {rows['MRREL.RRF']:,} of relations; in the graph"
        f" {kept['concepts']:,} concepts, {kept['names']:,} names, {kept['relations']:,} relations; all languages"
    )
    subject = f"size {size:g}"
    return [
        Measure.of("writing the release", subject, [written], "s", notes),
        Measure.of("building", subject, [seconds], "s", f"process start to end; {load}; {notes}"),
        Measure.of("building, processor time", subject, [built["processor"]], "s", f"of all threads; {notes}"),
        Measure.of("building, peak memory", subject, [built["peak_mb"] + built["children_mb"]], "MB", notes),
        Measure.of("graph on disk", subject, [megabytes], "MB", notes),
        *_opening(subject, opened, notes),
    ]


def _opening(subject: str, opened: list[dict[str, Any]], notes: str) -> list[Measure]:
    cold = f"fresh process each, files not in the page cache; {notes}"
    used = f"after 1,200 calls; own: without pages of the files, which the system takes back at need; {cold}"
    measures = [
        Measure.of("opening", subject, [o["open"] for o in opened], "s", cold),
        Measure.of("importing and opening", subject, [o["import"] + o["open"] for o in opened], "s", cold),
        Measure.of("opened, memory", subject, [o["opened_mb"] for o in opened], "MB", cold),
        Measure.of("opened and used, own memory", subject, [o["own_mb"] for o in opened], "MB", used),
        Measure.of("opened and used, all memory", subject, [o["peak_mb"] for o in opened], "MB", used),
    ]
    for name in opened[0]["ms"]:
        measures.append(Measure.of(name, subject, [o["ms"][name] for o in opened], "ms", f"median of 200; {cold}"))
    return measures


def _growth(small: list[Measure], large: list[Measure]) -> list[Measure]:
    """How much more each takes at the larger size."""
    return [
        Measure.of(f"{b.name}, growth", f"{b.subject} / {a.subject}", [b.value / a.value], "ratio")
        for a, b in zip(small, large, strict=True)
    ]


def _process(*arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "kvlp.eval.bench.graph_worker", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise KvlpError(f"benchmark graph: {arguments[0]} failed: {done.stderr.strip().splitlines()[-1:]}")
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def _forget(folder: Path) -> None:
    """Ask the system to drop the files of a folder from its page cache, where it can."""
    if not hasattr(os, "posix_fadvise"):
        return
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
