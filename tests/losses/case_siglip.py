"""SigLipLoss: in one piece and in chunks, both ways of treating duplicates."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal

import numpy as np
from losses_suite import Case, Hand, Inputs, Pull, sigmoid_cost, unit

from kvlp.losses import SigLipLoss

EYE = np.eye(2)
PAIR = np.ones((2, 2), dtype=bool)


def inputs(n: int) -> Inputs:
    same = np.eye(n, dtype=bool)
    if n > 3:
        same[1, 3] = same[3, 1] = True
    image, text = unit(n, 4, seed=1), unit(n, 4, seed=2)
    return {"image_emb": image, "text_emb": text, "logit_scale": 5.0, "logit_bias": -2.0, "same": same}


def mirror(given: Inputs) -> Inputs:
    return {**given, "image_emb": given["text_emb"], "text_emb": given["image_emb"]}


def reference(given: Inputs, duplicates: str) -> float:
    image, text, same = given["image_emb"], given["text_emb"], given["same"]
    cost = 0.0
    for i, j in np.ndindex(len(image), len(image)):
        if same[i, j] and i != j and duplicates == "ignore":
            continue
        logit = given["logit_scale"] * float(image[i] @ text[j]) + given["logit_bias"]
        cost += sigmoid_cost(logit, target=bool(same[i, j]))
    return cost / len(image)


def case(duplicates: Literal["ignore", "positive"], chunk: int, hands: list[tuple[Any, float]]) -> Case:
    def pair(same: Any) -> Inputs:
        return {"image_emb": EYE, "text_emb": EYE, "logit_scale": 3.0, "logit_bias": -1.0, "same": same}

    return Case(
        build=partial(SigLipLoss, duplicates=duplicates, chunk=chunk),
        inputs=inputs,
        gradients=("image_emb", "text_emb"),
        rows=("image_emb", "text_emb"),
        squares=("same",),
        mirror=mirror,
        reference=partial(reference, duplicates=duplicates),
        hands=tuple(Hand(pair(same), value) for same, value in hands),
        pulls=(
            Pull(pair(EYE > 0), "image_emb", 0, [1, 0], 1),
            Pull(pair(EYE > 0), "image_emb", 0, [0, 1], -1),
            Pull(pair(PAIR), "text_emb", 1, [1, 0], 0 if duplicates == "ignore" else 1),
        ),
    )


# two orthogonal pairs, scale 3 and bias -1: each image answers its own text at logit 2 and the other at logit -1
YES, NO, WRONG = math.log1p(math.exp(-2)), math.log1p(math.exp(-1)), math.log1p(math.exp(1))
CASES = {
    "ignore": case("ignore", 64, [(None, YES + NO), (EYE > 0, YES + NO), (PAIR, YES)]),
    "positive": case("positive", 64, [(EYE > 0, YES + NO), (PAIR, YES + WRONG)]),
    "ignore, in chunks of 2": case("ignore", 2, [(None, YES + NO), (PAIR, YES)]),
    "positive, one text a chunk": case("positive", 1, [(EYE > 0, YES + NO), (PAIR, YES + WRONG)]),
}
