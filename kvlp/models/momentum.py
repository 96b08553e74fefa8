"""A slowly following copy of a model, and a queue of what it has embedded: many negatives for little memory."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kvlp.errors import ConfigError, ShapeError

__all__ = ["FeatureQueue", "MomentumCopy", "MomentumMemory", "QueueRows"]


class MomentumCopy(nn.Module):
    """A copy of a model whose weights are a moving average of the model's: copy <- m * copy + (1 - m) * model.

    It begins as the model is and follows it at every `follow`. It has no gradients and is always in evaluation mode;
    integer buffers (counts) are taken over as they are. Its weights are part of the state: a resumed run goes on with
    the average that it had. The model itself is not held: hand it in each time.

    Raises: ConfigError for a momentum outside [0, 1); ShapeError if another model is handed in.
    Reference: He et al. 2020 (MoCo); MOTOR (arXiv 2304.14204) has m = 0.995.
    """

    def __init__(self, model: nn.Module, *, momentum: float = 0.995) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise ConfigError(f"expected a momentum in [0, 1), got {momentum:g}")
        self.momentum = momentum
        self.copy = deepcopy(model).requires_grad_(requires_grad=False).eval()

    def train(self, mode: bool = True) -> MomentumCopy:  # noqa: FBT001 the signature is torch's
        """Keep the copy in evaluation mode whatever is asked: it draws nothing at random."""
        super().train(mode)
        self.copy.eval()
        return self

    @torch.no_grad()
    def follow(self, model: nn.Module) -> None:
        """Move the weights one step towards the model's; call it after each step of the optimiser."""
        ours, theirs = self.copy.state_dict(), model.state_dict()
        if {name: value.shape for name, value in ours.items()} != {n: v.shape for n, v in theirs.items()}:
            raise ShapeError("expected the model that was copied, got one of other weights")
        for name, value in ours.items():
            if value.is_floating_point():
                value.lerp_(theirs[name].to(value), 1 - self.momentum)
            else:
                value.copy_(theirs[name])

    @torch.no_grad()
    def __call__(self, ask: Callable[[nn.Module], Tensor]) -> Tensor:
        """What the copy says: `ask` gets it, for example `lambda model: model.encode_image(pixels)`."""
        return ask(self.copy)


class QueueRows(NamedTuple):
    """What a queue holds.

    Attributes:
        emb: (n, D) float32 of unit length, oldest first.
        keys: (n,) int64, whatever was pushed with each.
    """

    emb: Tensor
    keys: Tensor


class FeatureQueue(nn.Module):
    """The newest `size` embeddings, first in first out, each with an integer key (row, study or text).

    It begins empty, never with random rows that would train against noise, and hands out what it holds. Keys tell which
    of its rows are no negatives: the same row seen an epoch ago, or a text that says the same. All of it is buffers:
    part of the state, so that a resumed run goes on with the same negatives. Push after use, so that no row meets
    itself; in several processes push what was gathered, the same in each.

    Raises: ConfigError for sizes below 1; ShapeError if rows do not fit.
    """

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        if min(size, dim) < 1:
            raise ConfigError(f"expected a size and a width of at least 1, got {size} and {dim}")
        self.emb: Tensor
        self.keys: Tensor
        self.pushed: Tensor
        self.register_buffer("emb", torch.zeros(size, dim))
        self.register_buffer("keys", torch.full((size,), -1, dtype=torch.int64))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.int64))

    def __len__(self) -> int:
        return min(int(self.pushed), len(self.keys))

    @torch.no_grad()
    def push(self, emb: Tensor, keys: Tensor) -> None:
        """Add rows (n, D), normalised here, with keys (n,); the oldest go. Of more rows than `size` the last stay."""
        if emb.ndim != 2 or emb.shape[1] != self.emb.shape[1] or keys.shape != emb.shape[:1]:
            raise ShapeError(
                f"expected rows (n, {self.emb.shape[1]}) and a key for each, got {tuple(emb.shape)} and "
                f"{tuple(keys.shape)}"
            )
        size, begin = len(self.keys), int(self.pushed) + max(0, len(emb) - len(self.keys))
        kept = F.normalize(emb.detach().float(), dim=1)[-size:]
        places = (begin + torch.arange(len(kept), device=self.keys.device)) % size
        self.emb[places] = kept.to(self.emb)
        self.keys[places] = keys[-size:].to(self.keys)
        self.pushed += len(emb)

    def rows(self) -> QueueRows:
        """A copy of what it holds, oldest first; nothing at the start."""
        size, count = len(self.keys), len(self)
        places = (int(self.pushed) - count + torch.arange(count, device=self.keys.device)) % size
        return QueueRows(self.emb[places], self.keys[places])


class MomentumMemory(nn.Module):
    """What momentum contrast remembers from step to step: a copy of the dual encoder and a queue for each side.

    `share` rises from 0 to 1 while the first `ramp` rows are pushed; with `ramp` 0 it is 1 from the start.
    """

    def __init__(self, model: nn.Module, *, momentum: float, queue: int, dim: int, ramp: float) -> None:
        super().__init__()
        self.model = MomentumCopy(model, momentum=momentum)
        self.images, self.texts = FeatureQueue(queue, dim), FeatureQueue(queue, dim)
        self.ramp = ramp

    @property
    def share(self) -> float:
        """How far the copies' opinion counts by now, in [0, 1]."""
        return min(1.0, int(self.images.pushed) / self.ramp) if self.ramp else 1.0
