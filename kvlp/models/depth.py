"""How deep each parameter of a tower lies: the stem is layer 0, then the blocks, then what follows them."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from kvlp.errors import ConfigError

__all__ = ["parameter_layers"]

#: A block of open_clip's, transformers' or a residual network's tower, with its number (or stage and number).
_BLOCK = re.compile(r"(?:^|\.)(?:resblocks|layers?|blocks?|h)\.?(\d+)\.(?:(\d+)\.)?")
#: What comes before the blocks.
_STEM = re.compile(r"(?:^|\.)(?:\w*embed\w*|cls_emb|conv\d|bn\d|ln_pre)(?:\.|$)")


def parameter_layers(tower: nn.Module) -> dict[str, int]:
    """Name of each parameter of an image or text tower -> its layer, counted from below.

    0 is the stem (patches, words, positions), then one layer a block, and the last one is everything behind the blocks:
    norms, pooling, projection. A residual network's blocks are counted through its stages. timm's towers are divided as
    timm itself does (`group_matcher`); its last norm is with the projection.

    Raises:
        ConfigError: a tower in which no blocks are found.
    """
    trunk: Any = getattr(tower, "trunk", None)
    places = _of_timm(trunk) if hasattr(trunk, "group_matcher") else {n: _place(n) for n, _ in tower.named_parameters()}
    order: dict[tuple[int, ...] | None, int] = {
        place: layer for layer, place in enumerate(sorted({p for p in places.values() if p}), start=1)
    }
    if not order:
        raise ConfigError(f"no blocks are known in a tower of the kind {type(tower).__name__}; leave its layers alone")
    layers = {**order, (): 0, None: len(order) + 1}
    return {name: layers[places.get(name)] for name, _ in tower.named_parameters()}


def _of_timm(trunk: Any) -> dict[str, tuple[int, ...] | None]:
    """Names in the trunk -> place. timm numbers its groups; the stem is the first, norms and heads come last."""
    from timm.models import group_parameters

    groups = group_parameters(trunk, trunk.group_matcher(coarse=False), reverse=True)
    blocks = {group for name, group in groups.items() if _numbered(name)}
    return {
        f"trunk.{name}": (int(group),) if group in blocks else () if group < min(blocks, default=0) else None
        for name, group in groups.items()
    }


def _numbered(name: str) -> bool:
    """Whether a parameter of timm's stands in a row of blocks: `blocks.3.`, `stages.1.0.`, `layer2.1.`."""
    return re.search(r"(?:blocks?|stages?|layers?)\.?\d+\.", name) is not None


def _place(name: str) -> tuple[int, ...] | None:
    """Numbers of the block; () before the blocks; None behind them."""
    block = _BLOCK.search(name)
    if block:
        return tuple(int(number) for number in block.groups() if number is not None)
    return () if _STEM.search(name) else None
