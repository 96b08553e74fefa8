"""Benchmark `eval`: 1,000 bootstrap samples of 14 classes on 25,000 images, beside a loop over scikit-learn.

The loop is what evaluation scripts do (CheXzero's among them): draw rows, call roc_auc_score for each class, again and
again. It takes minutes, so it runs on a few of the same samples and its time is scaled up; both are given. That its
values are those of kvlp on these samples is part of what is measured. Labels and scores are drawn, with prevalences
from 0.5 % to 40 % as chest findings have them.

Settings: `resamples=1000`, `loop=10` (samples that the loop runs on).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from kvlp.errors import ConfigError, MissingExtraError
from kvlp.eval.bench.measure import BenchOptions, Measure, alternate, ratio
from kvlp.eval.intervals import auc_table, paired_table
from kvlp.eval.metrics import Floats
from kvlp.eval.resampling import RESAMPLERS, Clusters, resample, workers

__all__ = ["run"]

_CLASSES, _ROWS, _SETTINGS = 14, 25_000, {"resamples": 1000, "loop": 10}


def run(options: BenchOptions) -> list[Measure]:
    """Time intervals of AUC and average precision, of a paired difference, and of the loop.

    Raises:
        ConfigError: an unknown setting, or one that is no count.
        MissingExtraError: scikit-learn is not installed.
    """
    n, few = _counts(options)
    score = _scikit_learn()
    labels, scores, patients = _data(int(_ROWS * options.size), options.seed)
    notes = (
        f"{n} resamples of patients, {labels.shape[1]} classes, {labels.shape[0]} rows of {patients.max() + 1} "
        f"patients; {workers()} threads"
    )
    options.say(notes)
    seed = options.seed
    seconds = alternate(
        {
            "auc": lambda: auc_table(labels, scores, patients, n=n, seed=seed),
            "average precision": lambda: auc_table(
                labels, scores, patients, metric="average_precision", n=n, seed=seed
            ),
            "difference": lambda: paired_table("auc", labels, scores, -scores, patients, n=n, seed=seed),
            "loop": lambda: _loop(score, labels, scores, patients, few, seed),
        },
        options.repeats,
    )
    whole = [s * n / few for s in seconds["loop"]]
    scaled = f"run on {few} of the {n} resamples, its time scaled by {n / few:g}"
    return [
        Measure.of("AUC intervals", "kvlp", seconds["auc"], "s", notes),
        Measure.of("average precision intervals", "kvlp", seconds["average precision"], "s", notes),
        Measure.of("paired AUC differences", "kvlp", seconds["difference"], "s", notes),
        Measure.of("AUC intervals", "loop over scikit-learn", whole, "s", scaled),
        ratio(seconds["auc"], whole, "AUC intervals, times faster", "kvlp / loop over scikit-learn", scaled),
        _disagreement(score, labels, scores, patients, few, seed),
    ]


def _counts(options: BenchOptions) -> tuple[int, int]:
    unknown = set(options.settings) - set(_SETTINGS)
    if unknown:
        raise ConfigError(f"benchmark eval has no setting '{min(unknown)}'; it has {', '.join(_SETTINGS)}")
    found = {**{key: str(value) for key, value in _SETTINGS.items()}, **options.settings}
    for key, text in found.items():
        if not text.isdecimal() or int(text) < 1:
            raise ConfigError(f"{key}={text}: expected a count such as {_SETTINGS[key]}")
    return int(found["resamples"]), min(int(found["loop"]), int(found["resamples"]))


def _scikit_learn() -> Callable[[Floats, Floats], float]:
    try:
        from sklearn.metrics import roc_auc_score
    except ImportError:
        raise MissingExtraError("scikit-learn", "eval") from None
    return lambda labels, scores: float(roc_auc_score(labels, scores))


def _data(rows: int, seed: int) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Labels and scores (rows, 14) and the patient of each row, about two rows a patient."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((rows, _CLASSES)) < np.geomspace(0.005, 0.4, _CLASSES)).astype(np.float64)
    _, patients = np.unique(rng.integers(0, max(rows // 2, 1), rows), return_inverse=True)
    return labels, rng.normal(size=labels.shape) + labels, patients.reshape(-1)


def _loop(
    score: Callable[[Floats, Floats], float],
    labels: Floats,
    scores: Floats,
    patients: NDArray[np.int64],
    n: int,
    seed: int,
) -> Floats:
    """The AUC of every class in `n` samples, one call each: (C, n)."""
    out = np.full((labels.shape[1], n), np.nan)
    clusters = Clusters.of(patients, len(patients))
    for at, counts in enumerate(np.concatenate(list(clusters.counts(n, seed)), axis=1).T):
        rows = np.repeat(np.arange(len(labels)), counts[clusters.number])
        for c in range(labels.shape[1]):
            if 0 < labels[rows, c].sum() < rows.size:
                out[c, at] = score(labels[rows, c], scores[rows, c])
    return out


def _disagreement(
    score: Callable[[Floats, Floats], float],
    labels: Floats,
    scores: Floats,
    patients: NDArray[np.int64],
    n: int,
    seed: int,
) -> Measure:
    clusters = Clusters.of(patients, len(patients))
    pairs = zip(labels.T, scores.T, strict=True)
    ours = resample([RESAMPLERS["auc"](y == 1, s, clusters.number) for y, s in pairs], clusters, n, seed)
    apart = np.abs(ours - _loop(score, labels, scores, patients, n, seed))
    worst = float(np.nanmax(apart))
    return Measure("largest difference of an AUC", "kvlp - scikit-learn", worst, "AUC", worst, worst, apart.size,
                   f"{n} resamples, {len(apart)} classes")  # fmt: skip
