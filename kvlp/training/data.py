"""Training rows as arrays, and batches whose order is a pure function of (seed, stage, epoch, step)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from kvlp.training.augment import augment
from kvlp.training.texts import EntityPrompts, KnowledgePairs, TextRows

if TYPE_CHECKING:
    from kvlp.typing import IntArray

__all__ = ["Batches", "TrainingRows", "epoch_batches"]

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class TrainingRows:
    """N rows ready for training.

    Attributes:
        pixels: (N, S, S) uint8 grey images, letterboxed to the model's size; may be memory-mapped.
        texts: what each row's text may say, and its labels.
        keys: N names of the rows for messages (hashes, no patient's id).
    """

    pixels: np.ndarray
    texts: TextRows
    keys: Sequence[str]

    def __len__(self) -> int:
        return len(self.pixels)


def epoch_batches(rows: int, batch_size: int, seed: Sequence[int]) -> list[IntArray]:
    """Split a permutation of `rows` row numbers into batches of nearly `batch_size`, every row exactly once."""
    order = np.random.default_rng(list(seed)).permutation(rows)
    return np.array_split(order, max(1, round(rows / batch_size)))


@dataclass
class Batches:
    """Makes the batches of one stage.

    Attributes:
        rows: the training rows.
        tokenize: texts -> (n, L) token ids, padded to the longest.
        normalise: (n, S, S) uint8 or float in [0, 1] -> (n, 3, S, S) float, as the image tower wants it.
        with_images: False for a stage of texts alone, whose steps have no rows.
        image_emb: (N, D) unit embeddings that stand for the images of all rows, or None.
        entity, knowledge: samplers, or None where the stage has no such loss.
        knowledge_every: knowledge pairs come with every so-manieth step.
    """

    rows: TrainingRows
    tokenize: Callable[[Sequence[str]], Tensor]
    normalise: Callable[[Tensor], Tensor]
    batch_size: int
    accumulate: int
    seed: tuple[int, int]  # run seed, stage number
    max_sentences: int
    augmented: bool
    with_images: bool = True
    image_emb: Tensor | None = None
    entity: EntityPrompts | None = None
    knowledge: KnowledgePairs | None = None
    knowledge_every: int = 2
    knowledge_pairs: int = 96

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in one pass over the rows."""
        return max(1, round(len(self.rows) / (self.batch_size * self.accumulate)))

    def steps(self, start: int, stop: int) -> Iterator[tuple[list[Batch], Batch]]:
        """The steps from `start` to `stop`: micro-batches of rows, and what all of them share (prompts, pairs)."""
        order: list[IntArray] = []
        epoch = -1
        for step in range(start, stop):
            if step // self.steps_per_epoch != epoch:
                epoch = step // self.steps_per_epoch
                order = epoch_batches(len(self.rows), self.batch_size * self.accumulate, (*self.seed, epoch))
            rng = np.random.default_rng([*self.seed, 1, step])
            parts = np.array_split(order[step % self.steps_per_epoch], self.accumulate) if self.with_images else []
            micro = [self._rows(part, rng) for part in parts]
            yield micro, self._shared(step, rng)

    def _rows(self, indices: IntArray, rng: np.random.Generator) -> Batch:
        texts = [self.rows.texts.sample(int(i), rng, self.max_sentences) for i in indices]
        return {
            "row": torch.from_numpy(indices),
            **self._images(indices, rng),
            "text": self.tokenize(texts),
            "labels": torch.from_numpy(self.rows.texts.labels[indices]),
            "signature": torch.from_numpy(self.rows.texts.signature[indices]),
        }

    def _images(self, indices: IntArray, rng: np.random.Generator) -> Batch:
        if self.image_emb is not None:
            return {"image_emb": self.image_emb[torch.from_numpy(indices)]}
        pixels = torch.from_numpy(self.rows.pixels[np.sort(indices)][np.argsort(np.argsort(indices))])
        return {"image": self.normalise(augment(pixels, rng) if self.augmented else pixels)}

    def _shared(self, step: int, rng: np.random.Generator) -> Batch:
        shared: Batch = {}
        if self.entity is not None and self.entity.concepts:
            present, absent = self.entity.sample(rng)
            shared["prompts"] = self.tokenize([*present, *absent])  # (2C, L): present, then absent
        if self.knowledge is not None and step % self.knowledge_every == 0:
            first, second, concept = self.knowledge.sample(rng, self.knowledge_pairs)
            shared["pairs"] = self.tokenize([*first, *second])  # (2P, L): first texts, then second ones
            shared["concept"] = torch.from_numpy(concept)
        return shared
