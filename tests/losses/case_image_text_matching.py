"""ImageTextMatchingLoss."""

from __future__ import annotations

import math

import numpy as np
from losses_suite import Case, Hand, Inputs, Pull, softmax_cost, unit

from kvlp.losses.image_text_matching import ImageTextMatchingLoss


def _inputs(matched: object, mismatched: object, judge: object, bias: object = (0, 0)) -> Inputs:
    return {
        "matched": np.asarray(matched, float).reshape(-1, 2),
        "mismatched": np.asarray(mismatched, float).reshape(-1, 2),
        "judge": np.asarray(judge, float), "bias": np.asarray(bias, float),
    }  # fmt: skip


def inputs(n: int) -> Inputs:
    return {
        "matched": unit(n, 4, seed=1), "mismatched": unit(n, 4, seed=2), "judge": unit(2, 4, seed=3),
        "bias": np.array([0.3, -0.2]),
    }  # fmt: skip


def mirror(given: Inputs) -> Inputs:
    """What is asked for becomes its opposite."""
    sides = {"matched": given["mismatched"], "mismatched": given["matched"]}
    return {**sides, "judge": given["judge"][::-1].copy(), "bias": given["bias"][::-1].copy()}


def reference(given: Inputs) -> float:
    sides = []
    for name, answer in (("matched", 1), ("mismatched", 0)):
        costs = []
        for pair in given[name]:
            logits = [float(pair @ given["judge"][k]) + float(given["bias"][k]) for k in range(2)]
            costs.append(softmax_cost(logits, [float(k == answer) for k in range(2)], [False, False]))
        sides.append(sum(costs) / len(costs))
    return sum(sides) / 2


EYE = np.eye(2)
# the judge says "no match" along the first axis, "match" along the second: logits (0, 2) for the true pair, (2, 0) for
# the false one
GOOD = _inputs([[0, 2]], [[2, 0]], EYE)
RIGHT, WRONG = math.log1p(math.exp(-2)), math.log1p(math.exp(2))
CASES = {
    "default": Case(
        build=ImageTextMatchingLoss,
        inputs=inputs,
        gradients=("matched", "mismatched", "judge", "bias"),
        rows=("matched", "mismatched"),
        mirror=mirror,
        reference=reference,
        hands=(
            Hand(GOOD, RIGHT),
            Hand(_inputs([[2, 0]], [[0, 2]], EYE), WRONG),
            # three false pairs weigh as much as one true one
            Hand(_inputs([[0, 2]], [[2, 0], [2, 0], [0, 2]], EYE), (RIGHT + (2 * RIGHT + WRONG) / 3) / 2),
            Hand(_inputs([[0, 2]], [], EYE), 0.0),  # nothing to tell it from
        ),
        pulls=(
            Pull(GOOD, "matched", 0, [0, 1], 1),
            Pull(GOOD, "matched", 0, [1, 0], -1),
            Pull(GOOD, "mismatched", 0, [1, 0], 1),
            Pull(_inputs([[0, 2]], [], EYE), "matched", 0, [0, 1], 0),
        ),
        lr=0.5,
    )
}
