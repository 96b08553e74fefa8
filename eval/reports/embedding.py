"""Likeness of embeddings: the cosine of two reports under any text encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from kvlp.errors import DataError, ShapeError
from kvlp.eval.reports.metric import Column, Floats, mean_column

__all__ = ["EmbeddingSimilarity", "TextEncoder"]

#: N texts -> (N, D)
TextEncoder: TypeAlias = Callable[[Sequence[str]], ArrayLike]


class EmbeddingSimilarity:
    """Cosine of the embeddings of reference and hypothesis, in [-1, 1]; overall the mean.

    Args:
        embed: N texts -> array (N, D); a kvlp model's `encode_text`, for one.
        name: of the column.

    Example:
        >>> EmbeddingSimilarity(kvlp.load("runs/a/checkpoint").encode_text)
    """

    def __init__(self, embed: TextEncoder, name: str = "embedding") -> None:
        self._embed, self.name = embed, name

    def __call__(self, refs: Sequence[str], hyps: Sequence[str]) -> list[Column]:
        """One column.

        Raises:
            ShapeError: the encoder gives no (N, D) array.
            DataError: a vector that is 0 or not finite.
        """
        one, other = self._unit(refs), self._unit(hyps)
        cosine = np.clip(np.einsum("nd,nd->n", one, other), -1.0, 1.0)
        return [mean_column(self.name, "cosine of the embeddings of both reports; mean of reports", cosine)]

    def _unit(self, texts: Sequence[str]) -> Floats:
        rows = np.asarray(self._embed(list(texts)), dtype=np.float64)
        if rows.ndim != 2 or len(rows) != len(texts):
            raise ShapeError(f"{self.name}: expected embeddings of shape ({len(texts)}, D), got {rows.shape}")
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        if not np.isfinite(norms).all() or not norms.all():
            bad = int(np.flatnonzero(~np.isfinite(norms[:, 0]) | (norms[:, 0] == 0))[0])
            raise DataError(f"{self.name}: the embedding of text {bad} is 0 or not finite")
        return rows / norms
