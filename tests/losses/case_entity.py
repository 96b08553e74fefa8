"""EntityLoss, balanced and not."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from losses_suite import Case, Hand, Inputs, Pull, sigmoid_cost, unit

from kvlp.losses import EntityLoss

NAN = math.nan
LABELS = np.array([[1, 0, 1], [0, 0, NAN], [-1, 1, NAN], [NAN, 1, 1], [1, NAN, -1]])


def inputs(n: int) -> Inputs:
    image, present, absent = unit(n, 4, seed=1), unit(3, 4, seed=2), unit(3, 4, seed=3)
    return _inputs(image, present, absent, LABELS[:n], 5.0, -0.5)


def _inputs(
    image: np.ndarray, present: np.ndarray, absent: np.ndarray, labels: np.ndarray, scale: float, bias: float
) -> Inputs:
    return {
        "image_emb": np.asarray(image, float), "present_emb": np.asarray(present, float),
        "absent_emb": np.asarray(absent, float), "labels": np.asarray(labels, float), "scale": scale, "bias": bias,
    }  # fmt: skip


def mirror(given: Inputs) -> Inputs:
    """What is present becomes absent, and the prompts change places."""
    labels = given["labels"]
    turned = np.where((labels == 0) | (labels == 1), 1 - labels, labels)
    return {**given, "present_emb": given["absent_emb"], "absent_emb": given["present_emb"], "labels": turned}


def reference(given: Inputs, *, balanced: bool) -> float:
    image, present, absent, labels = (given[k] for k in ("image_emb", "present_emb", "absent_emb", "labels"))
    cost = norm = 0.0
    for c in range(labels.shape[1]):
        known = {v: [i for i in range(len(image)) if labels[i, c] == v] for v in (0.0, 1.0)}
        if balanced and not all(known.values()):
            continue  # a finding of which one side only is known
        for value, rows in known.items():
            for i in rows:
                weight = 1 / len(rows) / 2 if balanced else 1.0
                norm += weight
                for prompts, target in ((present, value == 1), (absent, value == 0)):
                    logit = given["scale"] * float(image[i] @ prompts[c]) + given["bias"]
                    cost += weight / 2 * sigmoid_cost(logit, target=target)
    return cost / norm if norm else 0.0


def case(*, balanced: bool, hands: tuple[Hand, ...]) -> Case:
    def pair(first: float, second: float) -> Inputs:
        # two images; the present prompt along the third axis, the absent one against it
        image = np.array([[1.0, 0, 0], [0, 1, 0]])
        return _inputs(image, [[0, 0, 1]], [[0, 0, -1]], [[first], [second]], 4.0, 0.0)

    return Case(
        build=partial(EntityLoss, balanced=balanced),
        inputs=inputs,
        gradients=("image_emb", "present_emb", "absent_emb"),
        rows=("image_emb", "labels"),
        mirror=mirror,
        reference=partial(reference, balanced=balanced),
        hands=hands,
        pulls=(
            Pull(pair(1, 0), "image_emb", 0, [0, 0, 1], 1),
            Pull(pair(1, 0), "image_emb", 1, [0, 0, 1], -1),
            Pull(pair(1, 0), "present_emb", 0, [1, 0, 0], 1),
            Pull(pair(1, 0), "absent_emb", 0, [1, 0, 0], -1),
            Pull(pair(NAN, -1), "image_emb", 0, [0, 0, 1], 0),
        ),
    )


ONE = np.array([[1.0, 0]])
TWO = np.eye(2)
CASES = {
    # present in image 0, absent in image 1: the present prompt has logits 2 and 0, the absent one 0 and 2
    "balanced": case(
        balanced=True,
        hands=(
            Hand(_inputs(TWO, ONE, ONE[:, ::-1], [[1], [0]], 2.0, 0.0), (math.log1p(math.exp(-2)) + math.log(2)) / 2),
            Hand(_inputs(TWO, ONE, ONE[:, ::-1], [[1], [NAN]], 2.0, 0.0), 0.0),  # one side only
        ),
    ),
    "every pair alike": case(
        balanced=False,
        hands=(
            Hand(_inputs(ONE, ONE, -ONE, [[1]], 2.0, 0.0), math.log1p(math.exp(-2))),
            Hand(_inputs(ONE, ONE, -ONE, [[0]], 2.0, 0.0), math.log1p(math.exp(2))),
        ),
    ),
}
