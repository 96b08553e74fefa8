"""Batch norm over the rows of all processes: as in one process that has them all, whatever module asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

__all__ = ["batch_statistics", "joint_batch_norm", "kept_statistics"]


def batch_statistics(module: nn.Module) -> list[Tensor]:
    """The running averages of batch norm, which a forward pass in training changes."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    return [value for norm in norms for value in norm.buffers()]


@contextmanager
def kept_statistics(module: nn.Module) -> Iterator[None]:
    """Put the running averages of batch norm back afterwards: for a pass over images that no user will bring."""
    statistics = batch_statistics(module)
    before = [value.clone() for value in statistics]
    yield
    for value, kept in zip(statistics, before, strict=True):
        value.data.copy_(kept)  # by .data: the backward pass does not read them in training, but looks for changes


def joint_batch_norm(module: nn.Module) -> Callable[[], AbstractContextManager[object]]:
    """A context in which batch norm in training takes its statistics over all processes, if `module` has any.

    Functions are replaced, not modules, so that weights keep their names and timm's own norm layers are reached too.
    """
    has_norm = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in module.modules())
    return _JointNorm if has_norm else _nothing


class _JointNorm(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.batch_norm:
            return _batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


@contextmanager
def _nothing() -> Iterator[None]:
    yield


class _Sum(torch.autograd.Function):
    """The sum over processes; its gradient is the sum of all processes' gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> Tensor:
        total = outer[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,  # noqa: FBT001 the signature is torch's
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    axes = [0, *range(2, input.ndim)]
    shape = [1, -1] + [1] * (input.ndim - 2)
    x = input.double() if input.device.type == "cpu" else input.float()  # as torch's own sums are
    own = x.new_tensor([x.numel() / x.shape[1]])
    sums: Tensor = _Sum.apply(torch.cat([x.sum(dim=axes), own]))
    count, mean = sums[-1].detach(), sums[:-1] / sums[-1].detach()
    centred = x - mean.view(shape)
    variance: Tensor = _Sum.apply(centred.square().sum(dim=axes)) / count
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean), momentum)
            running_var.lerp_((variance * (count / (count - 1))).to(running_var), momentum)
    result = centred * (variance + eps).rsqrt().view(shape)
    if weight is not None:
        result = result * weight.to(x).view(shape)
    if bias is not None:
        result = result + bias.to(x).view(shape)
    return result.to(input.dtype)
