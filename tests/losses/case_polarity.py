"""PolarityLoss."""

from __future__ import annotations

import numpy as np
from losses_suite import Case, Hand, Inputs, Pull, unit

from kvlp.losses import PolarityLoss

IMAGES = np.array([[1.0, 0], [0, 1]])
FIRST = np.array([[1.0, 0]])


def inputs(n: int) -> Inputs:
    return {"image_emb": unit(n, 4, seed=1), "present_emb": unit(3, 4, seed=2), "absent_emb": unit(3, 4, seed=3)}


def mirror(given: Inputs) -> Inputs:
    """Images turned round: both similarities change their sign, and variances do not."""
    return {**given, "image_emb": -given["image_emb"]}


def reference(given: Inputs) -> float:
    left = stated = 0.0
    for present, absent in zip(given["present_emb"], given["absent_emb"], strict=True):
        similar = [float(image @ present) for image in given["image_emb"]]
        denied = [float(image @ absent) for image in given["image_emb"]]
        stated += float(np.var(similar))
        left += float(np.var([a + b for a, b in zip(similar, denied, strict=True)]))
    return left / (stated + 0.01 * len(given["present_emb"]))


def _pair(absent: list[float]) -> Inputs:
    return {"image_emb": IMAGES, "present_emb": FIRST, "absent_emb": np.array([absent])}


DENIED = {"image_emb": IMAGES, "present_emb": FIRST, "absent_emb": np.array([[0.6, 0.8]])}
CASES = {
    "default": Case(
        build=PolarityLoss,
        inputs=inputs,
        gradients=("absent_emb",),
        rows=("image_emb",),
        mirror=mirror,
        reference=reference,
        # the denial is the statement turned round, the statement again, or says nothing of these images; the
        # statement's variance is 1/4, to which the floor adds 1/100
        hands=(
            Hand(_pair([-1, 0]), 0.0),
            Hand(_pair([1, 0]), 1 / 0.26),
            Hand(_pair([2**-0.5, 2**-0.5]), 0.25 / 0.26),
        ),
        pulls=(
            Pull(DENIED, "absent_emb", 0, [1, 0], -1),
            Pull(DENIED, "absent_emb", 0, [0, 1], 1),
            Pull(DENIED, "absent_emb", 0, [1, 1], 0),  # what all images share
        ),
        lr=0.5,
    )
}
