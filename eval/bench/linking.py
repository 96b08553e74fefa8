"""Benchmark `link`: reports per second with assertions, beside spaCy + negspacy, medspacy and scispaCy.

All contestants get the same reports (Indiana University, train and dev, findings and impression) and the same 60,000
surfaces: those of the chest graph, then of HPO, DO and UBERON. Each runs in a process of its own, on one core; runs
alternate, and the times are of the processor, so that other work on the machine does not count.

Settings: `reports=FILE` (iu_xray_reports.csv), `ontology=FOLDER` (OBO files), `peer_python=PYTHON` (an interpreter that
has spaCy, negspacy and medspacy), `scispacy_python=PYTHON`, `only=NAME;NAME` (contestants), `scale=500000` (surfaces of
the made-up vocabulary; 0 for none).
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from kvlp.errors import ConfigError
from kvlp.eval.bench.contestants import Contestant, contestants
from kvlp.eval.bench.link_worker import CONTESTANTS
from kvlp.eval.bench.measure import BenchOptions, Measure, alternate, ratio
from kvlp.eval.bench.vocabulary import Vocabulary, data_folder, made_up, read_reports, vocabulary_of
from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.knowledge.linking import EntityLinker

__all__ = ["run"]

_SETTINGS = ("reports", "ontology", "peer_python", "scispacy_python", "only", "scale")
_SURFACES = 60_000
_OURS = tuple(name for name in CONTESTANTS if name.startswith("kvlp") and name != "kvlp, built")
_PEERS = tuple(name for name in CONTESTANTS if not name.startswith("kvlp"))
#: scispaCy is too slow for all reports
_SAMPLES = {"scispaCy": 60}
_MEGABYTE = 1_000_000
_BUSY = "processor time, imports included"


def run(options: BenchOptions) -> list[Measure]:
    """Measure speed, time to be ready and memory of each contestant, and how times grow.

    Raises:
        ConfigError: an unknown setting, or data that is not there.
    """
    _require_known(options.settings)
    data = data_folder()
    vocabulary = vocabulary_of(Path(options.settings.get("ontology", data / "ontology")), _SURFACES)
    reports = read_reports(options.settings.get("reports", data / "reports" / "iu_xray_reports.csv"))
    texts = [row["text"] for row in reports]
    texts = texts[: max(50, round(len(texts) * min(1.0, options.size)))]
    options.say(f"{len(texts):,} reports, {len(vocabulary):,} surfaces")
    with tempfile.TemporaryDirectory(prefix="kvlp-link-") as scratch:
        linkers = _saved(vocabulary.graph(), Path(scratch))
        job = {"vocabulary": vocabulary.rows, "linkers": linkers, "texts": texts}
        wanted = [n for n in (*_OURS, *_PEERS) if n in options.settings.get("only", n).split(";")]
        jobs = {n: {**job, "texts": _sample(texts, _SAMPLES.get(n))} for n in wanted}
        with contestants(jobs, _interpreters(options.settings), options) as running:
            measures = _speed(running, {n: len(j["texts"]) for n, j in jobs.items()}, options, len(vocabulary))
        measures += _readiness(job, options) + _growth(linkers["everything"], texts, options)
    return measures + _scale(vocabulary, options)


def _require_known(settings: Mapping[str, str]) -> None:
    unknown = set(settings) - set(_SETTINGS)
    if unknown:
        raise ConfigError(f"benchmark link has no setting '{min(unknown)}'; it has {', '.join(_SETTINGS)}")
    names = [n for n in settings.get("only", "").split(";") if n]
    for name in names:
        if name not in CONTESTANTS:
            raise ConfigError(f"no contestant '{name}'; there are {'; '.join(CONTESTANTS)}")


def _interpreters(settings: Mapping[str, str]) -> dict[str, str]:
    peers = dict.fromkeys(_PEERS, settings["peer_python"]) if "peer_python" in settings else {}
    peers.pop("scispaCy", None)
    return peers | ({"scispaCy": settings["scispacy_python"]} if "scispacy_python" in settings else {})


def _saved(graph: KnowledgeGraph, folder: Path) -> dict[str, str]:
    """A linker with everything, and one that finds surfaces and says whether they are there, as peers do."""
    lean = EntityLinker(graph, spelling=False, abbreviations="none", attributes=False, language=None)
    whole = EntityLinker(graph)
    named = {"everything": whole, "assertions": lean}
    return {name: str(linker.save(folder / name)) for name, linker in named.items()}


def _sample(texts: Sequence[str], count: int | None) -> list[str]:
    step = 1 if count is None else max(1, len(texts) // count)
    return list(texts[::step])[:count]


def _speed(
    running: Sequence[Contestant], counts: Mapping[str, int], options: BenchOptions, surfaces: int
) -> list[Measure]:
    said: dict[str, list[dict[str, Any]]] = {c.name: [] for c in running}
    for c in running:
        c.ask("run")  # warm up
    alternate({c.name: partial(_time, c, said[c.name]) for c in running}, options.repeats)
    per_report = {n: [row["cpu_s"] / counts[n] for row in rows] for n, rows in said.items()}
    measures = []
    for c in running:
        found = said[c.name][-1]["mentions"]
        notes = f"{counts[c.name]:,} reports, {surfaces:,} surfaces, {found:,} mentions; processor time"
        if c.name.startswith("kvlp") and "nothing" not in c.name:
            notes += "; sentences are remembered within a run, and forgotten before each"
        measures += [
            Measure.of("reports per second", c.name, [1 / s for s in per_report[c.name]], "1/s", notes),
            Measure.of("ready", c.name, [c.ready["ready_cpu_s"]], "s", _BUSY),
            Measure.of("peak memory", c.name, [said[c.name][-1]["rss_mb"]], "MB", "the whole process"),
        ]
    ours = [n for n in per_report if n in _OURS]
    return measures + [
        ratio(per_report[o], per_report[p], "times as fast", f"{o} / {p}", "round by round")
        for p in per_report
        if p not in _OURS
        for o in ours
    ]


def _time(contestant: Contestant, said: list[dict[str, Any]]) -> None:
    said.append(contestant.ask("run"))


def _readiness(job: Mapping[str, Any], options: BenchOptions) -> list[Measure]:
    """From fresh processes, again and again: a saved linker, and one built from the vocabulary."""
    few = {**job, "texts": job["texts"][:1]}
    rows: dict[str, list[dict[str, Any]]] = {"kvlp": [], "kvlp, built": []}
    for _ in range(options.repeats):
        with contestants({"kvlp": {**few, "vocabulary": []}, "kvlp, built": few}, {}, options) as running:
            for c in running:
                rows[c.name].append(c.ready)
    names = {"kvlp": "kvlp, from a saved linker", "kvlp, built": "kvlp, from the graph"}
    return [
        m
        for name, said in rows.items()
        for m in (
            Measure.of("ready in a fresh process", names[name], [r["ready_cpu_s"] for r in said], "s", _BUSY),
            Measure.of("memory when ready", names[name], [r["rss_mb"] for r in said], "MB", "peak, the whole process"),
        )
    ]


def _growth(linker: str, texts: Sequence[str], options: BenchOptions) -> list[Measure]:
    """One report of 1 MB beside one of 0.25 MB: time linear in length makes the ratio 4."""
    whole = " ".join(texts) * (1 + _MEGABYTE // max(1, sum(map(len, texts))))
    seconds: dict[int, list[float]] = {_MEGABYTE // 4: [], _MEGABYTE: []}
    with ExitStack() as stack:
        running = {}
        for length in seconds:
            job = {"linkers": {"everything": linker}, "vocabulary": [], "texts": [whole[:length]]}
            (running[length],) = stack.enter_context(contestants({"kvlp": job}, {}, options))
        for _ in range(options.repeats):
            for length, contestant in running.items():
                seconds[length].append(contestant.ask("run")["cpu_s"])
    small, large = seconds.values()
    return [
        Measure.of("one report of 1 MB", "kvlp", large, "s", "processor time"),
        Measure.of(
            "1 MB against 0.25 MB", "kvlp", [b / a for a, b in zip(small, large, strict=True)], "ratio", "linear: 4"
        ),
    ]


def _scale(vocabulary: Vocabulary, options: BenchOptions) -> list[Measure]:
    """Building over a made-up vocabulary of half a million surfaces, and of a quarter of that."""
    try:
        size = int(float(options.settings.get("scale", 500_000)) * min(1.0, options.size))
    except ValueError:
        raise ConfigError(f"scale={options.settings['scale']}: expected a number of surfaces") from None
    ready = []
    for surfaces in (size // 4, size) if size >= 4 else ():
        job = {"vocabulary": made_up(vocabulary, surfaces, options.seed).rows, "texts": []}
        with contestants({"kvlp, built": job}, {}, options) as running:
            ready += [(surfaces, c.ready) for c in running]
    measures = []
    for surfaces, row in ready:
        subject = f"kvlp, {surfaces:,} made-up surfaces"
        measures.append(Measure.of("building", subject, [row["ready_cpu_s"]], "s", _BUSY))
        measures.append(Measure.of("building, peak memory", subject, [row["rss_mb"]], "MB", "the whole process"))
    if len(ready) == 2:
        growth = ready[1][1]["ready_cpu_s"] / ready[0][1]["ready_cpu_s"]
        measures.append(Measure.of("building, growth", "kvlp, four times the surfaces", [growth], "ratio", "linear: 4"))
    return measures
