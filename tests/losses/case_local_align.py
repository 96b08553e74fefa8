"""LocalAlignLoss."""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import numpy as np
from losses_suite import Case, Hand, Inputs, Pull, softmax_cost, unit

from kvlp.losses import LocalAlignLoss

ATTENTION, SHARPNESS = 3.0, 4.0
OWNER = np.array([0, 1, 1, 3, 0, 4, 1])  # the report of row 2 has no phrase


def _inputs(patches: object, phrases: object, owner: list[int], same: object = None) -> Inputs:
    return {
        "patch_emb": np.asarray(patches, float), "phrase_emb": np.asarray(phrases, float).reshape(-1, 3),
        "owner": np.array(owner, dtype=np.int64), "logit_scale": 2.0, "same": same,
    }  # fmt: skip


def inputs(n: int) -> Inputs:
    same = np.eye(n, dtype=bool)
    if n > 3:
        same[1, 3] = same[3, 1] = True
    patches = np.random.default_rng(3).normal(size=(n, 6, 4))
    kept = n > OWNER
    return {
        "patch_emb": patches, "phrase_emb": unit(7, 4, seed=4)[kept], "owner": OWNER[kept], "logit_scale": 6.0,
        "same": same,
    }  # fmt: skip


def permute(given: Inputs, order: np.ndarray) -> Inputs:
    place = np.argsort(order)
    return {
        **given,
        "patch_emb": given["patch_emb"][order],
        "owner": place[given["owner"]],
        "same": given["same"][order][:, order],
    }


def mirror(given: Inputs) -> Inputs:
    """The phrases the other way round, and the patches of every image too."""
    turned = {name: given[name][::-1].copy() for name in ("phrase_emb", "owner")}
    return {**given, **turned, "patch_emb": given["patch_emb"][:, ::-1].copy()}


def _seen(patches: np.ndarray, phrase: np.ndarray) -> float:
    """Cosine of a phrase and what it attends to in one image."""
    weights = [math.exp(ATTENTION * float(p @ phrase) / math.sqrt(float(p @ p))) for p in patches]
    mean = sum(w * p for w, p in zip(weights, patches, strict=True))
    return float(mean @ phrase) / math.sqrt(float(mean @ mean))


def reference(given: Inputs, duplicates: str) -> float:
    patches, phrases, owner, same = (given[k] for k in ("patch_emb", "phrase_emb", "owner", "same"))
    told = sorted(set(owner.tolist()))
    table = np.zeros((len(told), len(told)))
    for a, image in enumerate(told):
        for b, report in enumerate(told):
            found = [_seen(patches[image], phrases[n]) for n in range(len(owner)) if owner[n] == report]
            mean = sum(math.exp(SHARPNESS * f) for f in found) / len(found)
            table[a, b] = given["logit_scale"] * math.log(mean) / SHARPNESS
    cost = 0.0
    for a, row in enumerate(told):
        alike = [bool(same[row, other]) for other in told]
        if duplicates == "ignore":
            targets, out = [float(a == b) for b in range(len(told))], [s and a != b for b, s in enumerate(alike)]
        else:
            targets, out = [s / sum(alike) for s in alike], [False] * len(told)
        cost += softmax_cost(list(table[a]), targets, out) + softmax_cost(list(table[:, a]), targets, out)
    return cost / len(told) / 2 if told else 0.0


X, Y, Z = np.eye(3)
WEIGHT = math.exp(ATTENTION) / (math.exp(ATTENTION) + 1)
COSINE = WEIGHT / math.hypot(WEIGHT, 1 - WEIGHT)
APART = _inputs([[[0.6, 0.6, 0.5]], [[0.1, 0.9, 0.1]]], [X, Y], [0, 1])


def case(duplicates: Literal["ignore", "positive"]) -> Case:
    return Case(
        build=partial(LocalAlignLoss, attention_scale=ATTENTION, sharpness=SHARPNESS, duplicates=duplicates),
        inputs=inputs,
        gradients=("patch_emb", "phrase_emb"),
        rows=("patch_emb",),
        permute=permute,
        mirror=mirror,
        reference=partial(reference, duplicates=duplicates),
        hands=(
            Hand(_inputs([[X], [Y]], [X, Y], [0, 1]), math.log1p(math.exp(-2))),  # one patch, one phrase each
            # two patches: the phrase looks at its own, but not only; in the other image it finds nothing
            Hand(_inputs([[X, Z], [Y, Z]], [X, Y], [0, 1]), math.log1p(math.exp(-2 * COSINE))),
            Hand(_inputs([[X], [Y]], [X, Y], [0, 0]), 0.0),  # one report: nothing to tell apart
            Hand(_inputs([[X], [Y]], [], []), 0.0),
        ),
        pulls=(
            Pull(APART, "patch_emb", 0, [1, 0, 0], 1),
            Pull(APART, "patch_emb", 0, [0, 1, 0], -1),
            Pull(APART, "phrase_emb", 1, [1, 0, 0], -1),
        ),
    )


CASES = {"ignore": case("ignore"), "positive": case("positive")}
