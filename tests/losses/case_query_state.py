"""QueryStateLoss: two and three states, balanced and not, what is not mentioned left out or in part absent."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from losses_suite import Case, Hand, Inputs, Pull, softmax_cost

from kvlp.losses import QueryStateLoss

NAN = math.nan
LABELS = np.array([[1, 0, 1], [0, 0, NAN], [-1, 1, NAN], [NAN, 1, 1], [1, NAN, -1]])
STATE = {0.0: 0, 1.0: 1, -1.0: 2}


def inputs(n: int, *, states: int) -> Inputs:
    logits = np.random.default_rng(4).normal(size=(n, 3, states))
    return {"logits": logits, "labels": LABELS[:n].astype(float)}


def mirror(given: Inputs) -> Inputs:
    """True becomes false: the labels and the first two columns change places."""
    labels, logits = given["labels"], given["logits"]
    turned = np.where((labels == 0) | (labels == 1), 1 - labels, labels)
    return {"logits": logits[..., [1, 0, *range(2, logits.shape[2])]], "labels": turned}


def reference(given: Inputs, *, balanced: bool, unmentioned: float) -> float:
    logits, labels = given["logits"], given["labels"]
    states = logits.shape[2]
    cost = norm = 0.0
    for c in range(labels.shape[1]):
        said = labels[:, c]
        found = {s: {i: 1.0 for i, v in enumerate(said) if STATE.get(v) == s} for s in range(states)}
        if unmentioned:
            found[0] |= {i: unmentioned for i, v in enumerate(said) if math.isnan(v)}
        present = [s for s in range(states) if found[s]]
        if balanced and len(present) < 2:
            continue
        for s in present:
            for i, told in found[s].items():
                weight = told / sum(found[s].values()) / len(present) if balanced else told
                target = [float(s == k) for k in range(states)]
                cost += weight * softmax_cost(logits[i, c], target, [False] * states)
                norm += weight
    return cost / norm if norm else 0.0


def _one(values: list[float], label: float) -> Inputs:
    return {"logits": np.array([[values]]), "labels": np.array([[label]])}


def _two(first: float, second: float) -> Inputs:
    return {"logits": np.zeros((2, 1, 2)), "labels": np.array([[first], [second]])}


def reordered(given: Inputs) -> Inputs:
    """The queries in another order."""
    order = [2, 0, 1]
    return {"logits": given["logits"][:, order], "labels": given["labels"][:, order]}


def case(hands: tuple[Hand, ...], *, states: int = 2, balanced: bool = True, unmentioned: float = 0.0) -> Case:
    return Case(
        build=partial(QueryStateLoss, states=states, balanced=balanced, unmentioned=unmentioned),
        inputs=partial(inputs, states=states),
        gradients=("logits",),
        rows=("logits", "labels"),
        mirror=reordered if unmentioned else mirror,
        reference=partial(reference, balanced=balanced, unmentioned=unmentioned),
        hands=hands,
        pulls=(
            Pull({**_two(1, 0), "logits": np.zeros((2, 1, states))}, "logits", 0, [0, 1, *[0] * (states - 2)], 1),
            Pull({**_two(1, 0), "logits": np.zeros((2, 1, states))}, "logits", 1, [0, 1, *[0] * (states - 2)], -1),
        ),
        lr=3.0,
    )


CASES = {
    # one state alone could be learned without the image; even logits cost log 2 each
    "two states": case((Hand(_two(1, 1), 0.0), Hand(_two(1, 0), math.log(2)), Hand(_two(1, NAN), 0.0))),
    "every pair alike": case(
        (Hand(_one([0, 2], 1), math.log1p(math.exp(-2))), Hand(_one([0, 2], -1), 0.0)), balanced=False
    ),
    "three states": case((Hand(_one([0, 0, 1], -1), math.log(2 / math.e + 1)),), states=3, balanced=False),
    "not mentioned is absent": case(
        (Hand(_two(1, NAN), math.log(2)), Hand(_one([3, 0], NAN), math.log1p(math.exp(-3)))),
        balanced=False, unmentioned=1.0,
    ),
    "not mentioned is in part absent": case(
        (
            Hand({"logits": np.array([[[0.0, 2]], [[0, 2]]]), "labels": np.array([[1], [NAN]])},
                 (math.log1p(math.exp(-2)) + 0.5 * math.log1p(math.exp(2))) / 1.5),
        ),
        balanced=False, unmentioned=0.5,
    ),
    "balanced, in part absent": case((Hand(_two(1, NAN), math.log(2)), Hand(_two(0, NAN), 0.0)), unmentioned=0.5),
}  # fmt: skip
