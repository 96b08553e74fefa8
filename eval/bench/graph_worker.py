"""What one process does for the benchmark `graph`: build a graph or open one, and print what it took as JSON."""

from __future__ import annotations

import json
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["build", "main", "reopen"]

_QUERIES = 200


def build(release: str, out: str) -> dict[str, Any]:
    """Build a graph of all languages from RRF tables, into a folder."""
    from kvlp.knowledge.graph import KnowledgeGraph

    graph = KnowledgeGraph.from_umls(release, languages=None, out=out)
    return {**_memory(), "processor": time.process_time(), "report": graph.build_report}


def reopen(folder: str) -> dict[str, Any]:
    """Open a graph, then look up what a random choice of its concepts is called."""
    start = time.perf_counter()
    from kvlp.knowledge.graph import KnowledgeGraph

    imported = time.perf_counter()
    graph = KnowledgeGraph.load(folder)
    opened = time.perf_counter()
    figures: dict[str, Any] = {"import": imported - start, "open": opened - imported, "opened_mb": _memory()["now_mb"]}
    rng = random.Random(0)
    some = [graph.concepts[rng.randrange(len(graph))] for _ in range(_QUERIES)]
    words = [word for c in some for word in c.name.split()[:1]]
    calls: dict[str, Callable[[int], object]] = {
        "concept by CUI": lambda i: graph[some[i].id],
        "concept by name": lambda i: graph.concept(some[i].name),
        "neighbours": lambda i: graph.neighbours(some[i].id, direction="both"),
        "ancestors": lambda i: graph.ancestors(some[i].id),
        "find by name": lambda i: graph.find(some[i].name),
        "find by a word": lambda i: graph.find(words[i]),
    }
    figures["ms"] = {name: 1000 * statistics.median(_seconds(call)) for name, call in calls.items()}
    return {**figures, **_memory()}


def _seconds(call: Callable[[int], object]) -> list[float]:
    taken = []
    for i in range(_QUERIES):
        start = time.perf_counter()
        call(i)
        taken.append(time.perf_counter() - start)
    return taken


def _memory() -> dict[str, float]:
    """Resident memory in MB, now and at its peak with mapped pages that were touched; and now without them."""
    status = Path("/proc/self/status")
    if not status.exists():
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
        return {"now_mb": peak, "peak_mb": peak, "own_mb": peak}
    kilobytes = {line.split(":")[0]: line.split()[1] for line in status.read_text().splitlines() if "kB" in line}
    names = {"now_mb": "VmRSS", "peak_mb": "VmHWM", "own_mb": "RssAnon"}
    return {name: int(kilobytes[field]) / 1000 for name, field in names.items()}


def main() -> None:
    """`build RELEASE OUT` or `reopen FOLDER`; adds the peak memory of all children that ended."""
    figures = build(*sys.argv[2:]) if sys.argv[1] == "build" else reopen(*sys.argv[2:])
    figures["children_mb"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000
    sys.stdout.write(json.dumps(figures))


if __name__ == "__main__":
    main()
