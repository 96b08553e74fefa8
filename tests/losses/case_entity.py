"""EntityLoss, balanced and not; what is not mentioned left out or in part absent."""

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


def reordered(given: Inputs) -> Inputs:
    """The findings in another order."""
    order = [2, 0, 1]
    prompts = {name: given[name][order] for name in ("present_emb", "absent_emb")}
    return {**given, **prompts, "labels": given["labels"][:, order]}


def reference(given: Inputs, *, balanced: bool, unmentioned: float) -> float:
    image, present, absent, labels = (given[k] for k in ("image_emb", "present_emb", "absent_emb", "labels"))
    cost = norm = 0.0
    for c in range(labels.shape[1]):
        known = {v: {i: 1.0 for i in range(len(image)) if labels[i, c] == v} for v in (0.0, 1.0)}
        if unmentioned:
            known[0.0] |= {i: unmentioned for i in range(len(image)) if math.isnan(labels[i, c])}
        if balanced and not all(known.values()):
            continue  # a finding of which one side only is known
        for value, rows in known.items():
            for i, told in rows.items():
                weight = told / sum(rows.values()) / 2 if balanced else told
                norm += weight
                for prompts, target in ((present, value == 1), (absent, value == 0)):
                    logit = given["scale"] * float(image[i] @ prompts[c]) + given["bias"]
                    cost += weight / 2 * sigmoid_cost(logit, target=target)
    return cost / norm if norm else 0.0


def case(*, balanced: bool, hands: tuple[Hand, ...], unmentioned: float = 0.0, images_learn: bool = True) -> Case:
    def pair(first: float, second: float) -> Inputs:
        # two images; the present prompt along the third axis, the absent one against it
        image = np.array([[1.0, 0, 0], [0, 1, 0]])
        return _inputs(image, [[0, 0, 1]], [[0, 0, -1]], [[first], [second]], 4.0, 0.0)

    images = (
        Pull(pair(1, 0), "image_emb", 0, [0, 0, 1], 1),
        Pull(pair(1, 0), "image_emb", 1, [0, 0, 1], -1),
        Pull(pair(NAN, -1), "image_emb", 0, [0, 0, 1], -1 if unmentioned and not balanced else 0),
    )
    return Case(
        build=partial(EntityLoss, balanced=balanced, unmentioned=unmentioned, denials_teach_images=images_learn),
        inputs=inputs,
        gradients=("image_emb", "present_emb", "absent_emb") if images_learn else ("present_emb", "absent_emb"),
        rows=("image_emb", "labels"),
        mirror=reordered if unmentioned else mirror,
        reference=partial(reference, balanced=balanced, unmentioned=unmentioned),
        hands=hands,
        pulls=(
            Pull(pair(1, 0), "present_emb", 0, [1, 0, 0], 1),
            Pull(pair(1, 0), "absent_emb", 0, [1, 0, 0], -1),
            *(images if images_learn else ()),
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
    "images learn from statements alone": case(
        balanced=True,
        images_learn=False,
        hands=(
            Hand(_inputs(TWO, ONE, ONE[:, ::-1], [[1], [0]], 2.0, 0.0), (math.log1p(math.exp(-2)) + math.log(2)) / 2),
        ),
    ),
    # silence is the only absence: balanced, it weighs as much as the one present image
    "not mentioned is in part absent, balanced": case(
        balanced=True,
        unmentioned=0.25,
        hands=(
            Hand(_inputs(TWO, ONE, ONE[:, ::-1], [[1], [NAN]], 2.0, 0.0), (math.log1p(math.exp(-2)) + math.log(2)) / 2),
            Hand(_inputs(TWO, ONE, ONE[:, ::-1], [[NAN], [0]], 2.0, 0.0), 0.0),
        ),
    ),
    # logits 2 and 0 of the present prompt, 0 and 2 of the absent one; the second image counts a quarter
    "not mentioned is in part absent": case(
        balanced=False,
        unmentioned=0.25,
        hands=(
            Hand(
                _inputs(TWO, ONE, ONE[:, ::-1], [[1], [NAN]], 2.0, 0.0),
                (math.log1p(math.exp(-2)) + math.log(2)) / 2,
            ),
            Hand(
                _inputs(TWO, ONE, ONE[:, ::-1], [[0], [NAN]], 2.0, 0.0),
                (math.log1p(math.exp(2)) + math.log(2) + 0.25 * (math.log1p(math.exp(-2)) + math.log(2))) / 2.5,
            ),
        ),
    ),
}
