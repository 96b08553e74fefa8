"""Blocks of the towers through torch.compile: fewer, larger kernels on a card; on a processor it may or may not pay."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kvlp.errors import ConfigError
from kvlp.training.joint_norm import batch_statistics
from kvlp.training.sharded import blocks_of

if TYPE_CHECKING:
    from torch import nn

    from kvlp.training.ranks import Ranks
    from kvlp.training.recipe import Recipe

__all__ = ["compile_blocks"]


def compile_blocks(model: nn.Module, recipe: Recipe, ranks: Ranks) -> None:
    """Compile each block of both towers in place, at its first call; names and tensors of the model stay as they are.

    Blocks that are alike share what was compiled. Copies of the model (averages, momentum) are not compiled.

    Raises:
        ConfigError: this machine cannot compile, or the recipe asks for what does not go with it.
    """
    if recipe.parallel == "fsdp2":
        raise ConfigError("compile does not go with parallel fsdp2; set parallel to ddp, or compile to false")
    if not ranks.alone and batch_statistics(model):
        raise ConfigError(
            f"compile: {ranks.world} processes take the statistics of batch norm together, which compiled blocks do "
            "not; choose a vision transformer as model.image, or set compile to false"
        )
    blocks = blocks_of(model)
    if not blocks:
        raise ConfigError("compile: no blocks are known in these towers; set compile to false")
    _require_compiler(next(model.parameters()).device)
    for block in blocks:
        block.compile()


def _require_compiler(device: torch.device) -> None:
    """Compile something small: inductor needs a C++ compiler, on a card Triton, and says so only when it runs."""
    try:
        torch.compile(_small)(torch.ones(8, device=device))
    except Exception as error:  # noqa: BLE001 - torch's, triton's or the system's, by what is missing
        cause = error.__cause__ or error
        raise ConfigError(
            f"compile: torch cannot compile here ({type(cause).__name__}); it needs a C++ compiler (g++ or clang++; "
            "CXX names another) and on a card Triton; install them, or set compile to false"
        ) from None


def _small(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.gelu(x) * 2 + 1
