"""FSDP2: each block of both towers cut into as many shards as there are processes, put together while it computes.

Weights, gradients and moments of the blocks then take their share of the memory. What lies outside the blocks (stem,
norms, projections, heads, scales) stays whole in each process. States and checkpoints are those of one process.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kvlp.errors import ConfigError

if TYPE_CHECKING:
    from kvlp.training.recipe import Recipe
    from kvlp.training.task import PretrainTask

__all__ = ["Cut", "blocks_of", "clip_gradients", "cut_like", "is_cut", "shard_blocks", "whole"]

_BLOCK = re.compile(r"(?:^|\.)(?:resblocks|layers?|blocks?|stages?|h)\.?\d+$")


class Cut:
    """A model whose blocks are cut, from before its first stage until after its last.

    Raises:
        ConfigError: the recipe also asks for a copy of the weights or for adapters; see `shard_blocks`.
    """

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        for key in ("ema", "lora"):
            if getattr(recipe, key) is not None:
                raise ConfigError(f"parallel fsdp2 does not go with {key}; set parallel to ddp, or {key} to null")
        self.model = model
        self.blocks = shard_blocks(model)
        self._still: set[str] = set()

    def begin(self, task: PretrainTask, optimizer: torch.optim.Optimizer, stage: str) -> None:
        """Make a stage's optimiser work on whole and cut tensors beside each other.

        Raises:
            ConfigError: a loss keeps copies of the towers, or what an earlier stage froze is to learn.
        """
        if len(task.memories):
            name = next(iter(task.memories))
            raise ConfigError(
                f"parallel fsdp2: stage '{stage}' keeps copies of the towers ({name}); set parallel to ddp"
            )
        cut = {name: p.requires_grad for name, p in self.model.named_parameters() if is_cut(p)}
        if any(learns and name in self._still for name, learns in cut.items()):
            raise ConfigError(
                f"parallel fsdp2: stage '{stage}' trains what an earlier one froze; run the stages one by one "
                "(model.start), or set parallel to ddp"
            )
        self._still |= {name for name, learns in cut.items() if not learns}
        for group in optimizer.param_groups:
            group.update(foreach=False, fused=False)

    def end(self) -> None:
        """Put whole parameters in the place of cut ones, and make the blocks the plain modules that they were."""
        from torch.distributed.fsdp import FSDPModule

        for module in self.model.modules():
            for name, parameter in list(module._parameters.items()):
                if parameter is not None and is_cut(parameter):
                    module._parameters[name] = nn.Parameter(whole(parameter.detach()), parameter.requires_grad)
        for module in self.model.modules():
            if isinstance(module, FSDPModule):
                module.__class__ = type(module).__mro__[2]  # fully_shard puts a class of its own before it
                for hooks in (module._forward_pre_hooks, module._forward_hooks, module._state_dict_pre_hooks):
                    hooks.clear()


def shard_blocks(model: nn.Module) -> int:
    """Cut the blocks of a model over the processes that have met, and return how many blocks there are.

    Raises:
        ConfigError: no blocks are found, or this torch or backend cannot do it.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    chosen = blocks_of(model)
    if not chosen:
        raise ConfigError("parallel fsdp2: no blocks are known in the towers; set parallel to ddp")
    try:
        mesh = init_device_mesh(next(model.parameters()).device.type, (dist.get_world_size(),))
        for block in chosen:
            for parameter in block.parameters():
                parameter.data = parameter.data.contiguous()  # image towers keep channels last
            fully_shard(block, mesh=mesh, reshard_after_forward=True)
    except (RuntimeError, NotImplementedError) as error:
        raise ConfigError(f"parallel fsdp2 does not work here ({error}); set parallel to ddp") from None
    return len(chosen)


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The outermost blocks of a model's towers, in order; none if no name tells of one."""
    chosen: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{block}.") for block in chosen)
        if _BLOCK.search(name) and not inside and any(True for _ in module.parameters()):
            chosen[name] = module
    return list(chosen.values())


def is_cut(value: Tensor) -> bool:
    """Whether a tensor is cut over the processes."""
    return hasattr(value, "full_tensor")


def whole(value: Tensor) -> Tensor:
    """The whole of a tensor that may be cut; every process calls it."""
    found: Tensor = value.full_tensor() if is_cut(value) else value  # type: ignore[attr-defined]
    return found


def cut_like(value: Tensor, other: Any) -> Tensor:
    """A whole tensor, the same in each process, cut as another one of its shape is."""
    if not is_cut(other) or value.shape != other.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(other.device), other.device_mesh, other.placements, src_data_rank=None)


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float) -> Tensor:
    """Scale all gradients down to a common length of at most `limit`; return the length that they had."""
    learned = [p for p in parameters if p.grad is not None]
    gradients: list[Any] = [p.grad for p in learned]
    if not any(is_cut(gradient) for gradient in gradients):
        return torch.nn.utils.clip_grad_norm_(learned, limit)
    parts = [gradient.to_local() for gradient in gradients if is_cut(gradient)]
    plain = [gradient for gradient in gradients if not is_cut(gradient)]
    squares = torch.stack([part.float().square().sum() for part in parts]).sum()
    dist.all_reduce(squares)
    norm = torch.stack([squares, *(gradient.float().square().sum() for gradient in plain)]).sum().sqrt()
    for part in (*parts, *plain):
        part.mul_((limit / (norm + 1e-6)).clamp(max=1.0).to(part.dtype))
    return norm
