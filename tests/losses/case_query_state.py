"""QueryStateLoss: two and three states, balanced and not, what is not mentioned left out or absent."""

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


def reference(given: Inputs, *, balanced: bool, absent: bool) -> float:
    logits, labels = given["logits"], given["labels"]
    states = logits.shape[2]
    cost = norm = 0.0
    for c in range(labels.shape[1]):
        said = [0.0 if absent and math.isnan(v) else v for v in labels[:, c]]
        found = {s: [i for i, v in enumerate(said) if not math.isnan(v) and STATE[v] == s] for s in range(states)}
        present = [s for s in range(states) if found[s]]
        if balanced and len(present) < 2:
            continue
        for s in present:
            for i in found[s]:
                weight = 1 / len(found[s]) / len(present) if balanced else 1.0
                target = [float(s == k) for k in range(states)]
                cost += weight * softmax_cost(logits[i, c], target, [False] * states)
                norm += weight
    return cost / norm if norm else 0.0


def _one(values: list[float], label: float) -> Inputs:
    return {"logits": np.array([[values]]), "labels": np.array([[label]])}


def _two(first: float, second: float) -> Inputs:
    return {"logits": np.zeros((2, 1, 2)), "labels": np.array([[first], [second]])}


def case(hands: tuple[Hand, ...], *, states: int = 2, balanced: bool = True, absent: bool = False) -> Case:
    def made(n: int) -> Inputs:
        found = inputs(n, states=states)
        return {**found, "labels": np.nan_to_num(found["labels"], nan=-1.0)} if absent else found

    return Case(
        build=partial(QueryStateLoss, states=states, balanced=balanced, unmentioned="absent" if absent else "ignore"),
        inputs=made,
        gradients=("logits",),
        rows=("logits", "labels"),
        mirror=mirror,
        reference=partial(reference, balanced=balanced, absent=absent),
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
        balanced=False, absent=True,
    ),
}  # fmt: skip
