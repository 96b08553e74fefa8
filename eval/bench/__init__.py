"""Benchmarks: kvlp beside its peers, in one run, as ratios with their spread. One module a benchmark.

A module has `run(options) -> list[Measure]`. To add one: the module here, and its line in `BENCHES`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from kvlp.errors import ConfigError
from kvlp.eval.bench.measure import BenchOptions, Measure, alternate, write_measures

__all__ = ["BENCHES", "BenchOptions", "Measure", "alternate", "run_bench", "write_measures"]

#: name -> (module, one line of help)
BENCHES: dict[str, tuple[str, str]] = {
    "link": ("kvlp.eval.bench.linking", "reports read with assertions, beside spaCy + negspacy, medspacy and scispaCy"),
    "assertions": ("kvlp.eval.bench.assertions", "presence, absence and doubt, beside negspacy and medspacy"),
    "eval": ("kvlp.eval.bench.eval", "intervals of 14 AUCs on 25,000 images, beside a loop over scikit-learn"),
    "coverage": (
        "kvlp.eval.bench.coverage",
        "how often 95 % intervals hold the truth, simulated; Holm's error rate",
    ),
    "figures": ("kvlp.eval.bench.figures", "panels and sub-captions matched on planted article figures: F1"),
    "graph": ("kvlp.eval.bench.graph", "a release of UMLS's size: time and memory to build a graph and to open it"),
    "train": ("kvlp.eval.bench.train", "training steps beside open_clip's, and loading beside webdataset with Pillow"),
    "matching": ("kvlp.eval.bench.matching", "the solver of graph matching: against every matching, and its time"),
}


def run_bench(name: str, options: BenchOptions) -> list[Measure]:
    """Run one benchmark.

    Raises:
        ConfigError: no benchmark of this name.
    """
    if name not in BENCHES:
        raise ConfigError(f"no benchmark '{name}'; there are {', '.join(sorted(BENCHES)) or 'none'}")
    run: Callable[[BenchOptions], list[Measure]] = import_module(BENCHES[name][0]).run
    return run(options)
