"""From images and prompts to logits: the one place where a classifier meets its models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvlp.embedding import Flag, embed_images, read_images
from kvlp.errors import CheckpointError, ConfigError, DataError, ShapeError
from kvlp.zero_shot.ensemble import Ensemble, encodes, logit_scale

__all__ = [
    "SCORERS",
    "Asked",
    "Floats",
    "ImplausibleImageWarning",
    "Kinds",
    "Reading",
    "Said",
    "as_list",
    "as_model",
    "class_logits",
    "scorer_of",
    "unit_centre",
    "unit_vectors",
]

Floats: TypeAlias = NDArray[np.float64]
#: for each class, its sentences by kind ("present", "absent")
Said: TypeAlias = Sequence[Mapping[str, Sequence[str]]]
Kinds: TypeAlias = Sequence[str]
Lines: TypeAlias = Sequence[str]
#: what of a checkpoint scores: similarities of its encoders, or its query network
SCORERS = ("encoders", "query")


class ImplausibleImageWarning(UserWarning):
    """An image that was scored is not plausibly a frontal chest radiograph."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How images are read: what one that cannot be read does, how many at once, and who is told."""

    errors: Literal["raise", "flag"] = "raise"
    batch_size: int = 64
    progress: Callable[[int, int], None] | None = None


def as_model(model: Any) -> Any:
    """One model: a list of models becomes their ensemble.

    Raises:
        ConfigError: neither encodes nor scores.
    """
    if isinstance(model, list | tuple):
        return model[0] if len(model) == 1 else Ensemble(model)
    if not hasattr(model, "encode_text") and not hasattr(model, "score"):
        raise ConfigError(
            f"model: expected a model from kvlp.load, a list of them, or an object with score(images, prompts), "
            f"got {type(model).__name__}"
        )
    return model


def class_logits(model: Any, X: Any, said: Said, kinds: Kinds, reading: Reading) -> tuple[Floats, dict[int, Flag]]:
    """Logits of every member, image and class, and the flags of the images.

    Args:
        model: of `as_model`.
        X: a list of images, a manifest, or embeddings (N, D) of the model.
        said: the sentences of the C classes.
        kinds: ("present",), or ("present", "absent") for the difference of the two.
        reading: how images are read.

    Returns:
        float64 (M, N, C), the model's scale times cosines or their differences, without its bias; NaN rows for images
        that were not read. M is 1 for a single model.
    """
    members = model.members if isinstance(model, Ensemble) else (model,)
    sources = X if isinstance(X, np.ndarray) and X.ndim == 2 else as_list(X)
    flags: dict[int, Flag] = {}
    parts: Sequence[Any] = [sources] * len(members)
    if encodes(model):
        joined, flags = unit_vectors(model, sources, reading)
        parts = model.split(joined) if isinstance(model, Ensemble) else [joined]
    tables = []
    for member, images in zip(members, parts, strict=True):
        asked = Asked(member, images, reading)
        asked.ask(_sentences(said, kinds))
        tables.append(_difference([asked.table([prompts[kind] for prompts in said]) for kind in kinds]))
        flags = {**flags, **asked.flags}
    return np.stack([logit_scale(m) * table for m, table in zip(members, tables, strict=True)]), flags


def scorer_of(model: Any, scorer: str) -> Any:
    """What scores: the model itself ("encoders"), or its query network ("query"), which answers `score` alone.

    Raises:
        ConfigError: another name, or something that can have no query network.
        CheckpointError: the checkpoint has no query network.
    """
    if scorer not in SCORERS:
        raise ConfigError(f"scorer: expected 'encoders' or 'query', got {scorer!r}")
    if scorer == "encoders":
        return model
    if isinstance(model, Ensemble):
        return Ensemble([scorer_of(member, scorer) for member in model.members])
    try:
        return model.query
    except AttributeError:
        raise CheckpointError(
            f"{getattr(model, 'source', '') or type(model).__name__} has no query network; expected a checkpoint of a "
            "recipe with query_network (kad); score by the encoders"
        ) from None


class Asked:
    """Images that any sentences can be asked of; every score of a class is made here.

    A model that encodes is asked by vectors: a class is the unit vector between those of its sentences. One that only
    scores pictures (a query network, an expert) answers each sentence; a class is the mean of its answers. What was
    asked once is kept.

    Args:
        model: encodes images and texts, or scores images against prompts.
        images: a list of images, a manifest, or vectors (N, D) of the model, taken as they are.
        reading: how images are read.

    Attributes:
        model: who is asked.
        count: N.
        flags: position -> what is wrong with an image.
        vectors: float64 (N, D) of the images; empty for a model that only scores.

    Raises:
        ShapeError: vectors for a model that only scores.
    """

    def __init__(self, model: Any, images: Any, reading: Reading | None = None) -> None:
        self.model, self.flags = model, dict[int, Flag]()
        self._reading, self._known = reading or Reading("flag"), dict[str, Floats]()
        plain = isinstance(images, np.ndarray) and images.ndim == 2
        self._by_vectors = encodes(model)
        if not self._by_vectors:
            if plain:
                raise ShapeError(
                    f"{type(model).__name__} only scores images; expected images, got embeddings {images.shape}"
                )
            self._images = as_list(images)
            self.count, self.vectors = len(self._images), np.zeros((0, 0))
            return
        if plain:
            self.vectors = np.asarray(images, np.float64)
        else:
            self.vectors, self.flags = unit_vectors(model, as_list(images), self._reading)
        self.count = len(self.vectors)

    @property
    def read(self) -> NDArray[np.bool_]:
        """Which of the images could be read: bool (N,); of a model that only scores, once something was asked."""
        if self._by_vectors:
            return np.isfinite(self.vectors).all(axis=1)
        bad = [position for position, flag in self.flags.items() if flag.kind == "unreadable"]
        return ~np.isin(np.arange(self.count), bad)

    def ask(self, lines: Lines) -> None:
        """Ask sentences at once; a model that only scores sees each image once for all of them."""
        new = [line for line in dict.fromkeys(lines) if line not in self._known]
        if not new:
            return
        if self._by_vectors:
            answers = np.asarray(self.model.encode_text(new), np.float64)
        else:
            answers = self._answers(new).T
        self._known.update(zip(new, answers, strict=True))

    def match(self, lines: Lines) -> Floats:
        """How far each image agrees with some sentences: (N,), NaN where it was not read."""
        self.ask(lines)
        known = [self._known[line] for line in lines]
        return self.vectors @ unit_centre(known) if self._by_vectors else np.mean(known, axis=0)

    def table(self, classes: Sequence[Lines]) -> Floats:
        """The same for classes, each of some sentences: (N, C); a column of NaN for a class of none."""
        self.ask([line for lines in classes for line in lines])
        if not self._by_vectors:
            nothing = np.full(self.count, np.nan)
            return np.stack([self.match(lines) if lines else nothing for lines in classes], axis=1)
        centres = [unit_centre([self._known[s] for s in lines]) if lines else None for lines in classes]
        nothing = np.full(self.vectors.shape[1], np.nan)
        return self.vectors @ np.stack([nothing if centre is None else centre for centre in centres], axis=1)

    def _answers(self, lines: Lines) -> Floats:
        """(N, P) scores, read and asked batch by batch; NaN rows for images that were not read."""
        scores, size = np.full((self.count, len(lines)), np.nan), self._reading.batch_size
        for start in range(0, self.count, size):
            chunk = [self._images[i] for i in range(start, min(start + size, self.count))]
            greys, found = read_images(chunk, errors=self._reading.errors, start=start)
            self.flags.update(found)
            if greys:
                scores[list(greys)] = self.model.score(list(greys.values()), lines)
            if self._reading.progress is not None:
                self._reading.progress(start + len(chunk), self.count)
        return scores


def _sentences(said: Said, kinds: Kinds) -> list[str]:
    return list(dict.fromkeys(line for prompts in said for kind in kinds for line in prompts[kind]))


def unit_centre(vectors: ArrayLike) -> Floats:
    """The unit vector (D,) between sentences' vectors (K, D): a class, as open_clip builds one from templates."""
    mean = np.mean(np.asarray(vectors, dtype=np.float64), axis=0)
    return mean / max(float(np.linalg.norm(mean)), 1e-12)


def _difference(tables: Sequence[Floats]) -> Floats:
    return tables[0] - tables[1] if len(tables) == 2 else tables[0]


def unit_vectors(model: Any, sources: Any, reading: Reading) -> tuple[Floats, dict[int, Flag]]:
    """Unit vectors (N, D) of images or embeddings of the model, NaN rows for images that were not read; the flags."""
    if isinstance(sources, np.ndarray) and sources.ndim == 2:
        return _unit_rows(sources, model.dim), {}
    found = embed_images(
        model, sources, batch_size=reading.batch_size, errors=reading.errors, progress=reading.progress
    )
    return found.vectors.astype(np.float64), found.flags


def as_list(X: Any) -> Sequence[object]:
    """Images as a list; a manifest's paths, and a single path or PIL image, become one.

    Raises:
        ShapeError: a single array, or something else that is no list.
    """
    if hasattr(X, "path_of"):
        return [X.path_of(record) for record in X]
    if isinstance(X, str | Path | bytes) or hasattr(X, "getbands"):
        return [X]
    if not hasattr(X, "__len__") or not hasattr(X, "__getitem__") or isinstance(X, Mapping):
        raise ShapeError(f"expected a list of images, a manifest or embeddings (N, D), got {type(X).__name__}")
    if getattr(X, "ndim", 3) < 3:
        raise ShapeError(f"expected a list of images, got one of shape {tuple(X.shape)}; put it into a list")
    return X


def _unit_rows(X: NDArray[Any], dim: int) -> Floats:
    if X.shape[1] != dim:
        raise ShapeError(f"expected embeddings (N, {dim}) of this model, got {X.shape}; put a single image into a list")
    rows = X.astype(np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.isfinite(rows).all() or (lengths == 0).any():
        raise DataError("embeddings: expected finite rows that are not all zero; embed the images again")
    return rows / lengths
