"""The moving average of a run's weights (EMA): steadier than the weights themselves, and what is scored and saved."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from kvlp.models.momentum import FeatureQueue, MomentumCopy

__all__ = ["WeightAverage"]


class WeightAverage(nn.Module):
    """Averages of the model and of the heads that are saved beside it: average <- d * average + (1 - d) * weights.

    d grows with the steps, as (1 + t) / (10 + t), up to `decay`: the first weights, which know nothing, are soon
    forgotten. Heads with a queue or a momentum copy are left alone: they are an average, or no weights. It lasts over
    the stages of a run and is part of its state.

    Raises: ConfigError for a decay outside [0, 1).
    Reference: Polyak and Juditsky 1992; the growing decay is that of TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, model: nn.Module, heads: Mapping[str, nn.Module], *, decay: float) -> None:
        super().__init__()
        self.decay = decay
        averaged = {name: head for name, head in heads.items() if not _remembers(head)}
        self.model = MomentumCopy(model, momentum=decay)
        self.heads = nn.ModuleDict({name: MomentumCopy(head, momentum=decay) for name, head in averaged.items()})
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def follow(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> None:
        """Take in the weights; call it after each step of the optimiser."""
        self.steps += 1
        taken = int(self.steps)
        for copy, module in self._pairs(model, heads):
            copy.momentum = min(self.decay, (1 + taken) / (10 + taken))
            copy.follow(module)

    def give(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> None:
        """Put the averages in the place of the weights."""
        for copy, module in self._pairs(model, heads):
            module.load_state_dict(copy.copy.state_dict())

    def _pairs(self, model: nn.Module, heads: Mapping[str, nn.Module]) -> list[tuple[MomentumCopy, nn.Module]]:
        copies: dict[str, MomentumCopy] = dict(self.heads.items())  # type: ignore[arg-type]
        return [(self.model, model), *((copy, heads[name]) for name, copy in copies.items())]


def _remembers(head: nn.Module) -> bool:
    return any(isinstance(module, MomentumCopy | FeatureQueue) for module in head.modules())
