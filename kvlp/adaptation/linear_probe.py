"""The linear probe: logistic regression on a model's features, class by class."""

from __future__ import annotations

from typing import Any

import numpy as np

from kvlp.adaptation.few_shot import FewShot, Patients, folds
from kvlp.zero_shot.scoring import Floats

__all__ = ["LinearProbe"]

#: inverse strengths of the penalty that are tried; features are unit vectors, whose differences are small
STRENGTHS = tuple(10.0**power for power in range(-1, 5))
#: where a class has too few patients to try
_DEFAULT = 10.0


class LinearProbe(FewShot):
    """Logistic regression with an L2 penalty, chosen for each class by log loss on patients left out.

    Attributes:
        weights_: (C, D).
        intercepts_: (C,).
        strengths_: (C,) inverse strength of the penalty that was chosen.

    Reference: Radford et al. 2021 (CLIP), linear probe.
    Deviation: several findings can be present, so there is one regression a class, over the rows that know it.
    """

    weights_: Floats
    intercepts_: Floats
    strengths_: Floats

    def _fit(self, images: Floats, labels: Floats, patients: Patients) -> None:
        fitted = []
        for column in labels.T:
            known = np.isin(column, (0, 1))
            units = None if patients is None else patients[known]
            strength = _choose(images[known], column[known], units, self.seed)
            model = _regression(images[known], column[known], strength)
            fitted.append((model.coef_[0], model.intercept_[0], strength))
        weights, intercepts, strengths = zip(*fitted, strict=True)
        self.weights_, self.intercepts_, self.strengths_ = map(np.array, (weights, intercepts, strengths))

    def _scores(self, images: Floats) -> Floats:
        scores: Floats = images @ self.weights_.T + self.intercepts_
        return scores


def _choose(images: Floats, column: Floats, patients: Patients, seed: int) -> float:
    parts = folds(column, patients, seed)
    if not parts:
        return _DEFAULT
    losses = [sum(_loss(images, column, a, b, strength) for a, b in parts) for strength in STRENGTHS]
    return STRENGTHS[int(np.argmin(losses))]


def _loss(images: Floats, column: Floats, train: Any, left: Any, strength: float) -> float:
    decision = _regression(images[train], column[train], strength).decision_function(images[left])
    sign = 2 * column[left] - 1
    return float(np.logaddexp(0, -sign * decision).sum())


def _regression(images: Floats, column: Floats, strength: float) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-6).fit(images, column)
