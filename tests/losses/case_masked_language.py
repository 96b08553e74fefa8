"""MaskedLanguageLoss."""

from __future__ import annotations

import math

import numpy as np
from losses_suite import Case, Hand, Inputs, Pull, softmax_cost, unit

from kvlp.losses.masked_language import MaskedLanguageLoss

TARGETS = np.array([2, -100, 0, 3, 2])


def _inputs(hidden: object, words: object, bias: object, targets: object) -> Inputs:
    return {
        "hidden": np.asarray(hidden, float), "words": np.asarray(words, float), "bias": np.asarray(bias, float),
        "targets": np.asarray(targets, dtype=np.int64),
    }  # fmt: skip


def inputs(n: int) -> Inputs:
    return _inputs(3 * unit(n, 4, seed=1), unit(5, 4, seed=2), [0.1, -0.2, 0.3, 0.0, 0.2], TARGETS[:n])


def mirror(given: Inputs) -> Inputs:
    """The vocabulary in another order."""
    order = np.array([3, 1, 4, 0, 2])
    place = np.argsort(order)
    targets = given["targets"]
    moved = np.where(targets < 0, targets, place[np.maximum(targets, 0)])
    return {**given, "words": given["words"][order], "bias": given["bias"][order], "targets": moved}


def reference(given: Inputs) -> float:
    costs = []
    for hidden, target in zip(given["hidden"], given["targets"], strict=True):
        if target >= 0:
            logits = [float(hidden @ w) + float(b) for w, b in zip(given["words"], given["bias"], strict=True)]
            costs.append(softmax_cost(logits, [float(i == target) for i in range(len(logits))], [False] * len(logits)))
    return sum(costs) / max(1, len(costs))


EYE = np.eye(2)
# two entries along two axes, one hidden state twice along the first: logits 2 and 0
ONE = _inputs([[2, 0]], EYE, [0, 0], [0])
CASES = {
    "default": Case(
        build=MaskedLanguageLoss,
        inputs=inputs,
        gradients=("hidden", "words", "bias"),
        rows=("hidden", "targets"),
        mirror=mirror,
        reference=reference,
        hands=(
            Hand(ONE, math.log1p(math.exp(-2))),
            Hand(_inputs([[2, 0]], EYE, [0, 2], [0]), math.log(2)),  # the bias makes up for it
            Hand(_inputs([[2, 0], [5, 1]], EYE, [0, 0], [1, -100]), math.log1p(math.exp(2))),
            Hand(_inputs([[2, 0]], EYE, [0, 0], [-100]), 0.0),
        ),
        pulls=(
            Pull(ONE, "hidden", 0, [1, 0], 1),
            Pull(ONE, "hidden", 0, [0, 1], -1),
            Pull(_inputs([[2, 0], [1, 1]], EYE, [0, 0], [0, -100]), "hidden", 1, [1, 0], 0),
        ),
        lr=0.5,
    )
}
