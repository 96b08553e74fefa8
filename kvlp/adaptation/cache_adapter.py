"""The training-free adapter: what an image shares with labelled ones, added to what the words say of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from kvlp.adaptation.few_shot import FewShot, Patients
from kvlp.eval.metrics import auc
from kvlp.zero_shot import ZeroShotClassifier
from kvlp.zero_shot.scoring import Floats

__all__ = ["CacheAdapter"]

ALPHAS = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
BETAS = (1.0, 2.0, 5.5, 10.0, 20.0, 50.0)


class CacheAdapter(FewShot):
    """Zero-shot score + alpha x (mean affinity to positive images - mean affinity to negative ones).

    The affinity of two images is exp(-beta (1 - cosine)). Alpha and beta are chosen by the mean AUC over the labelled
    images, each scored without the images of its patient; alpha 0, the words alone, is among them. Nothing is trained.

    Args:
        alpha: weight of the images; None chooses it.
        beta: how near is near; None chooses it.

    Attributes:
        alpha_: weight of the images.
        beta_: how near is near.

    Reference: Zhang et al. 2022 (Tip-Adapter), equation 5.
    Deviation: several findings can be present, so each class has positive and negative images, and means instead of
    sums, since they are not equally many.
    """

    def __init__(self, *args: Any, alpha: float | None = None, beta: float | None = None, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._alphas = ALPHAS if alpha is None else (alpha,)
        self._betas = BETAS if beta is None else (beta,)
        self._words = ZeroShotClassifier(self.model, self.classes_, graph=self.graph)

    def _fit(self, images: Floats, labels: Floats, patients: Patients) -> None:
        self._keys, self._values = images, _values(labels)
        units = np.arange(len(images)) if patients is None else patients
        apart = units[:, None] != units[None, :]
        said, cosines = self._words.decision_function(images), images @ images.T
        best = (-np.inf, 0.0, 0.0)
        for beta in self._betas:
            affinity = np.exp(-beta * (1 - cosines)) * apart
            shared = _means(affinity, self._values, apart)
            for alpha in self._alphas:
                found = _mean_auc(labels, said + alpha * shared)
                if found > best[0] + 1e-12:
                    best = (found, alpha, beta)
        _, self.alpha_, self.beta_ = best

    def _scores(self, images: Floats) -> Floats:
        affinity = np.exp(-self.beta_ * (1 - images @ self._keys.T))
        shared = _means(affinity, self._values, np.ones_like(affinity, dtype=bool))
        scores: Floats = self._words.decision_function(images) + self.alpha_ * shared
        return scores


def _values(labels: Floats) -> tuple[Floats, Floats]:
    return (labels == 1).astype(float), (labels == 0).astype(float)


def _means(affinity: Floats, values: tuple[Floats, Floats], counted: Any) -> Floats:
    """(N, C) mean affinity to the counted positives of each class minus that to its counted negatives."""
    positive, negative = (affinity @ v / np.maximum(counted.astype(float) @ v, 1.0) for v in values)
    difference: Floats = positive - negative
    return difference


def _mean_auc(labels: Floats, scores: Floats) -> float:
    return float(np.mean([auc(truth, score) for truth, score in zip(labels.T, scores.T, strict=True)]))
