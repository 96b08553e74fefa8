"""What can be had without a model of images and words: a linear baseline, and controls that see no disease.

A score that a control reaches is no evidence of reading the image: data from several sources can be told apart by the
source alone, and often by the border of the picture.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kvlp.datasets.images import load_grey_uint8
from kvlp.errors import DataError, MissingExtraError
from kvlp.eval.metrics import Floats, auc
from kvlp.eval.tasks import ClassTask, label_matrix
from kvlp.knowledge.names import Names

if TYPE_CHECKING:
    from kvlp.datasets.manifest import Manifest

__all__ = ["CONTROLS", "border", "control_scores", "logistic_scores", "source_scores", "thumbnails"]

#: Regularisation of the logistic regression is chosen among these, on patients held out of the training rows.
_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)


def control_scores(
    train: Manifest, test: Manifest, tasks: Sequence[ClassTask], names: Names, controls: Sequence[str] = ()
) -> dict[str, Floats]:
    """Fit every control on the training rows and score the test rows.

    Args:
        train: rows to fit on; those that cannot be read are left out.
        test: rows to score, all readable: pass the records that an evaluation scored.
        tasks: C classes.
        names: brings labels to one form.
        controls: which, by default all of `CONTROLS`.

    Returns:
        Control -> shape (N, C); a column is NaN where the training rows do not hold both labels.
    """
    labels = label_matrix(list(train), tasks, names)
    return {name: CONTROLS[name](train, test, labels) for name in controls or CONTROLS}


def thumbnails(manifest: Manifest, side: int = 32) -> Floats:
    """Grey thumbnails as rows: shape (N, side * side) in [0, 1]; NaN rows where an image cannot be read."""
    from PIL import Image

    out = np.full((len(manifest), side * side), np.nan)
    for row, record in enumerate(manifest):
        try:
            grey = load_grey_uint8(manifest.path_of(record))
        except (DataError, OSError):
            continue
        small = Image.fromarray(grey).resize((side, side), Image.Resampling.BOX)
        out[row] = np.asarray(small, dtype=np.float64).ravel() / 255
    return out


def border(thumbs: Floats, share: float = 0.12) -> Floats:
    """Keep the outer `share` of each side of square thumbnails, drop the rest: shape (N, pixels of the border)."""
    side = math.isqrt(thumbs.shape[1])
    width = max(1, round(share * side))
    outer = np.ones((side, side), dtype=bool)
    outer[width : side - width, width : side - width] = False
    return thumbs[:, outer.ravel()]


def source_scores(train_sources: Sequence[str], labels: Floats, test_sources: Sequence[str]) -> Floats:
    """The share of positives among the training rows of an image's source: the best score that the source allows.

    Args:
        train_sources: source of each of M training rows.
        labels: shape (M, C); 1, 0, -1 or NaN.
        test_sources: source of each of N rows; an unknown source gets the share over all.

    Returns:
        Shape (N, C).
    """
    sources = np.asarray(train_sources, dtype=np.str_)
    out = np.full((len(test_sources), labels.shape[1]), np.nan)
    for column, label in enumerate(labels.T):
        known = np.isin(label, (0.0, 1.0))
        if len(set(label[known])) < 2:
            continue
        overall = float(label[known].mean())
        share = {s: _smoothed(label[known & (sources == s)], overall) for s in np.unique(sources)}
        out[:, column] = [share.get(source, overall) for source in test_sources]
    return out


def logistic_scores(train_x: Floats, labels: Floats, test_x: Floats, groups: Sequence[str]) -> Floats:
    """Logistic regression on rows of numbers, one a class, its strength chosen on held-out training patients.

    Args:
        train_x: shape (M, F); NaN rows are left out.
        labels: shape (M, C).
        test_x: shape (N, F).
        groups: patient of each training row.

    Returns:
        Log-odds, shape (N, C); a column is NaN where the training rows do not hold both labels.
    """
    readable = ~np.isnan(train_x).any(axis=1)
    patients = np.asarray(groups, dtype=np.str_)
    out = np.full((len(test_x), labels.shape[1]), np.nan)
    for column, label in enumerate(labels.T):
        rows = np.flatnonzero(np.isin(label, (0.0, 1.0)) & readable)
        if len(set(label[rows])) == 2:
            strength = _choose_strength(train_x[rows], label[rows], patients[rows])
            out[:, column] = _fit(train_x[rows], label[rows], strength)(test_x)
    return out


def _choose_strength(x: Floats, y: Floats, patients: NDArray[np.str_]) -> float:
    ids = np.unique(patients)
    held = np.isin(patients, np.random.default_rng(0).choice(ids, size=max(1, len(ids) // 5), replace=False))
    if len(set(y[held])) < 2 or len(set(y[~held])) < 2:
        return _STRENGTHS[1]
    found = [auc(y[held], _fit(x[~held], y[~held], strength)(x[held])) for strength in _STRENGTHS]
    return _STRENGTHS[int(np.argmax(found))]


def _fit(x: Floats, y: Floats, strength: float) -> Callable[[Floats], Floats]:
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        raise MissingExtraError("scikit-learn", "eval") from None
    middle, spread = x.mean(axis=0), x.std(axis=0) + 1e-6
    model = LogisticRegression(C=strength, max_iter=500)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an early stop is a weaker baseline by less than its interval
        model.fit((x - middle) / spread, y)
    return lambda new: model.decision_function((new - middle) / spread)


def _smoothed(labels: Floats, overall: float) -> float:
    return float((labels.sum() + overall) / (labels.size + 1))


def _patients(manifest: Manifest) -> list[str]:
    return [record.patient_id or f"row {i}" for i, record in enumerate(manifest)]


def _by_thumbnails(train: Manifest, test: Manifest, labels: Floats) -> Floats:
    return logistic_scores(thumbnails(train), labels, thumbnails(test), _patients(train))


def _by_border(train: Manifest, test: Manifest, labels: Floats) -> Floats:
    return logistic_scores(border(thumbnails(train, 50)), labels, border(thumbnails(test, 50)), _patients(train))


def _by_source(train: Manifest, test: Manifest, labels: Floats) -> Floats:
    return source_scores([record.source for record in train], labels, [record.source for record in test])


#: name -> function (train, test, labels of the training rows) -> scores (N, C)
CONTROLS: dict[str, Callable[[Manifest, Manifest, Floats], Floats]] = {
    "logistic regression on 32 x 32 pixels": _by_thumbnails,
    "source only": _by_source,
    "border only (outer 12 %)": _by_border,
}
