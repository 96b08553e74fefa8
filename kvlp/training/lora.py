"""LoRA through peft: the towers stay as they are, small matrices beside their layers learn; merged at the end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from kvlp.errors import ConfigError, MissingExtraError
from kvlp.training.settings import Positive, Strict

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Adapters", "LoraPart", "is_adapter"]

_SEED = 7883


class LoraPart(Strict):
    """Adapters of `rank` beside the layers of one tower or both; what they add is scaled by `alpha` / rank.

    `targets`: names of layers, or their ends ("qkv", "mlp.c_fc"); by default every linear layer and attention of the
    blocks, or their convolutions where a tower has no other. In the towers nothing else learns.
    Hu et al. 2022, "LoRA: Low-Rank Adaptation of Large Language Models".
    """

    rank: Positive = 8
    alpha: Annotated[float, Field(gt=0)] = 16.0
    targets: tuple[str, ...] = ()
    towers: Literal["image", "text", "both"] = "both"


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name belongs to an adapter."""
    return ".lora_" in name


class Adapters:
    """Puts adapters into the towers of a dual encoder, in place; they begin as nothing.

    Raises:
        MissingExtraError: peft is not installed.
        ConfigError: no layer of the towers is a target.
    """

    def __init__(self, model: nn.Module, part: LoraPart, *, seed: int) -> None:
        import torch

        try:
            from peft import LoraConfig, get_peft_model
        except ImportError:
            raise MissingExtraError("peft", "lora") from None
        names = _targets(model, part)
        scales = [p for p in model.parameters(recurse=False) if p.requires_grad]
        torch.manual_seed(seed + _SEED)
        settings = LoraConfig(r=part.rank, lora_alpha=part.alpha, target_modules=names)  # type: ignore[arg-type]
        self._adapted: Any = get_peft_model(model, settings)

        for scale in scales:  # peft freezes all that is no adapter
            scale.requires_grad_(True)

    def save(self, folder: Path) -> None:
        """Write the adapters alone, as peft does (`PeftModel.from_pretrained` puts them beside the same towers)."""
        self._adapted.save_pretrained(str(folder))

    def merge(self) -> None:
        """Add the adapters to the weights and take them out: the model is a plain one again."""
        self._adapted.merge_and_unload(safe_merge=True)


def _targets(model: Any, part: LoraPart) -> list[str]:
    """Full names of the layers that get an adapter."""
    prefixes = [{"image": "visual.", "text": "text."}[tower] for tower in _towers(part)]
    found = [name for prefix in prefixes for name in _of_tower(prefix, model.get_submodule(prefix[:-1]), part.targets)]
    if not found:
        some = sorted({name.rpartition(".")[2] for p in prefixes for name in _layers(model.get_submodule(p[:-1]))})
        wanted = f"ends in {', '.join(part.targets)}" if part.targets else "can be adapted"
        raise ConfigError(f"lora: no layer of the towers {wanted}; there are {', '.join(some[:12]) or 'none'}")
    return found


def _towers(part: LoraPart) -> tuple[str, ...]:
    return ("image", "text") if part.towers == "both" else (part.towers,)


def _of_tower(prefix: str, tower: nn.Module, targets: tuple[str, ...]) -> list[str]:
    layers = _layers(tower)
    if targets:
        return [prefix + name for name in layers if any(f".{name}".endswith(f".{end}") for end in targets)]
    from torch import nn

    from kvlp.models.depth import parameter_layers

    depth = parameter_layers(tower)
    top = max(depth.values())
    inside = {n for n in layers if any(0 < d < top for p, d in depth.items() if p.startswith(f"{n}."))}
    other = {name for name in inside if not isinstance(layers[name], nn.Conv2d)}
    return [prefix + name for name in layers if name in (other or inside)]


def _layers(tower: nn.Module) -> dict[str, nn.Module]:
    """What peft can adapt: linear layers, attentions of torch (with what is in them), convolutions of one group."""
    from torch import nn

    modules = dict(tower.named_modules())
    return {
        name: module
        for name, module in modules.items()
        if isinstance(module, nn.Linear | nn.MultiheadAttention)
        or (isinstance(module, nn.Conv2d) and module.groups == 1)
        if not isinstance(modules.get(name.rpartition(".")[0]), nn.MultiheadAttention)
    }
