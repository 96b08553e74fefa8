"""Benchmark `coverage`: how often a 95 % interval holds the truth, on data whose truth is known.

Scores are normal, those of positives shifted so that the AUC is 0.80. Rows are independent (10 % positive), or come
four to a patient with most of the score in common. A table over the number of positives shows from where on each method
may be trusted. Last, Holm's correction under the null: in how many runs is any of 14 differences called.

Setting: `resamples=1000` of each bootstrap. `--size 1` is 4,000 trials at 100 positives and at 150 patients, 1,000 in
the other cells, and 1,000 runs under the null.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvlp.errors import ConfigError
from kvlp.eval.bench.measure import BenchOptions, Measure
from kvlp.eval.delong import Z95, delong_test
from kvlp.eval.intervals import FewPositivesWarning, Interval, auc_interval, bootstrap
from kvlp.eval.metrics import Floats
from kvlp.eval.multiplicity import holm

__all__ = ["AUC", "clustered_coverage", "false_alarms", "independent_coverage", "run"]

#: The AUC of every simulation, and how far apart the two unit-variance scores then lie.
AUC, _APART = 0.80, 1.1902321632
#: positives -> trials, patients -> trials, and runs under the null, at size 1
_POSITIVES = {5: 1000, 10: 1000, 25: 1000, 50: 1000, 100: 4000, 200: 1000}
_PATIENTS = {50: 1000, 150: 4000}
_RUNS = 1000

Trial: TypeAlias = tuple[Floats, Floats, NDArray[np.int64]]
#: labels, scores, patient of each row and the trial's number -> an interval
Method: TypeAlias = Callable[[Floats, Floats, NDArray[np.int64], int], Interval]


def run(options: BenchOptions) -> list[Measure]:
    """Coverage in each cell with the binomial interval of the simulation itself, and Holm's error rate.

    Raises:
        ConfigError: an unknown setting, or one that is no count.
    """
    resamples = _resamples(options)

    def times(usual: int) -> int:
        return max(10, round(usual * options.size))

    measures = []
    for positives, usual in _POSITIVES.items():
        found = independent_coverage(positives, times(usual), resamples, options.seed)
        measures += _cell(f"{positives} positives of {10 * positives} rows", found, times(usual), options)
    for patients, usual in _PATIENTS.items():
        found = clustered_coverage(patients, times(usual), resamples, options.seed)
        where = f"{patients} patients with 4 images each, 30 % positive"
        measures += _cell(where, found, times(usual), options)
    runs = times(_RUNS)
    any_called = false_alarms(runs, options.seed)
    about = "runs with any of 14 true null hypotheses rejected"
    return measures + [_measure(about, name, hits, runs) for name, hits in any_called.items()]


def _cell(where: str, found: Mapping[str, int], trials: int, options: BenchOptions) -> list[Measure]:
    options.say(f"{where}: " + ", ".join(f"{name} {hits / trials:.3f}" for name, hits in found.items()))
    return [_measure(f"coverage, {where}", name, hits, trials) for name, hits in found.items()]


def independent_coverage(positives: int, trials: int, resamples: int, seed: int) -> dict[str, int]:
    """How many of `trials` intervals hold the AUC, by method; a tenth of the rows is positive."""
    labels = np.r_[np.ones(positives), np.zeros(9 * positives)]
    rows = np.arange(labels.size)

    def draw(rng: np.random.Generator) -> Trial:
        return labels, rng.normal(size=labels.size) + _APART * labels, rows

    return _coverage(
        {
            "DeLong": lambda y, s, _, __: auc_interval(y, s, logit=False),
            "logit DeLong": lambda y, s, _, __: auc_interval(y, s),
            "percentile bootstrap": lambda y, s, _, trial: bootstrap("auc", y, s, n=resamples, seed=trial),
        },
        draw,
        trials,
        seed,
    )


def clustered_coverage(patients: int, trials: int, resamples: int, seed: int) -> dict[str, int]:
    """The same for four images a patient, drawing patients or images; 80 % of the variance is the patient's."""
    group = np.repeat(np.arange(patients), 4)

    def draw(rng: np.random.Generator) -> Trial:
        labels = np.repeat(np.arange(patients) < round(0.3 * patients), 4).astype(np.float64)
        own, image = rng.normal(size=patients), rng.normal(size=4 * patients)
        return labels, _APART * labels + math.sqrt(0.8) * np.repeat(own, 4) + math.sqrt(0.2) * image, group

    def method(unit: str) -> Method:
        return lambda y, s, g, trial: bootstrap("auc", y, s, g, n=resamples, seed=trial, unit=unit, force=True)

    methods: dict[str, Method] = {
        "logit DeLong of patients": lambda y, s, g, _: auc_interval(y, s, g),
        "bootstrap of patients": method("group"),
        "bootstrap of images": method("image"),
    }
    return _coverage(methods, draw, trials, seed)


def false_alarms(runs: int, seed: int, *, labels: int = 14, rows: int = 800) -> dict[str, int]:
    """In how many runs a difference between two equally good scores is called on any label: with Holm, and without."""
    rng = np.random.default_rng(seed)
    called = {"Holm": 0, "no correction": 0}
    for _ in range(runs):
        y = (rng.random((labels, rows)) < 0.25).astype(np.float64)
        shared = rng.normal(size=y.shape) + y
        a, b = (shared + rng.normal(size=y.shape) for _ in range(2))
        p_values = [delong_test(*label).p for label in zip(y, a, b, strict=True)]
        called["Holm"] += bool(holm(p_values).rejected)
        called["no correction"] += min(p_values) <= 0.05
    return called


def _coverage(
    methods: Mapping[str, Method],
    draw: Callable[[np.random.Generator], Trial],
    trials: int,
    seed: int,
) -> dict[str, int]:
    rng = np.random.default_rng(seed)
    hits = dict.fromkeys(methods, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewPositivesWarning)
        for trial in range(trials):
            y, s, group = draw(rng)
            for name, method in methods.items():
                interval = method(y, s, group, trial)
                hits[name] += interval.low <= AUC <= interval.high
    return hits


def _measure(name: str, subject: str, hits: int, trials: int) -> Measure:
    """A share with its Wilson interval."""
    share, z = hits / trials, Z95
    middle = (share + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials**2)) / (1 + z * z / trials)
    low, high = max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))
    return Measure(name, subject, share, "share", low, high, trials,
                   f"AUC {AUC} in truth; low and high: Wilson's interval of the simulation")  # fmt: skip


def _resamples(options: BenchOptions) -> int:
    unknown = set(options.settings) - {"resamples"}
    if unknown:
        raise ConfigError(f"benchmark coverage has no setting '{min(unknown)}'; it has resamples")
    text = options.settings.get("resamples", "1000")
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"resamples={text}: expected a count such as 1000")
    return int(text)
