"""What every way of adapting a model to few labelled images has in common: images in, labels in, scores out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvlp.errors import ConfigError, DataError, ShapeError
from kvlp.zero_shot.scoring import Floats, Reading, as_list, unit_vectors

if TYPE_CHECKING:
    from kvlp.checkpoints import Model
    from kvlp.embedding import Flag
    from kvlp.knowledge.graph import KnowledgeGraph

__all__ = ["FewShot", "Patients", "draw_shots"]

Patients: TypeAlias = "NDArray[Any] | None"
Self = TypeVar("Self", bound="FewShot")


class FewShot(ABC):
    """A classifier over the features of a model that stays as it is.

    Args:
        model: a dual encoder from `kvlp.load`.
        classes: names, synonyms or ids of the graph's concepts, or free text.
        graph: gives each class its name in plain words.
        seed: of whatever is drawn.
        errors: what an image that cannot be read does: "raise", or "flag" for a row of NaN.
        batch_size: images read and encoded at once.
        progress: called with (images done, total) after each batch.

    Attributes:
        classes_: the C class names.
        flags_: position -> Flag for the images of the last call that could not be read or seem to be no radiograph.
    """

    def __init__(
        self,
        model: Model,
        classes: Sequence[str],
        *,
        graph: KnowledgeGraph | None = None,
        seed: int = 0,
        errors: Literal["raise", "flag"] = "raise",
        batch_size: int = 64,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        if isinstance(classes, str) or not classes or len(set(classes)) != len(classes):
            raise ConfigError(f"classes: expected a list of different names, got {classes!r}")
        self.model, self.graph, self.seed = model, graph, seed
        self.classes_ = list(classes)
        self.flags_: dict[int, Flag] = {}
        self._reading = Reading(errors, batch_size, progress)
        self._is_fitted = False

    def fit(self: Self, X: Any, y: ArrayLike, groups: ArrayLike | None = None) -> Self:
        """Learn from labelled images.

        Args:
            X: a list of images (paths, PIL images, arrays, DICOM files), a manifest, or embeddings (N, D) of the model.
            y: (N, C) labels 1, 0, -1 (uncertain) or NaN; only 1 and 0 count.
            groups: (N,) the patient of each image; settings are then chosen on patients left out, else on images.

        Raises:
            DataError: a class without a positive or without a negative image.
            ShapeError: labels that do not fit the images.
        """
        images = self._embed(X)
        labels = np.asarray(y, dtype=np.float64)
        labels = labels[:, None] if labels.ndim == 1 else labels
        if labels.shape != (len(images), len(self.classes_)):
            raise ShapeError(f"fit: expected labels of shape {(len(images), len(self.classes_))}, got {labels.shape}")
        patients = None if groups is None else np.asarray(groups)
        if patients is not None and patients.shape != (len(images),):
            raise ShapeError(f"fit: expected groups of shape {(len(images),)}, got {patients.shape}")
        read = np.isfinite(images).all(axis=1)
        _require_both(labels[read], self.classes_)
        self._fit(images[read], labels[read], None if patients is None else patients[read])
        self._is_fitted = True
        return self

    def decision_function(self, X: Any) -> Floats:
        """Score images: float64 (N, C), larger means rather present; NaN rows for images that were not read."""
        if not self._is_fitted:
            raise ConfigError(f"{type(self).__name__}: nothing was learned yet; call fit on labelled images")
        images = self._embed(X)
        scores = np.full((len(images), len(self.classes_)), np.nan)
        read = np.isfinite(images).all(axis=1)
        if read.any():
            scores[read] = self._scores(images[read])
        return scores

    def predict_proba(self, X: Any) -> Floats:
        """The sigmoid of the scores: float64 (N, C). Calibrated by `kvlp.eval.fitting` where that is needed."""
        return 1 / (1 + np.exp(-self.decision_function(X)))

    @abstractmethod
    def _fit(self, images: Floats, labels: Floats, patients: Patients) -> None: ...

    @abstractmethod
    def _scores(self, images: Floats) -> Floats: ...

    def _embed(self, X: Any) -> Floats:
        sources = X if isinstance(X, np.ndarray) and X.ndim == 2 else as_list(X)
        vectors, self.flags_ = unit_vectors(self.model, sources, self._reading)
        return vectors


def draw_shots(y: ArrayLike, shots: int, seed: int = 0, groups: ArrayLike | None = None) -> NDArray[np.intp]:
    """Rows for a few-shot experiment: of each class so many positives and as many negatives, if there are.

    Args:
        y: (N, C) labels.
        shots: positives of each class, and negatives.
        seed: of the draw.
        groups: (N,) patients: a patient is then drawn with one image a class.

    Returns:
        Row numbers in order, each once.
    """
    labels = np.asarray(y, dtype=np.float64)
    if labels.ndim != 2 or shots < 1:
        raise ShapeError(f"draw_shots: expected labels (N, C) and one shot or more, got {labels.shape} and {shots}")
    patients = np.arange(len(labels)) if groups is None else np.asarray(groups)
    rng = np.random.default_rng(seed)
    chosen: set[int] = set()
    for column in labels.T:
        for value in (1.0, 0.0):
            rows = rng.permutation(np.flatnonzero(column == value))
            _, first = np.unique(patients[rows], return_index=True)
            chosen.update(rows[np.sort(first)][:shots].tolist())
    return np.array(sorted(chosen), dtype=np.intp)


def _require_both(labels: Floats, names: Sequence[str]) -> None:
    for column, name in zip(labels.T, names, strict=True):
        positive, negative = int((column == 1).sum()), int((column == 0).sum())
        if not positive or not negative:
            raise DataError(
                f"class {name!r}: expected images with and without it, got {positive} with and {negative} without; "
                "label more images or leave the class out"
            )


def folds(column: Floats, patients: Patients, seed: int, most: int = 5) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Parts of the known rows of a class, (train, left out), by patient, each with both labels; none if there are few.

    Args:
        column: (N,) labels without NaN, 1 or 0.
        patients: (N,) or None.
        seed: of the parts.
        most: parts at most.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    units = np.arange(len(column)) if patients is None else patients
    fewest = min(len(np.unique(units[column == value])) for value in (0, 1))
    if (parts := min(most, fewest)) < 2:
        return []
    splitter = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
    found = splitter.split(np.zeros(len(column)), column, units)
    return [(train, left) for train, left in found if 0 < column[train].mean() < 1]
