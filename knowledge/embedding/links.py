"""How well vectors tell links of the graph that they have not seen, beside controls that know less."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kvlp.errors import ConfigError
from kvlp.knowledge.embedding.fit import fit, own_randomness, settings_with_encoder
from kvlp.knowledge.embedding.ranking import FrequencyScorer, VectorScorer, filtered_ranks
from kvlp.knowledge.embedding.settings import statements_have_types
from kvlp.knowledge.embedding.text import Encoder
from kvlp.knowledge.embedding.triples import Triples, split_triples, triples_of
from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.typing import PathLike

if TYPE_CHECKING:
    from kvlp.typing import FloatArray, IntArray

__all__ = ["CONTROLS", "Estimate", "LinkReport", "evaluate_links"]

#: name -> what it knows less than the vectors
CONTROLS = {
    "random": "vectors of the method before any training",
    "shuffled": "the same training on statements whose tails were handed round within each relation type; only where"
    " the method learns from statements",
    "frequency": "no vectors: how often a concept stands at that end of that relation in training",
}
METRICS = ("mrr", "hits@1", "hits@3", "hits@10")
RESAMPLES = 1000

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class LinkReport:
    """What `evaluate_links` found.

    Attributes:
        method, settings: of the vectors.
        graph: name and content hash.
        split: holdout (share asked for), seed, part ("test" or "validation"), train, held_out (numbers of statements)
            and entities.
        repeats: so many trainings, with seeds that follow each other, whose reciprocal ranks are averaged.
        interval: how the intervals were made.
        scores: "vectors" and each control -> metric -> estimate; metrics are mrr, hits@1, hits@3, hits@10, filtered,
            over the true tail and the true head of each held-out statement.
        differences: control -> metric -> the vectors' minus the control's, paired.
    """

    method: str
    settings: Mapping[str, Any]
    graph: Mapping[str, str]
    split: Mapping[str, Any]
    repeats: int
    interval: str
    scores: Mapping[str, Mapping[str, Estimate]]
    differences: Mapping[str, Mapping[str, Estimate]]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Lines for a terminal: one for each scorer."""
        head = (
            f"{self.method} on '{self.graph['name']}': {self.split['held_out']} of "
            f"{self.split['held_out'] + self.split['train']} links held out ({self.split['part']}, seed "
            f"{self.split['seed']}), {self.split['entities']} candidates, {self.repeats} training(s)"
        )
        rows = [
            f"  {name}: " + ", ".join(f"{m} {value}" for m, value in row.items()) for name, row in self.scores.items()
        ]
        rows += [f"  vectors minus {name}: mrr {row['mrr']}" for name, row in self.differences.items()]
        return [head, *rows]


def evaluate_links(
    graph: KnowledgeGraph,
    method: str = "transe",
    *,
    holdout: float = 0.1,
    seed: int = 0,
    repeats: int = 1,
    part: Literal["test", "validation"] = "test",
    encoder: PathLike | Encoder | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> LinkReport:
    """Train on most links of a graph and rank the true ends of the held-out ones among all concepts.

    See `split_triples` for what may be held out and `filtered_ranks` for the rank. Settings are to be chosen on
    `part="validation"`, a share of what is left for training once the test links are out.

    Args:
        graph: a graph with relations.
        method: as for `embed`. "text" and "random" know no relations; each gets the mean shift of its training links.
        holdout: share of the links that is held out.
        seed: of the split and of the first training; the next one has seed + 1, and so on.
        repeats: trainings to average over.
        part: which held-out part to judge on.
        encoder: for "text", as for `embed`.
        progress: called with (what is being trained, done, total epochs).
        **settings: as for `embed`.

    Raises:
        ConfigError: unknown settings or impossible numbers; KnowledgeError: a graph too thin to hold links out.
    """
    if repeats < 1 or part not in ("test", "validation"):
        raise ConfigError(
            f"evaluate_links: expected repeats from 1 and part test or validation, got {repeats}, '{part}'"
        )
    resolved = settings_with_encoder(method, {**settings, "seed": seed}, encoder)
    known = triples_of(graph, relation_types=statements_have_types(method, resolved))
    train, held = _parts(known, holdout, seed, part)
    ranked: dict[str, list[FloatArray]] = {}
    for repeat in range(repeats):
        own = {**resolved, "seed": seed + repeat}
        for name, scorer in _scorers(graph, train, method, own, encoder, progress):
            ranked.setdefault(name, []).append(filtered_ranks(scorer, held, known.array, entities=known.entities))
    values = {name: _metrics(np.stack(ranks)) for name, ranks in ranked.items()}
    draws = _draws(held, seed)
    return LinkReport(
        method=method,
        settings=resolved,
        graph={"name": graph.name, "hash": graph.content_hash},
        split=_told(holdout, seed, part, train, held),
        repeats=repeats,
        interval=f"percentile bootstrap, {RESAMPLES} resamples of concept pairs",
        scores={name: _estimates(value, draws) for name, value in values.items()},
        differences={
            name: _estimates(values["vectors"] - value, draws) for name, value in values.items() if name != "vectors"
        },
    )


def _told(holdout: float, seed: int, part: str, train: Triples, held: IntArray) -> dict[str, Any]:
    numbers = {"train": len(train), "held_out": len(held), "entities": train.entities}
    return {"holdout": holdout, "seed": seed, "part": part, **numbers}


def _parts(known: Triples, holdout: float, seed: int, part: str) -> tuple[Triples, IntArray]:
    kept, out = split_triples(known, holdout, seed)
    train = known.with_array(known.array[kept])
    if part == "test":
        return train, known.array[out]
    kept, out = split_triples(train, holdout, seed + 1)
    return train.with_array(train.array[kept]), train.array[out]


def _scorers(
    graph: KnowledgeGraph,
    train: Triples,
    method: str,
    settings: dict[str, Any],
    encoder: PathLike | Encoder | None,
    progress: Progress | None,
) -> list[tuple[str, VectorScorer | FrequencyScorer]]:
    """The method's vectors and its controls, in the order in which they are told."""
    learns = "epochs" in settings
    blank = {**settings, "epochs": 0} if learns else {"dim": settings["dim"] or 64, "seed": settings["seed"]}
    jobs = [
        ("vectors", train, method, settings),
        ("random", train, method if learns else "random", blank),
    ]
    if learns:
        jobs.append(("shuffled", train.with_shuffled_tails(settings["seed"]), method, settings))
    found: list[tuple[str, VectorScorer | FrequencyScorer]] = []
    for name, triples, kind, own in jobs:
        step = None if progress is None else partial(_tell, progress, name)
        with own_randomness(own["seed"]):
            found.append((name, fit(graph, triples, kind, own, encoder=encoder, step=step)))
    return [*found, ("frequency", FrequencyScorer(train.array, train.entities))]


def _tell(progress: Progress, name: str, done: int, total: int, _loss: float) -> None:
    progress(name, done, total)


def _metrics(ranks: FloatArray) -> FloatArray:
    """(repeats, T, 2) ranks -> (T, 4) metrics of each statement, the mean over both ends and the repeats."""
    each = np.stack([1.0 / ranks, ranks <= 1, ranks <= 3, ranks <= 10], axis=-1).astype(np.float64)
    mean: FloatArray = each.mean(axis=(0, 2))
    return mean


def _draws(held: IntArray, seed: int) -> FloatArray:
    """(RESAMPLES, T) weights: concept pairs are drawn with replacement, all statements of a pair together."""
    _, group = np.unique(np.sort(held[:, [0, 2]], axis=1), axis=0, return_inverse=True)
    groups = int(group.max()) + 1
    times = np.random.default_rng([seed, 29]).multinomial(groups, np.full(groups, 1 / groups), size=RESAMPLES)
    weights: FloatArray = times[:, group.reshape(-1)].astype(np.float64)
    return weights


def _estimates(values: FloatArray, draws: FloatArray) -> dict[str, Estimate]:
    means = draws @ values / draws.sum(axis=1, keepdims=True)
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    middle = values.mean(axis=0)
    return {m: Estimate(float(middle[i]), float(low[i]), float(high[i])) for i, m in enumerate(METRICS)}
