"""Which parameters of a stage learn, and how fast: AdamW, rates by tower and by depth, frozen blocks."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from kvlp.errors import ConfigError
from kvlp.models.depth import parameter_layers
from kvlp.training.lora import is_adapter
from kvlp.training.recipe import Stage
from kvlp.training.task import PretrainTask

__all__ = ["build_optimizer", "choose_trained", "rate_scales"]


def choose_trained(model: Any, stage: Stage) -> tuple[nn.Module, ...]:
    """Let the towers' parameters ask for gradients as the stage says.

    Returns:
        The modules whose parameters are frozen as the lowest blocks of a tower, or beside adapters: keep them in
        evaluation mode, so that their batch statistics stay as well.

    Raises:
        ConfigError: more blocks are to be frozen than the tower has.
    """
    model.visual.requires_grad_(not stage.lock_image)
    model.text.requires_grad_(stage.text_lr > 0)
    frozen = {
        *_beside_adapters(model),
        *_lowest(model.visual, stage.freeze_image_blocks, "freeze_image_blocks", "lock_image to true"),
        *_lowest(model.text, stage.freeze_text_blocks, "freeze_text_blocks", "text_lr to 0"),
    }
    for parameter in frozen:
        parameter.requires_grad_(False)
    return tuple(m for m in model.modules() if frozen and _all_in(m, frozen))


def _beside_adapters(model: Any) -> list[nn.Parameter]:
    """Where there are adapters, every other parameter of the towers."""
    towers = [(n, p) for n, p in model.named_parameters() if n.startswith(("visual.", "text."))]
    adapted = any(is_adapter(name) for name, _ in towers)
    return [parameter for name, parameter in towers if adapted and not is_adapter(name)]


def _all_in(module: nn.Module, frozen: set[nn.Parameter]) -> bool:
    parameters = list(module.parameters())
    return bool(parameters) and frozen.issuperset(parameters)


def _lowest(tower: nn.Module, blocks: int, key: str, instead: str) -> list[nn.Parameter]:
    """Parameters of the stem and of the lowest `blocks` blocks; none of 0 blocks."""
    if not blocks:
        return []
    layers = parameter_layers(tower)
    most = max(layers.values()) - 1
    if blocks > most:
        raise ConfigError(f"{key}: the tower has {most} blocks, got {blocks}; set {instead} to freeze all of it")
    return [parameter for name, parameter in tower.named_parameters() if layers[name] <= blocks]


def rate_scales(task: PretrainTask, stage: Stage) -> dict[str, float]:
    """Name of each parameter that learns -> its share of the stage's rate.

    The text tower has `text_lr`, the heads `head_lr`; layer l of a tower that has L (see `parameter_layers`) has
    decay^(L - l) of its tower's: the projection all of it, the topmost block decay^1, the one below decay^2 ...
    """
    scales = {}
    towers = {"model.visual.": (1.0, stage.image_layer_decay), "model.text.": (stage.text_lr, stage.text_layer_decay)}
    for prefix, (rate, decay) in towers.items():
        tower = task.get_submodule(prefix.rstrip("."))
        layers = parameter_layers(tower) if decay < 1 else {}
        top = max(layers.values(), default=0)
        scales.update({prefix + n: rate * decay ** (top - layers.get(n, top)) for n, _ in tower.named_parameters()})
    return {
        name: scales.get(name, stage.head_lr if name.startswith("heads.") else 1.0)
        for name, parameter in task.named_parameters()
        if parameter.requires_grad
    }


def build_optimizer(task: PretrainTask, stage: Stage) -> torch.optim.AdamW:
    """AdamW over what learns; vectors and scalars (norms, biases, scales) are not decayed.

    Each group's `lr_scale` is its share of the schedule's rate.
    """
    parameters, groups = dict(task.named_parameters()), dict[tuple[float, bool], list[nn.Parameter]]()
    for name, scale in rate_scales(task, stage).items():
        groups.setdefault((scale, parameters[name].ndim > 1), []).append(parameters[name])
    settings = [
        {"params": members, "weight_decay": stage.weight_decay if is_matrix else 0.0, "lr_scale": scale}
        for (scale, is_matrix), members in groups.items()
    ]
    return torch.optim.AdamW(settings, lr=stage.lr, betas=(0.9, 0.98), eps=1e-6)
