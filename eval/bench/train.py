"""Benchmark `train`: kvlp's training steps and its loading of data, beside open_clip's and plain webdataset's.

Steps: the same open_clip towers from the same weights, in turn in one process, on the same tensors in memory. `clip` is
kvlp's step with the contrastive loss alone, `KAD stage 2` that with all losses of kad-phantom's stage of images
(contrast, entities, knowledge, query network, polarity); open_clip's is the epoch of `open_clip_train` with its
defaults. Memory is that of each alone in a process. Loading: see loading.py. The data are drawn radiographs with
reports.

Settings: `steps=3`, `patients=100` (drawn for the steps), `loaded=80` (patients drawn for loading), `threads=N` (all
cores), `only=steps,memory,loading` or some of them. Steps are timed with one thread, too: kvlp's towers then do not
work side by side, as they do with more. Knowledge texts come every third step.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kvlp.datasets.manifest import Manifest
from kvlp.errors import ConfigError, KvlpError
from kvlp.eval.bench.measure import BenchOptions, Measure, alternate, ratio

if TYPE_CHECKING:
    from kvlp.eval.bench.train_steps import Work

__all__ = ["run"]

_RECIPE, _PARTS = "kad-phantom", ("steps", "memory", "loading")
_COUNTS = {"steps": 3, "patients": 100, "loaded": 80, "threads": os.cpu_count() or 1}
#: The recipe's own towers, and a pair without convolutions.
_TOWERS: dict[str, tuple[str, ...]] = {
    "tiny-cnn + tiny-text": (),
    "tiny-vit + tiny-bert": ("model.image=tiny-vit", "model.text=tiny-bert"),
}
_OURS = {"clip": "kvlp, clip", "align": "kvlp, KAD stage 2"}
_THEIRS = "open_clip"


def run(options: BenchOptions) -> list[Measure]:
    """Time the steps, take their memory, and time loading.

    Raises:
        ConfigError: an unknown setting or part, or one that is no count.
    """
    counts, parts = _settings(options)
    with tempfile.TemporaryDirectory(prefix="kvlp-train-") as folder:
        scratch, measures = Path(folder), list[Measure]()
        if parts != ("loading",):
            manifest = _drawn(scratch / "small", counts["patients"], 96, options.seed)
            for towers, overrides in _TOWERS.items():
                settings = (f"threads={counts['threads']}", *overrides)
                where = (manifest, scratch / towers, counts["steps"], settings)
                measures += _steps(options, towers, *where) if "steps" in parts else []
                measures += _memory(options, towers, *where) if "memory" in parts else []
        if "loading" in parts:
            measures += _loading(options, scratch, counts["loaded"], counts["threads"])
    return measures


def _settings(options: BenchOptions) -> tuple[dict[str, int], tuple[str, ...]]:
    unknown = set(options.settings) - {*_COUNTS, "only"}
    if unknown:
        raise ConfigError(f"benchmark train has no setting '{min(unknown)}'; it has {', '.join(_COUNTS)}, only")
    found = {**{key: str(value) for key, value in _COUNTS.items()}, **options.settings}
    only = found.pop("only", ",".join(_PARTS))
    if not set(only.split(",")) <= set(_PARTS):
        raise ConfigError(f"only={only}: expected some of {','.join(_PARTS)}")
    for key, text in found.items():
        if not text.isdecimal() or int(text) < 1:
            raise ConfigError(f"{key}={text}: expected a count such as {_COUNTS[key]}")
    scaled = {"patients", "loaded"}
    sizes = {k: max(1, round(int(value) * (options.size if k in scaled else 1))) for k, value in found.items()}
    return sizes, tuple(only.split(","))


def _drawn(out: Path, patients: int, size: int, seed: int) -> Manifest:
    from kvlp.datasets.phantom.generate import generate_phantom

    return generate_phantom(out, patients=patients, seed=seed, size=size, fractions={"train": 1.0})


def _steps(
    options: BenchOptions, towers: str, manifest: Manifest, folder: Path, steps: int, overrides: Sequence[str]
) -> list[Measure]:
    from dataclasses import replace

    from kvlp.eval.bench.train_steps import prepare_work

    work = prepare_work(_RECIPE, manifest, folder, steps=steps, overrides=overrides)
    counts = sorted({1, work.threads})
    return [measure for n in counts for measure in _timed(options, towers, replace(work, threads=n))]


def _timed(options: BenchOptions, towers: str, work: Work) -> list[Measure]:
    from kvlp.eval.bench.train_worker import contestant

    runs: dict[str, Callable[[], None]] = {name: contestant(name, work) for name in (*_OURS, _THEIRS)}
    for once in runs.values():
        once()
    worked: dict[str, list[float]] = {name: [] for name in runs}
    seconds = alternate({name: _worked(once, worked[name]) for name, once in runs.items()}, options.repeats)
    notes = (
        f"{len(work.steps)} steps of {work.images // len(work.steps)} images of {work.prepared.preprocess.size} px, "
        f"{work.recipe.precision}; the same tensors for all; {_load(work.threads)}"
    )
    names, what = {**_OURS, _THEIRS: _THEIRS}, f"steps, {towers}, {work.threads} threads"
    rates = [Measure.of(what, names[key], [work.images / s for s in seconds[key]], "images/s", notes) for key in names]
    against = [ratio(seconds[key], seconds[_THEIRS], what, f"{name} / {_THEIRS}") for key, name in _OURS.items()]
    what = f"processor time of steps, {towers}, {work.threads} threads"
    against += [ratio(worked[key], worked[_THEIRS], what, f"{name} / {_THEIRS}", notes) for key, name in _OURS.items()]
    for measure in against:
        options.say(f"{measure.name}: {measure.subject} {measure.value:.2f}")
    return [*rates, *against]


def _worked(run: Callable[[], None], seconds: list[float]) -> Callable[[], None]:
    """The same, noting how long the processor worked: beside other work that tells more than a clock."""

    def timed() -> None:
        began = time.process_time()
        run()
        seconds.append(time.process_time() - began)

    return timed


def _memory(
    options: BenchOptions, towers: str, manifest: Manifest, folder: Path, steps: int, overrides: Sequence[str]
) -> list[Measure]:
    manifest.save(manifest.root / "manifest.csv")
    where = (str(manifest.root / "manifest.csv"), str(folder), str(steps), _RECIPE, *overrides)
    names = {**_OURS, _THEIRS: _THEIRS}
    found = {key: _process(key, *where) for key in names}
    notes = "of a process that trains alone; the towers, the data and the libraries are in it"
    growth = "by which the steps raise it above that"
    measures = []
    for key, name in names.items():
        peak, before = found[key]["peak_mb"], found[key]["before_mb"]
        measures.append(Measure.of(f"peak memory, {towers}", name, [peak], "MB", notes))
        measures.append(Measure.of(f"memory of the steps, {towers}", name, [peak - before], "MB", growth))
    for key, name in _OURS.items():
        shares = [found[key]["peak_mb"] / found[_THEIRS]["peak_mb"]]
        measures.append(Measure.of(f"peak memory, {towers}", f"{name} / {_THEIRS}", shares, "ratio", notes))
        options.say(f"{measures[-1].name}: {measures[-1].subject} {measures[-1].value:.2f}")
    return measures


def _process(*arguments: str) -> dict[str, float]:
    command = [sys.executable, "-m", "kvlp.eval.bench.train_worker", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise KvlpError(f"benchmark train: {arguments[0]} failed: {done.stderr.strip().splitlines()[-1:]}")
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _load(threads: int) -> str:
    return f"{threads} threads on {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}"


def _loading(options: BenchOptions, scratch: Path, patients: int, threads: int) -> list[Measure]:
    import torch

    from kvlp.eval.bench.loading import loading
    from kvlp.training.recipe import load_recipe
    from kvlp.training.setup import prepare

    manifest = _drawn(scratch / "large", patients, 512, options.seed)
    (scratch / "loading").mkdir()
    recipe = load_recipe(_RECIPE, ["model.image_size=224"])
    prepared = prepare(recipe, manifest, scratch / "loading", lambda *_: None)
    measures = list[Measure]()
    for jobs in sorted({1, threads}):
        torch.set_num_threads(jobs)
        options.say(f"loading: {_load(jobs)}")
        measures += loading(options, manifest, prepared, scratch / "loading", jobs=jobs)
        for measure in measures[-2:]:
            options.say(f"{measure.name}: {measure.subject} {measure.value:.1f}")
    return measures
