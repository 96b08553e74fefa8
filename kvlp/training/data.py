"""Training rows as arrays, and batches: each a pure function of (seed, stage, step), whoever makes it and when."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch import Tensor

from kvlp.training.augment import changed, draw_changes
from kvlp.training.objectives.part import Drawn, Samplers
from kvlp.training.texts import TextRows
from kvlp.training.workers import in_order

if TYPE_CHECKING:
    from kvlp.typing import IntArray

__all__ = ["Batches", "Step", "TrainingRows", "epoch_batches"]

Batch = dict[str, Tensor]
#: What one step needs: its micro-batches of rows, and what all of them share (prompts, pairs).
Step: TypeAlias = tuple[list[Batch], Batch]


@dataclass(frozen=True)
class TrainingRows:
    """N rows ready for training.

    Attributes:
        pixels: (N, S, S) uint8 grey images, letterboxed to the model's size; may be memory-mapped.
        texts: what each row's text may say, and its labels.
        keys: N names of the rows for messages (hashes, no patient's id).
        studies: the rows of each study, whose images are views of one sample; None: every row is a sample.
    """

    pixels: np.ndarray
    texts: TextRows
    keys: Sequence[str]
    studies: Sequence[IntArray] | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def samples(self) -> int:
        """How many samples there are: studies, or rows."""
        return len(self) if self.studies is None else len(self.studies)

    def first(self, samples: IntArray) -> IntArray:
        """The row that stands for each sample: its text, its labels."""
        return samples if self.studies is None else np.array([self.studies[i][0] for i in samples], dtype=np.int64)

    def views(self, samples: IntArray) -> tuple[IntArray, IntArray | None]:
        """The rows whose images the samples have, one sample after another, and how many each has (None: one each)."""
        if self.studies is None:
            return samples, None
        found = [self.studies[i] for i in samples]
        return np.concatenate([*found, np.empty(0, np.int64)]), np.array([len(rows) for rows in found], dtype=np.int64)


def epoch_batches(rows: int, batch_size: int, seed: Sequence[int]) -> list[IntArray]:
    """Split a permutation of `rows` row numbers into batches of nearly `batch_size`, every row exactly once."""
    order = np.random.default_rng(list(seed)).permutation(rows)
    return np.array_split(order, max(1, round(rows / batch_size)))


@dataclass
class Batches:
    """The batches of one stage by their step: `batches[17]` is the same each time, in every process.

    Samplers must be functions of what they are handed; what they remember may only save time.

    Attributes:
        rows: the training rows.
        tokenize: texts -> (n, L) token ids, padded to the longest.
        normalise: (n, S, S) uint8 or float in [0, 1] -> (n, 3, S, S) float, as the image tower wants it.
        with_images: False for a stage of texts alone, whose steps have no rows.
        image_features: name -> (N, ...) features that stand for the images of all rows, or None.
        samplers: what the losses of the stage draw, in their order.
        share: (k, n): of every micro-batch the k-th of n parts, for one process of several. What is drawn at random is
            drawn for all rows, so that the parts together are the micro-batch of one process.
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
    image_features: Batch | None = None
    samplers: Sequence[Samplers] = ()
    share: tuple[int, int] = (0, 1)
    _epoch: tuple[int, list[IntArray]] = field(default=(-1, []), init=False, repr=False)  # the last one asked for

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in one pass over the rows."""
        return max(1, round(self.rows.samples / (self.batch_size * self.accumulate)))

    @property
    def draws(self) -> bool:
        """Whether a step has anything in it: rows, or texts that some loss draws."""
        return self.with_images or any(sampler.shared for sampler in self.samplers)

    def __getitem__(self, step: int) -> Step:
        """The batch of one step: micro-batches of rows, and what all of them share."""
        rng = np.random.default_rng([*self.seed, 1, step])
        own = np.random.default_rng([*self.seed, 2, step])  # another, so that rows are the same whatever is added
        parts = np.array_split(self._step_rows(step), self.accumulate) if self.with_images else []
        micro = [{**self._rows(part, rng), **self._own(step, self.rows.first(part), own)} for part in parts]
        return micro, self._shared(step, rng)

    def steps(self, start: int, stop: int, *, workers: int = 0) -> Generator[Step, None, None]:
        """The steps from `start` to `stop`; with `workers`, made ahead by so many processes: the same bits."""
        return in_order(self, range(start, stop), workers)

    def _step_rows(self, step: int) -> IntArray:
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._epoch[0] != epoch:
            size = self.batch_size * self.accumulate
            self._epoch = (epoch, epoch_batches(self.rows.samples, size, (*self.seed, epoch)))
        return self._epoch[1][place]

    @property
    def fewest(self) -> int:
        """Rows of the smallest micro-batch."""
        return self.rows.samples // self.steps_per_epoch // self.accumulate

    def _rows(self, samples: IntArray, rng: np.random.Generator) -> Batch:
        texts = [self.rows.texts.sample(int(i), rng, self.max_sentences) for i in self.rows.first(samples)]
        shown, counts = self.rows.views(samples)
        changes = draw_changes(len(shown), rng) if self.augmented and self.image_features is None else None
        mine = self._mine(len(samples))
        rows, seen = self.rows.first(samples[mine]), mine
        if counts is not None:
            seen = slice(int(counts[: mine.start].sum()), int(counts[: mine.stop].sum()))
        return {
            "row": torch.from_numpy(rows),
            **self._images(shown[seen], None if changes is None else changes[:, seen]),
            **({} if counts is None else {"views": torch.from_numpy(counts[mine])}),
            "text": self.tokenize(texts[mine]),
            "labels": torch.from_numpy(self.rows.texts.labels[rows]),
            "signature": torch.from_numpy(self.rows.texts.signature[rows]),
        }

    def _images(self, indices: IntArray, changes: Tensor | None) -> Batch:
        if self.image_features is not None:
            return {name: values[torch.from_numpy(indices)] for name, values in self.image_features.items()}
        pixels = torch.from_numpy(self.rows.pixels[np.sort(indices)][np.argsort(np.argsort(indices))])
        return {"image": self.normalise(pixels if changes is None else changed(pixels, changes))}

    def _own(self, step: int, indices: IntArray, rng: np.random.Generator) -> Batch:
        drawn = [one.rows(indices, rng) for one in self.samplers if one.rows and step % one.every == 0]
        mine = self._mine(len(indices))
        return {n: v for one in drawn for n, v in self._tensors({k: d[mine] for k, d in one.items()}).items()}

    def _mine(self, count: int) -> slice:
        part, parts = self.share
        sizes = [len(piece) for piece in np.array_split(np.empty(count), parts)]
        return slice(sum(sizes[:part]), sum(sizes[: part + 1]))

    def _shared(self, step: int, rng: np.random.Generator) -> Batch:
        drawn = [sampler.shared(step, rng) for sampler in self.samplers if sampler.shared]
        return {name: value for one in drawn for name, value in self._tensors(one).items()}

    def _tensors(self, drawn: Drawn) -> Batch:
        return {
            name: torch.from_numpy(values) if isinstance(values, np.ndarray) else self.tokenize(list(values))
            for name, values in drawn.items()
        }
