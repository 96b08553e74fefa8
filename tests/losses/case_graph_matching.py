"""GraphMatchingLoss, with and without what is optional."""

from __future__ import annotations

import itertools
import math
from functools import partial
from typing import Any

import numpy as np
import torch
from losses_suite import Case, Hand, Inputs, Pull, unit
from torch import nn

from kvlp.losses import GraphMatchingLoss

EYE = np.eye(3)
NOBODY = np.zeros((2, 0), dtype=np.int64)


def neighbours(emb: np.ndarray, k: int = 2) -> np.ndarray:
    order = np.argsort(-(emb @ emb.T) + 9 * np.eye(len(emb)), axis=1, kind="stable")
    return order[:, : min(k, len(emb) - 1)]


def _inputs(first: np.ndarray, second: np.ndarray, **given: Any) -> Inputs:
    return {
        "first_emb": first, "second_emb": second, "first_neighbours": neighbours(first),
        "second_neighbours": neighbours(second), "noise": None, "local": None, **given,
    }  # fmt: skip


def inputs(n: int, *, whole: bool) -> Inputs:
    rng = np.random.default_rng(5)
    noise, local = rng.gumbel(size=(5, 5))[:n, :n], rng.uniform(-1, 1, size=(5, 5))[:n, :n]
    given = {"noise": noise, "local": local} if whole else {}
    return _inputs(unit(5, 4, seed=1)[:n], unit(5, 4, seed=6)[:n], **given)


def permute(given: Inputs, order: np.ndarray) -> Inputs:
    place = np.argsort(order)
    moved = {name: given[name][order] for name in ("first_emb", "second_emb")}
    moved |= {name: place[given[name][order]] for name in ("first_neighbours", "second_neighbours")}
    moved |= {name: given[name][order][:, order] for name in ("noise", "local") if given[name] is not None}
    return {**given, **moved}


def mirror(given: Inputs) -> Inputs:
    turned = {f"{a}_{kind}": given[f"{b}_{kind}"] for a, b in (("first", "second"), ("second", "first"))
              for kind in ("emb", "neighbours")}  # fmt: skip
    return {**turned, **{name: None if given[name] is None else given[name].T for name in ("noise", "local")}}


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))


def reference(given: Inputs, *, alpha: float, edge_weight: float) -> float:
    """Every matching is tried."""
    first, second, noise, local = (given[k] for k in ("first_emb", "second_emb", "noise", "local"))
    n, best, right = len(first), -math.inf, 0
    weight = edge_weight / max(given["first_neighbours"].shape[1], 1)
    for matching in itertools.permutations(range(n)):
        gain = 0.0
        for i, a in enumerate(matching):
            cosine = _cosine(first[i], second[a])
            gain += cosine if local is None else alpha * cosine + (1 - alpha) * local[i, a]
            gain += 0.0 if noise is None else 0.1 * noise[i, a]
            for j in given["first_neighbours"][i]:
                if matching[j] in given["second_neighbours"][a]:
                    gain += weight * _cosine(first[i] - first[j], second[a] - second[matching[j]])
        if gain > best:
            best, right = gain, sum(i == a for i, a in enumerate(matching))
    return 2 * (n - right) / n


def smooth(loss: nn.Module, given: dict[str, Any]) -> torch.Tensor:
    """The affinities, each with a weight of its own."""
    given = {name: value for name, value in given.items() if name != "noise"}
    vertex, edge = loss.affinities(**given)
    return sum((torch.linspace(-1, 2, v.numel(), dtype=v.dtype).view_as(v) * v).sum() for v in (vertex, edge))


def case(*, whole: bool, alpha: float = 0.7, edge_weight: float = 1.0) -> Case:
    # both images of the first view lie between those of the second; the noise matches them crosswise
    axis, others = np.array([[0.0, 0, 1], [0, 0, 1]]), EYE[:2]
    crossed = np.array([[0.0, 5], [5, 0]])
    tied = _inputs(axis, others, first_neighbours=NOBODY, second_neighbours=NOBODY, noise=crossed)
    return Case(
        build=partial(GraphMatchingLoss, alpha=alpha, edge_weight=edge_weight, temperature=0.1, strength=1.0),
        inputs=partial(inputs, whole=whole),
        gradients=("first_emb", "second_emb"),
        rows=("first_emb", "second_emb"),
        permute=permute,
        mirror=mirror,
        reference=partial(reference, alpha=alpha, edge_weight=edge_weight),
        hands=(
            Hand(_inputs(EYE, EYE), 0.0),
            Hand(_inputs(EYE, EYE[[1, 0, 2]]), 4 / 3),  # two of three find another's view
            Hand(_inputs(EYE, EYE, noise=40 * EYE[[1, 2, 0]]), 2.0),  # noise that turns all three round
            Hand(_inputs(EYE, EYE, local=8 * EYE[[1, 2, 0]]), 2.0),
        ),
        pulls=(
            Pull(tied, "first_emb", 0, [1, 0, 0], 1),
            Pull(tied, "first_emb", 0, [0, 1, 0], -1),
            Pull(tied, "second_emb", 1, [0, 0, 1], 0),  # its partners of either matching are the same point
            Pull({**tied, "noise": None, "second_emb": axis, "first_emb": others}, "first_emb", 0, [0, 0, 1], 0),
        ),
        smooth=smooth,
        tolerance=0.0,
        lr=0.5,
    )


CASES = {"vertices and edges": case(whole=False), "with noise and local affinity": case(whole=True)}
