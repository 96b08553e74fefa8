"""ContradictionLoss, with the contradiction alone and with other images' texts as negatives."""

from __future__ import annotations

import math

import numpy as np
from losses_suite import Case, Hand, Inputs, Pull, softmax_cost, unit

from kvlp.losses import ContradictionLoss

TEXTS = ("image_emb", "statement_emb", "contradiction_emb", "text_emb")


def inputs(n: int, *, batch: bool) -> Inputs:
    found: Inputs = {name: unit(n, 4, seed=seed) for seed, name in enumerate(TEXTS) if batch or name != "text_emb"}
    found |= {"known": np.array([True, True, False, True, True])[:n], "scale": 6.0}
    if batch:
        found["same"] = np.eye(5, dtype=bool)[:n, :n] | (np.add.outer(np.arange(n), np.arange(n)) == 3)
    return found


def mirror(given: Inputs) -> Inputs:
    """All vectors turned round: every product stays."""
    return {**given, **{name: -given[name] for name in TEXTS if name in given}}


def reference(given: Inputs) -> float:
    image, text, costs = given["image_emb"], given.get("text_emb"), []
    for i in np.flatnonzero(given["known"]):
        logits = [float(image[i] @ given[name][i]) for name in ("statement_emb", "contradiction_emb")]
        if text is not None:
            logits += [float(image[i] @ text[j]) for j in range(len(image)) if j != i and not given["same"][i, j]]
        scaled = [given["scale"] * value for value in logits]
        costs.append(softmax_cost(scaled, [1.0, *[0.0] * (len(scaled) - 1)], [False] * len(scaled)))
    return float(np.mean(costs)) if costs else 0.0


def _pair(*, known: bool = True, batch: bool = False) -> Inputs:
    """Two images on the first axis; what is true lies there too, what is false on the second, texts on the third."""
    axes = np.eye(3)
    found: Inputs = {
        "image_emb": axes[[0, 0]], "statement_emb": axes[[0, 0]], "contradiction_emb": axes[[1, 1]],
        "known": np.array([known, known]), "scale": 2.0,
    }  # fmt: skip
    return {**found, "text_emb": axes[[2, 2]], "same": np.eye(2, dtype=bool)} if batch else found


def case(*, batch: bool, hands: tuple[Hand, ...]) -> Case:
    rows = ("image_emb", "statement_emb", "contradiction_emb", "known", *(("text_emb",) if batch else ()))
    given = _pair(batch=batch)
    return Case(
        build=ContradictionLoss,
        inputs=lambda n: inputs(n, batch=batch),
        gradients=tuple(name for name in rows if name != "known"),
        rows=rows,
        squares=("same",) if batch else (),
        mirror=mirror,
        reference=reference,
        hands=hands,
        pulls=(
            Pull(given, "image_emb", 0, [1, 0, 0], 1),
            Pull(given, "image_emb", 0, [0, 1, 0], -1),
            Pull(given, "contradiction_emb", 0, [1, 0, 0], -1),
            Pull(given, "image_emb", 1, [0, 0, 1], -1 if batch else 0),
            Pull({**given, "known": np.array([False, True])}, "image_emb", 0, [1, 0, 0], 0),
        ),
    )


ALONE = math.log1p(math.exp(-2))
CASES = {
    "alone": case(batch=False, hands=(Hand(_pair(), ALONE), Hand(_pair(known=False), 0.0))),
    "in the batch": case(batch=True, hands=(Hand(_pair(batch=True), math.log1p(2 * math.exp(-2))),)),
}
