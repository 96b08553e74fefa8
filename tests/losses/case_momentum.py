"""MomentumContrastLoss: both ways of treating duplicates, with a queue and without."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal

import numpy as np
from losses_suite import Case, Hand, Inputs, Pull, softmax_cost, unit

from kvlp.losses import MomentumContrastLoss

EYE = np.eye(2)
NONE = np.zeros((0, 2))
HELD = 3


def _inputs(
    image: Any,
    text: Any,
    image_copy: Any,
    text_copy: Any,
    queues: tuple[Any, Any],
    scale: float,
    alpha: float,
    same: Any,
) -> Inputs:
    return {
        "image_emb": image, "text_emb": text, "image_copy": image_copy, "text_copy": text_copy,
        "image_queue": queues[0], "text_queue": queues[1], "logit_scale": scale, "alpha": alpha, "same": same,
    }  # fmt: skip


def inputs(n: int) -> Inputs:
    same = np.eye(n, n + HELD, dtype=bool)
    same[0, n + 1] = True
    if n > 3:
        same[1, 3] = same[3, 1] = True
    sides = [unit(n, 4, seed=seed) for seed in (1, 2, 3, 4)]
    return _inputs(*sides, (unit(HELD, 4, seed=5), unit(HELD, 4, seed=6)), 7.0, 0.4, same)


def mirror(given: Inputs) -> Inputs:
    turned = {}
    for name in given:
        other = name.replace("image", "text") if "image" in name else name.replace("text", "image")
        turned[name] = given[other]
    return turned


def permute(given: Inputs, order: np.ndarray) -> Inputs:
    n = len(order)
    rows = ("image_emb", "text_emb", "image_copy", "text_copy")
    same = given["same"][order]
    columns = np.concatenate([order, np.arange(n, same.shape[1])])
    return {**given, **{name: given[name][order] for name in rows}, "same": same[:, columns]}


def reference(given: Inputs, duplicates: str) -> float:
    cost, n = 0.0, len(given["image_emb"])
    for side, other in (("image", "text"), ("text", "image")):
        columns = [*given[f"{other}_copy"], *given[f"{other}_queue"]]
        for i in range(n):
            same = [bool(s) for s in given["same"][i]]
            out = [duplicates == "ignore" and s and j != i for j, s in enumerate(same)]
            asked, opinion = (
                [given["logit_scale"] * float(given[f"{side}_{kind}"][i] @ c) for c in columns]
                for kind in ("emb", "copy")
            )
            norm = sum(math.exp(v) for v, o in zip(opinion, out, strict=True) if not o)
            soft = [0.0 if o else math.exp(v) / norm for v, o in zip(opinion, out, strict=True)]
            hard = [float(j == i) if duplicates == "ignore" else s / sum(same) for j, s in enumerate(same)]
            targets = [given["alpha"] * s + (1 - given["alpha"]) * h for s, h in zip(soft, hard, strict=True)]
            cost += softmax_cost(asked, targets, out)
    return cost / n / 2


def case(duplicates: Literal["ignore", "positive"], hands: list[tuple[Inputs, float]]) -> Case:
    alone = pair(alpha=0.0)
    again = pair(alpha=0.0, queue=EYE[:1], same=np.array([[1, 0, 1], [0, 1, 0]], dtype=bool))
    return Case(
        build=partial(MomentumContrastLoss, duplicates=duplicates),
        inputs=inputs,
        gradients=("image_emb", "text_emb"),
        rows=("image_emb", "text_emb", "image_copy", "text_copy"),
        mirror=mirror,
        permute=permute,
        reference=partial(reference, duplicates=duplicates),
        hands=tuple(Hand(given, value) for given, value in hands),
        pulls=(
            Pull(alone, "image_emb", 0, [1, 0], 1),
            Pull(alone, "image_emb", 0, [0, 1], -1),
            # what the queue holds along the first axis repels image 1, unless it says the same
            Pull(again, "image_emb", 1, [1, 0], -1),
            Pull(pair(alpha=0.0, queue=EYE[:1], same=np.ones((2, 3), dtype=bool)), "image_emb", 1, [1, 0],
                 0 if duplicates == "ignore" else 1),
        ),
    )  # fmt: skip


def pair(*, alpha: float, queue: np.ndarray = NONE, same: Any = None) -> Inputs:
    """Two rows, each along its own axis, at scale 2."""
    return _inputs(EYE, EYE, EYE, EYE, (queue, queue), 2.0, alpha, same)


# logits (2, 0) in each row: log p is -GOOD for the own column and -BAD for the other; the copies are as sure as
# P = e^2 / (e^2 + 1). A queued row along the first axis is a second column of the first logit
GOOD, BAD = math.log1p(math.exp(-2)), math.log1p(math.exp(2))
P = 1 / (1 + math.exp(-2))
SOFT = 0.4 * (P * GOOD + (1 - P) * BAD) + 0.6 * GOOD
TWICE = math.log(2 + math.exp(-2))  # of row 0 with one more column like its own
ALSO = math.log(1 + 2 * math.exp(-2))  # of row 1 with one more column like the other
ALL = np.ones((2, 2), dtype=bool)
SAME = np.array([[1, 0, 1], [0, 1, 0]], dtype=bool)
CASES = {
    "ignore": case(
        "ignore",
        [
            (pair(alpha=0.0), GOOD),
            (pair(alpha=0.4), SOFT),
            (pair(alpha=0.0, queue=EYE[:1]), (TWICE + ALSO) / 2),
            (pair(alpha=0.0, queue=EYE[:1], same=SAME), (GOOD + ALSO) / 2),
            (pair(alpha=0.4, same=ALL), 0.0),
        ],
    ),
    "positive": case(
        "positive",
        [
            (pair(alpha=0.4), SOFT),
            (pair(alpha=0.0, same=ALL), GOOD + 1),
            (pair(alpha=0.0, queue=EYE[:1], same=SAME), (TWICE + ALSO) / 2),
        ],
    ),
}
