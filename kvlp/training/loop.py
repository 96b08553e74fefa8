"""The training loop as a generator: it steps and yields; saving, logging and evaluating happen outside."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from kvlp.errors import DataError
from kvlp.training.cached_features import by_features
from kvlp.training.joint_norm import batch_statistics
from kvlp.training.ranks import Ranks
from kvlp.training.sharded import clip_gradients
from kvlp.training.side_by_side import backward_apart, detached, forward_apart
from kvlp.training.task import PretrainTask

__all__ = ["MAX_BAD_STEPS", "StepInfo", "cosine_schedule", "train_steps"]

#: So many steps in a row with a loss or gradient that is not finite stop the run.
MAX_BAD_STEPS = 3

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class StepInfo:
    """What one step did.

    Attributes:
        step: number of optimiser steps done after it.
        loss: total loss; `parts` by name; `grad_norm` before clipping.
        lr: learning rate used; `logit_scale` after the step.
        rows: row numbers of its batch, of all processes; `skipped` True if it was not taken because it was not finite.
        data_s, step_s: seconds spent waiting for the batch and computing.
    """

    step: int
    loss: float
    parts: dict[str, float]
    lr: float
    logit_scale: float
    grad_norm: float
    rows: tuple[int, ...]
    skipped: bool
    data_s: float
    step_s: float


def cosine_schedule(lr: float, steps: int, warmup: float, final: float) -> Callable[[int], float]:
    """Linear warm-up over `warmup` x steps, then a cosine from lr down to `final` x lr at the last step."""
    warm = max(1, round(warmup * steps))

    def at(step: int) -> float:
        if step < warm:
            return lr * (step + 1) / warm
        progress = (step - warm) / max(1, steps - warm)
        return lr * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * progress)))

    return at


def train_steps(
    task: PretrainTask,
    batches: Iterable[tuple[list[Batch], Batch]],
    optimizer: torch.optim.Optimizer,
    schedule: Callable[[int], float],
    *,
    start: int = 0,
    grad_clip: float = 5.0,
    autocast: Callable[[], AbstractContextManager[object]],
    side_by_side: bool = False,
) -> Iterator[StepInfo]:
    """Take one optimiser step per item of `batches` and yield what it did.

    A step whose loss or gradient is not finite never reaches the weights, nor the averages of batch norm. With
    `side_by_side` both towers work at once (see side_by_side.py). Several processes (see ranks.py) share the rows of
    each step and take the same step.

    Raises:
        DataError: `MAX_BAD_STEPS` such steps in a row.
    """
    bad, began, ranks = 0, time.perf_counter(), Ranks.now()
    statistics = batch_statistics(task)
    for step, (micro, shared) in enumerate(batches, start):
        fetched = time.perf_counter()
        lr = schedule(step)
        for group in optimizer.param_groups:
            group["lr"] = lr * group.get("lr_scale", 1.0)
        optimizer.zero_grad(set_to_none=True)
        before = [value.clone() for value in statistics]
        total, parts, whole = _forward_backward(task, micro, shared, autocast, side_by_side=side_by_side)
        ranks.average_gradients(task.parameters())
        norm = clip_gradients(task.parameters(), grad_clip)
        finite = not ranks.any(not (torch.isfinite(total) and torch.isfinite(norm)))
        if finite:
            optimizer.step()
            task.clamp_scales()
            task.remember()
        else:
            for value, kept in zip(statistics, before, strict=True):
                value.copy_(kept)
        bad = 0 if finite else bad + 1
        done = time.perf_counter()
        yield StepInfo(
            step=step + 1,
            loss=float(total),
            parts={name: float(value) for name, value in parts.items()},
            lr=lr,
            logit_scale=float(task.model.logit_scale.detach().exp()),
            grad_norm=float(norm),
            rows=tuple(whole["row"].tolist()) if micro else (),
            skipped=not finite,
            data_s=fetched - began,
            step_s=done - fetched,
        )
        if bad >= MAX_BAD_STEPS:
            raise DataError(
                f"expected finite losses, got {bad} steps in a row (the last: step {step + 1}) with NaN or infinity; "
                "the rows are named in metrics.jsonl: check them, or lower the learning rate"
            )
        began = time.perf_counter()


def _forward_backward(
    task: PretrainTask,
    micro: Sequence[Batch],
    shared: Batch,
    autocast: Callable[[], AbstractContextManager[object]],
    *,
    side_by_side: bool = False,
) -> tuple[Tensor, dict[str, Tensor], Batch]:
    """Loss and gradient of the joined batch, over micro-batches and processes; and its labels and the like."""
    ranks = Ranks.now()
    if not micro:
        with autocast():
            output = task.loss(task.encode_shared(shared), {}, shared)
        output.total.backward()
        return output.total.detach(), output.parts, {}
    whole = {name: torch.cat([batch[name] for batch in micro]) for name in micro[0] if _joins(name, micro[0])}
    if not ranks.alone or len(micro) > 1:
        return by_features(task, micro, shared, whole, autocast)
    if side_by_side:
        batch = micro[0]
        parts = forward_apart(
            [lambda: task.encode_images(batch), lambda: {**task.encode_reports(batch), **task.encode_shared(shared)}],
            autocast,
        )
        leaves = detached({**parts[0], **parts[1]})
        with autocast():
            output = task.loss(leaves, whole, shared)
        output.total.backward()
        backward_apart(parts, leaves)
        return output.total.detach(), output.parts, whole
    with autocast():
        features = {**task.encode(micro[0]), **task.encode_shared(shared)}
        output = task.loss(features, whole, shared)
    output.total.backward()
    return output.total.detach(), output.parts, whole


def _joins(name: str, batch: Batch) -> bool:
    """Whether losses see it as it is: labels and the like, neither pixels nor tokens, which may differ in length."""
    return name == "labels" or batch[name].ndim == 1
