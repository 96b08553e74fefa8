"""ConceptAlignLoss in its four settings."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from losses_suite import Case, Hand, Inputs, Pull, sigmoid_cost, unit

from kvlp.losses import ConceptAlignLoss

NAN = math.nan
LABELS = np.array([[1, 0, 1], [0, 0, NAN], [-1, 1, NAN], [NAN, 1, 1], [1, NAN, -1]])


def _inputs(projected: np.ndarray, concepts: np.ndarray, labels: object, scale: float, bias: float) -> Inputs:
    known = np.asarray(labels, float)
    return {"projected": projected, "concept_emb": concepts, "labels": known, "scale": scale, "bias": bias}


def inputs(n: int) -> Inputs:
    return _inputs(unit(n, 4, seed=1), unit(3, 4, seed=2), LABELS[:n], 5.0, -0.5)


def mirror(given: Inputs) -> Inputs:
    """The concepts in another order."""
    order = [2, 0, 1]
    return {**given, "concept_emb": given["concept_emb"][order], "labels": given["labels"][:, order]}


def reference(given: Inputs, *, unmentioned: float, balanced: bool) -> float:
    projected, concepts, labels = (given[k] for k in ("projected", "concept_emb", "labels"))
    costs, counts = {True: 0.0, False: 0.0}, {True: 0.0, False: 0.0}
    for i, c in np.ndindex(labels.shape):
        silent = math.isnan(labels[i, c])
        if silent or labels[i, c] in (0.0, 1.0):
            logit = given["scale"] * float(projected[i] @ concepts[c]) + given["bias"]
            present, weight = labels[i, c] == 1, unmentioned if silent else 1.0
            costs[present] += weight * sigmoid_cost(logit, target=present)
            counts[present] += weight
    if balanced:
        return sum(costs[side] / (counts[side] or 1.0) for side in costs) / 2
    return sum(costs.values()) / (sum(counts.values()) or 1.0)


def case(unmentioned: float, *, balanced: bool, hand: float, untold: float) -> Case:
    axes = np.eye(3)
    tilted = _inputs(np.array([[0.6, 0.6, 0.0]]), axes, [[1, 0, NAN]], 4.0, 0.0)
    return Case(
        build=partial(ConceptAlignLoss, unmentioned=unmentioned, balanced=balanced),
        inputs=inputs,
        gradients=("projected", "concept_emb"),
        rows=("projected", "labels"),
        mirror=mirror,
        reference=partial(reference, unmentioned=unmentioned, balanced=balanced),
        hands=(
            # one row along the first of three axes at scale 2: logits 2 (present), 0 (absent), 0 (not mentioned)
            Hand(_inputs(axes[:1], axes, [[1, 0, NAN]], 2.0, 0.0), hand),
            Hand(_inputs(axes[:1] * 0, axes, [[NAN, -1, NAN]], 2.0, 0.0), untold),
        ),
        pulls=(
            Pull(tilted, "projected", 0, [1, 0, 0], 1),
            Pull(tilted, "projected", 0, [0, 1, 0], -1),
            Pull(tilted, "projected", 0, [0, 0, 1], -1 if unmentioned else 0),
        ),
    )


PRESENT, EVEN = math.log1p(math.exp(-2)), math.log(2)
CASES = {
    "ignore, balanced": case(0.0, balanced=True, hand=(PRESENT + EVEN) / 2, untold=0.0),
    "ignore": case(0.0, balanced=False, hand=(PRESENT + EVEN) / 2, untold=0.0),
    "absent, balanced": case(1.0, balanced=True, hand=(PRESENT + EVEN) / 2, untold=EVEN / 2),
    "in part absent": case(0.5, balanced=False, hand=(PRESENT + 1.5 * EVEN) / 2.5, untold=EVEN),
    "absent": case(1.0, balanced=False, hand=(PRESENT + 2 * EVEN) / 3, untold=EVEN),
}
