"""Benchmark `matching`: the solver of the loss graph_matching: how near the best, how long at batch 64, 128 and 256.

Two views are drawn as points on a sphere and the same points moved, with the 5 nearest neighbours of each as edges,
whose affinities count in full: `spread` 0.5 is what a trained tower gives (nearly all matched right), 1.5 what one
that still learns. On 8 points every matching is tried. Beside it stands the best matching of the vertices alone, by
SciPy. A step of the loss solves two such problems; both are timed together, as the loss does it.

No settings.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from kvlp.errors import ConfigError
from kvlp.eval.bench.measure import BenchOptions, Measure, alternate

__all__ = ["run"]

_BATCHES, _SPREADS, _SMALL, _PROBLEMS = (64, 128, 256), (0.5, 1.5), 8, 100
_WIDTH, _NEIGHBOURS, _NOISE = 32, 5, 0.1

_Problem = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]


def run(options: BenchOptions) -> list[Measure]:
    """Compare with every matching on small problems, then time large ones.

    Raises:
        ConfigError: a setting was given.
        MissingExtraError: SciPy is not installed.
    """
    if options.settings:
        raise ConfigError(f"benchmark matching has no settings, got '{min(options.settings)}'")
    measures: list[Measure] = []
    for spread in _SPREADS:
        problems = [_problem(_SMALL, 3, spread, options.seed + i) for i in range(max(1, int(_PROBLEMS * options.size)))]
        measures += _quality(problems, spread)
        options.say(f"spread {spread:g}: {measures[-2].value:.1%} of {len(problems)} small problems solved to the best")
    for rows, spread in itertools.product(_BATCHES, _SPREADS):
        measures.append(_seconds(max(4, int(rows * options.size)), spread, options))
        options.say(f"batch {rows}, spread {spread:g}: {1e3 * measures[-1].value:.0f} ms a step")
    return measures


def _problem(n: int, k: int, spread: float, seed: int) -> _Problem:
    """Affinities, Gumbel noise added, and neighbours of two views of n points."""
    rng = np.random.default_rng(seed)
    first = rng.normal(size=(n, _WIDTH))
    views = [_unit(first), _unit(first + spread * rng.normal(size=first.shape))]
    near = [np.argsort(-(v @ v.T) + 9 * np.eye(n), axis=1)[:, :k] for v in views]
    edges = [_unit((v[:, None] - v[w]).reshape(-1, _WIDTH)) for v, w in zip(views, near, strict=True)]
    vertex = views[0] @ views[1].T + _NOISE * rng.gumbel(size=(n, n))
    return vertex.astype(np.float32), (edges[0] @ edges[1].T).astype(np.float32), near[0], near[1]


def _unit(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def _worth(partners: NDArray[np.int64], problem: _Problem) -> NDArray[np.float64]:
    """Affinity of each of the matchings (m, n)."""
    vertex, edge, first, second = problem
    n, k = first.shape
    number = np.full((n, n), -1)  # of the second graph's edge from one vertex to another
    number[np.arange(n)[:, None], second] = np.arange(n * k).reshape(n, k)
    worth = vertex[np.arange(n), partners].sum(axis=1, dtype=np.float64)
    for row, (tail, head) in enumerate(zip(np.arange(n).repeat(k), first.reshape(-1), strict=True)):
        column = number[partners[:, tail], partners[:, head]]
        worth += np.where(column >= 0, edge[row, column], 0.0)
    return worth


def _quality(problems: Sequence[_Problem], spread: float) -> list[Measure]:
    """Of the solver and of vertices alone: share solved to the best, and how much of the way there from the mean."""
    from scipy.optimize import linear_sum_assignment

    from kvlp.losses.assignment import match_graphs

    contestants: dict[str, Callable[[_Problem], NDArray[np.int64]]] = {
        "vertices alone (SciPy)": lambda p: linear_sum_assignment(p[0], maximize=True)[1],
        "kvlp": lambda p: np.asarray(match_graphs(*p).partner),
    }
    every = np.array(list(itertools.permutations(range(_SMALL))))
    values = [_worth(every, problem) for problem in problems]
    measures = []
    for name, solve in contestants.items():
        found = np.array([_worth(solve(problem)[None], problem)[0] for problem in problems])
        best, mean = (np.array([of(v) for v in values]) for of in (np.max, np.mean))
        share = (found - mean) / (best - mean)
        notes = f"{len(problems)} problems of {_SMALL} vertices, spread {spread:g}, against all {len(every)} matchings"
        solved = float((found > best - 1e-4).mean())
        measures.append(Measure("solved to the best", name, solved, "share", solved, solved, len(problems), notes))
        measures.append(Measure.of("affinity gained, mean 0 to best 1", name, share.tolist(), "share", notes))
    return measures


def _seconds(rows: int, spread: float, options: BenchOptions) -> Measure:
    from kvlp.losses.assignment import match_graphs

    vertex, edge, first, second = _problem(rows, min(_NEIGHBOURS, rows - 1), spread, options.seed)
    right: list[float] = []

    def step() -> None:
        found = match_graphs(vertex, edge, first, second)
        match_graphs(vertex + np.eye(rows, dtype=np.float32), edge, first, second, start=found.partner)
        right.append(float((found.partner == np.arange(rows)).mean()))

    seconds = alternate({"kvlp": step}, options.repeats)["kvlp"]
    notes = (
        f"both matchings of a step, {min(_NEIGHBOURS, rows - 1)} neighbours, spread {spread:g}: {right[0]:.0%} right"
    )
    return Measure.of(f"a step at batch {rows}", "kvlp", seconds, "s", notes)
