"""KnowledgeAlignLoss."""

from __future__ import annotations

import math

import numpy as np
from losses_suite import Case, Hand, Inputs, Pull, softmax_cost, unit

from kvlp.losses import KnowledgeAlignLoss


def inputs(n: int) -> Inputs:
    concept = np.array([4, 9, 4, 2, 7])[:n]
    return {"first_emb": unit(n, 4, seed=1), "second_emb": unit(n, 4, seed=2), "concept": concept, "scale": 6.0}


def mirror(given: Inputs) -> Inputs:
    return {**given, "first_emb": given["second_emb"], "second_emb": given["first_emb"]}


def reference(given: Inputs) -> float:
    first, second, concept, scale = (given[k] for k in ("first_emb", "second_emb", "concept", "scale"))
    n, cost = len(first), 0.0
    for i in range(n):
        same = [float(concept[i] == concept[j]) for j in range(n)]
        targets = [s / sum(same) for s in same]
        cost += softmax_cost([scale * float(first[i] @ second[j]) for j in range(n)], targets, [False] * n)
        cost += softmax_cost([scale * float(first[j] @ second[i]) for j in range(n)], targets, [False] * n)
    return cost / n / 2


def _pair(first: int, second: int) -> Inputs:
    return {"first_emb": np.eye(2), "second_emb": np.eye(2), "concept": np.array([first, second]), "scale": 2.0}


ALONE = math.log1p(math.exp(-2))
CASES = {
    "default": Case(
        build=KnowledgeAlignLoss,
        inputs=inputs,
        gradients=("first_emb", "second_emb"),
        rows=("first_emb", "second_emb", "concept"),
        mirror=mirror,
        reference=reference,
        # two orthogonal pairs at scale 2; of one concept, each row has half its target at logit 0: 2 / 2 more
        hands=(Hand(_pair(3, 8), ALONE), Hand(_pair(3, 3), ALONE + 1)),
        pulls=(
            Pull(_pair(3, 8), "first_emb", 0, [1, 0], 1),
            Pull(_pair(3, 8), "first_emb", 0, [0, 1], -1),
            Pull(_pair(3, 3), "first_emb", 0, [0, 1], 1),  # the other text is about the same concept
        ),
    )
}
