"""MaskedImageLoss, of normalised patches and of plain ones."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from losses_suite import Case, Hand, Inputs, Pull

from kvlp.losses.masked_image import MaskedImageLoss

HIDDEN = np.array([[1, 0, 1, 1], [0, 0, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0], [0, 1, 0, 1]], dtype=bool)


def _inputs(painted: object, target: object, hidden: object) -> Inputs:
    return {
        "painted": np.asarray(painted, float), "target": np.asarray(target, float),
        "hidden": np.asarray(hidden, dtype=bool),
    }  # fmt: skip


def inputs(n: int) -> Inputs:
    rng = np.random.default_rng(3)
    return _inputs(rng.normal(size=(5, 4, 6))[:n], rng.normal(2, 3, size=(5, 4, 6))[:n], HIDDEN[:n])


def mirror(given: Inputs) -> Inputs:
    """The patches from the last to the first."""
    return {name: value[:, ::-1].copy() for name, value in given.items()}


def reference(given: Inputs, *, normalise: bool) -> float:
    costs = []
    for painted, target, hidden in zip(given["painted"], given["target"], given["hidden"], strict=True):
        for patch in range(len(hidden)):
            if hidden[patch]:
                wanted = target[patch]
                if normalise:
                    wanted = (wanted - wanted.mean()) / math.sqrt(wanted.var() + 1e-6)
                costs.append(float(((painted[patch] - wanted) ** 2).mean()))
    return sum(costs) / max(1, len(costs))


def case(*, normalise: bool, hand: float, direction: list[float]) -> Case:
    # one image of two patches, two pixels each; the first is left out and painted 0
    one = _inputs([[[0, 0], [9, 9]]], [[[3, 5], [1, 1]]], [[True, False]])
    return Case(
        build=partial(MaskedImageLoss, normalise=normalise),
        inputs=inputs,
        gradients=("painted",),
        rows=("painted", "target", "hidden"),
        mirror=mirror,
        reference=partial(reference, normalise=normalise),
        hands=(
            Hand(one, hand),
            Hand({**one, "hidden": np.zeros((1, 2), dtype=bool)}, 0.0),
            Hand(_inputs(np.ones((1, 2, 2)), np.ones((1, 2, 2)) * 4, [[True, True]]), 1.0 if normalise else 9.0),
        ),
        pulls=(
            Pull(one, "painted", 0, direction, 1),
            Pull(one, "painted", 0, [-d for d in direction], -1),
            Pull(one, "painted", 0, [0, 0, 1, 1], 0),  # a patch that was seen does not count
        ),
        lr=1.0,
    )


CASES = {
    "normalised": case(normalise=True, hand=1.0, direction=[-1, 1, 0, 0]),  # the patch becomes -1 and 1
    "plain": case(normalise=False, hand=(9 + 25) / 2, direction=[1, 1, 0, 0]),
}
