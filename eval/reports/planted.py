"""Does a metric see one error? Reports with one planted error beside a clean paraphrase, and who ranks them right.

The reference is the report itself; the clean hypothesis says the same in other words (`paraphrase.py`). In the setting
"paraphrase" the planted hypothesis is that paraphrase with one error; in "verbatim" it is the report itself, word for
word, with one error, so that metrics of words are drawn to what is wrong. A metric ranks a pair right if the clean one
scores strictly higher; a tie is not right.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from kvlp.errors import ConfigError, DataError
from kvlp.eval.reports.metric import ReportMetric
from kvlp.eval.reports.paraphrase import paraphrase
from kvlp.eval.reports.planting import ERRORS, Planter

if TYPE_CHECKING:
    from kvlp.knowledge.graph import KnowledgeGraph

__all__ = ["SETTINGS", "PlantedPair", "Share", "phantom_texts", "planted_pairs", "ranking"]

SETTINGS = ("paraphrase", "verbatim")
_Z = 1.959963984540054


@dataclass(frozen=True, slots=True)
class PlantedPair:
    """A reference, the same in other words, and a hypothesis with one error of a kind."""

    ref: str
    clean: str
    planted: str
    kind: str


@dataclass(frozen=True, slots=True)
class Share:
    """How a metric ranks the pairs of one kind of error.

    Attributes:
        metric: name of the column.
        kind: kind of error, or "all".
        right: pairs in which the clean hypothesis scores strictly higher.
        tied: pairs in which both score alike, or the metric is undefined.
        n: pairs.
        share: right / n.
        low, high: its 95 % interval (Wilson).
        clean, planted: mean scores, over the pairs in which both are defined.
    """

    metric: str
    kind: str
    right: int
    tied: int
    n: int
    share: float
    low: float
    high: float
    clean: float
    planted: float


def planted_pairs(
    texts: Sequence[str], graph: KnowledgeGraph, *, n: int = 500, setting: str = "paraphrase", seed: int = 0
) -> list[PlantedPair]:
    """Make `n` pairs, the same number of each kind of error, each kind from different reports.

    Args:
        texts: reports; a text that comes several times counts once.
        graph: names of findings.
        n: pairs, a multiple of 5.
        setting: "paraphrase" or "verbatim".
        seed: the same texts, graph and seed give the same pairs.

    Raises:
        ConfigError: another setting or number.
        DataError: a kind of error fits into too few of the texts; it is named.
    """
    if setting not in SETTINGS:
        raise ConfigError(f"setting is {setting!r}; expected one of {', '.join(SETTINGS)}")
    if n < 1 or n % len(ERRORS):
        raise ConfigError(f"n is {n}; expected a multiple of {len(ERRORS)}, the same number of pairs for each kind")
    distinct = list(dict.fromkeys(t for t in texts if t.strip()))
    planter, each = Planter(graph), n // len(ERRORS)
    pairs: list[PlantedPair] = []
    for number, kind in enumerate(ERRORS):
        rng = np.random.default_rng([seed, number])
        made = list(islice(_pairs(distinct, planter, kind, setting, rng), each))
        if len(made) < each:
            raise DataError(f"an error of kind '{kind}' fits into {len(made)} of {len(distinct)} texts; need {each}")
        pairs += made
    return pairs


def phantom_texts(patients: int, graph: KnowledgeGraph, seed: int = 0) -> list[str]:
    """Reports of the phantom's patients, one or two of each, without drawing the images."""
    from kvlp.datasets.phantom.fields import stream
    from kvlp.datasets.phantom.generate import patient_cases
    from kvlp.datasets.phantom.reports import write_report

    cases = [case for patient in range(patients) for case in patient_cases(seed, patient)]
    return [write_report(case, graph, stream(case.seed, "report")) for case in cases]


def ranking(pairs: Sequence[PlantedPair], metrics: Sequence[ReportMetric]) -> list[Share]:
    """How each column of each metric ranks the pairs: all of them, then by kind of error."""
    refs = [p.ref for p in pairs]
    kinds = np.asarray([p.kind for p in pairs])
    rows = []
    for metric in metrics:
        clean = metric(refs, [p.clean for p in pairs])
        planted = metric(refs, [p.planted for p in pairs])
        for one, other in zip(clean, planted, strict=True):
            for kind in ("all", *dict.fromkeys(kinds.tolist())):
                of = np.ones(len(pairs), dtype=bool) if kind == "all" else kinds == kind
                rows.append(_share(one.name, kind, one.per_report[of], other.per_report[of]))
    return rows


def _pairs(
    texts: Sequence[str], planter: Planter, kind: str, setting: str, rng: np.random.Generator
) -> Iterator[PlantedPair]:
    for index in rng.permutation(len(texts)):
        ref = texts[index]
        clean = paraphrase(ref, planter.terms, rng)
        planted = planter.plant(clean if setting == "paraphrase" else ref, kind, rng)
        if planted is not None:
            yield PlantedPair(ref, clean, planted.text, kind)


def _share(metric: str, kind: str, clean: np.ndarray, planted: np.ndarray) -> Share:
    right, wrong = int((clean > planted + 1e-12).sum()), int((planted > clean + 1e-12).sum())
    n = len(clean)
    low, high = _wilson(right, n)
    both = ~(np.isnan(clean) | np.isnan(planted))
    means = [float(x[both].mean()) if both.any() else math.nan for x in (clean, planted)]
    return Share(metric, kind, right, n - right - wrong, n, right / n, low, high, *means)


def _wilson(right: int, n: int) -> tuple[float, float]:
    """95 % interval of a share."""
    p, z = right / n, _Z * _Z / n
    middle, half = (p + z / 2) / (1 + z), _Z * math.sqrt(p * (1 - p) / n + z / (4 * n)) / (1 + z)
    return max(0.0, middle - half), min(1.0, middle + half)
