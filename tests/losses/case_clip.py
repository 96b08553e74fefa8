"""ClipLoss: both ways of treating duplicates."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal

import numpy as np
from losses_suite import Case, Hand, Inputs, Pull, softmax_cost, unit

from kvlp.losses import ClipLoss

EYE = np.eye(2)
PAIR = np.ones((2, 2), dtype=bool)


def inputs(n: int) -> Inputs:
    same = np.eye(n, dtype=bool)
    if n > 3:
        same[1, 3] = same[3, 1] = True
    return {"image_emb": unit(n, 4, seed=1), "text_emb": unit(n, 4, seed=2), "logit_scale": 7.0, "same": same}


def mirror(given: Inputs) -> Inputs:
    return {**given, "image_emb": given["text_emb"], "text_emb": given["image_emb"]}


def reference(given: Inputs, duplicates: str) -> float:
    image, text, same, scale = (given[k] for k in ("image_emb", "text_emb", "same", "logit_scale"))
    n, cost = len(image), 0.0
    for i in range(n):
        rows = [scale * float(image[i] @ text[j]) for j in range(n)]
        columns = [scale * float(image[j] @ text[i]) for j in range(n)]
        if duplicates == "ignore":
            targets, out = [float(i == j) for j in range(n)], [bool(same[i, j]) and i != j for j in range(n)]
        else:
            targets, out = [same[i, j] / same[i].sum() for j in range(n)], [False] * n
        cost += softmax_cost(rows, targets, out) + softmax_cost(columns, targets, out)
    return cost / n / 2


def case(duplicates: Literal["ignore", "positive"], hands: list[tuple[Any, float]]) -> Case:
    def pair(same: Any) -> Inputs:
        return {"image_emb": EYE, "text_emb": EYE, "logit_scale": 2.0, "same": same}

    return Case(
        build=partial(ClipLoss, duplicates=duplicates),
        inputs=inputs,
        gradients=("image_emb", "text_emb"),
        rows=("image_emb", "text_emb"),
        squares=("same",),
        mirror=mirror,
        reference=partial(reference, duplicates=duplicates),
        hands=tuple(Hand(pair(same), value) for same, value in hands),
        # image 0 lies on its own text: it is still pulled to it, and pushed off the other text
        pulls=(
            Pull(pair(EYE > 0), "image_emb", 0, [1, 0], 1),
            Pull(pair(EYE > 0), "image_emb", 0, [0, 1], -1),
            Pull(pair(PAIR), "image_emb", 0, [0, 1], 0 if duplicates == "ignore" else 1),  # never repels a duplicate
        ),
    )


# two orthogonal pairs at scale 2: each row has logits (2, 0), so the loss is log(1 + e^-2); if both say the same,
# nothing is left to compare with, or the target is a half each: the mean of log(1 + e^-2) and log(1 + e^2)
ALONE = math.log1p(math.exp(-2))
CASES = {
    "ignore": case("ignore", [(None, ALONE), (EYE > 0, ALONE), (PAIR, 0.0)]),
    "positive": case("positive", [(EYE > 0, ALONE), (PAIR, ALONE + 1)]),
}
