"""From images and prompts to logits: the one place where a classifier meets its models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kvlp.embedding import Flag, embed_images, read_images
from kvlp.errors import ConfigError, DataError, ShapeError
from kvlp.zero_shot.ensemble import Ensemble, encodes, logit_scale

__all__ = [
    "Floats",
    "ImplausibleImageWarning",
    "Kinds",
    "Reading",
    "Said",
    "as_list",
    "as_model",
    "class_logits",
    "unit_centre",
    "unit_vectors",
]

Floats: TypeAlias = NDArray[np.float64]
#: for each class, its sentences by kind ("present", "absent")
Said: TypeAlias = Sequence[Mapping[str, Sequence[str]]]
Kinds: TypeAlias = Sequence[str]


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
    if encodes(model):
        joined, flags = unit_vectors(model, sources, reading)
        parts = model.split(joined) if isinstance(model, Ensemble) else [joined]
        tables = [_by_vectors(m, vectors, said, kinds) for m, vectors in zip(members, parts, strict=True)]
    else:
        tables = []
        for member in members:
            found, flags = _of_one(member, sources, said, kinds, reading)
            tables.append(found)
    return np.stack([logit_scale(m) * table for m, table in zip(members, tables, strict=True)]), flags


def _of_one(member: Any, sources: Any, said: Said, kinds: Kinds, reading: Reading) -> tuple[Floats, dict[int, Flag]]:
    if encodes(member):
        vectors, flags = unit_vectors(member, sources, reading)
        return _by_vectors(member, vectors, said, kinds), flags
    return _by_scores(member, sources, said, kinds, reading)


def _by_vectors(model: Any, images: Floats, said: Said, kinds: Kinds) -> Floats:
    sentences = _sentences(said, kinds)
    vectors = dict(zip(sentences, np.asarray(model.encode_text(sentences), np.float64), strict=True))

    def centres(kind: str) -> Floats:
        return np.stack([unit_centre([vectors[line] for line in prompts[kind]]) for prompts in said], axis=1)

    return _difference([images @ centres(kind) for kind in kinds])


def unit_centre(vectors: ArrayLike) -> Floats:
    """The unit vector (D,) between sentences' vectors (K, D): a class, as open_clip builds one from templates."""
    mean = np.mean(np.asarray(vectors, dtype=np.float64), axis=0)
    return mean / max(float(np.linalg.norm(mean)), 1e-12)


def _by_scores(
    model: Any, sources: Sequence[object], said: Said, kinds: Kinds, reading: Reading
) -> tuple[Floats, dict[int, Flag]]:
    """For models that only score: the mean of a class's sentences' scores."""
    if isinstance(sources, np.ndarray) and sources.ndim == 2:
        raise ShapeError(f"{type(model).__name__} only scores images; expected images, got embeddings {sources.shape}")
    sentences = _sentences(said, kinds)
    greys, flags = read_images(sources, errors=reading.errors)
    scores = np.full((len(sources), len(sentences)), np.nan)
    if greys:
        scores[list(greys)] = model.score(list(greys.values()), sentences)
    column = {line: i for i, line in enumerate(sentences)}

    def mean(lines: Sequence[str]) -> Floats:
        return scores[:, [column[line] for line in lines]].mean(axis=1)

    return _difference([np.stack([mean(prompts[kind]) for prompts in said], axis=1) for kind in kinds]), flags


def _sentences(said: Said, kinds: Kinds) -> list[str]:
    return list(dict.fromkeys(line for prompts in said for kind in kinds for line in prompts[kind]))


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
