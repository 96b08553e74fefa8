"""Image and text tower beside each other on a processor: each forward and backward pass in a thread of its own.

Operations of small towers gain little from a second thread; two towers at once gain nearly a core each. The features
are detached, the loss is taken back to them, and from there each tower is taken back by itself: the same gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["backward_apart", "detached", "draws", "forward_apart"]

Features = dict[str, Tensor]


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(2, thread_name_prefix="tower")


def draws(module: nn.Module) -> bool:
    """Whether a module draws random numbers while it trains: then two threads would share them in no fixed order."""
    return any(float(getattr(m, name, 0.0) or 0.0) > 0 for m in module.modules() for name in ("p", "drop_prob"))


def forward_apart(
    parts: Sequence[Callable[[], Features]], autocast: Callable[[], AbstractContextManager[object]]
) -> list[Features]:
    """Run the parts at once, each under its own autocast (which holds for one thread)."""

    def run(part: Callable[[], Features]) -> Features:
        with autocast():
            return part()

    return list(_pool().map(run, parts))


def detached(features: Mapping[str, Tensor]) -> Features:
    """Leaves of the same values; those of features with a gradient ask for one."""
    return {name: value.detach().requires_grad_(value.requires_grad) for name, value in features.items()}


def backward_apart(parts: Sequence[Features], leaves: Mapping[str, Tensor]) -> None:
    """Take the leaves' gradients back through each part, all parts at once."""

    def run(part: Features) -> None:
        names = [n for n, v in part.items() if v.requires_grad and leaves[n].grad is not None]
        gradients: list[Any] = [leaves[n].grad for n in names]
        if names:
            torch.autograd.backward([part[n] for n in names], gradients)

    list(_pool().map(run, parts))
