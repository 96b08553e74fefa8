"""The loss of the query network: what a query says of an image is true, false or uncertain."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kvlp.errors import ShapeError
from kvlp.losses.output import LossOutput, absence

__all__ = ["QueryStateLoss"]


class QueryStateLoss(nn.Module):
    """Cross-entropy of each known pair of image and query over the states false, true and, with three, uncertain.

    A pair that the report does not speak of counts as false by `unmentioned`, from 0 (not at all) to 1. When
    `balanced`, each query weighs the same and so does each of its states in the batch; a query of which the batch knows
    one state only is left out, for it could be learned without the image.

    Shape: logits (B, C, S), S = `states`, 2 or 3 (None: as it comes); labels (B, C) with 1 true, 0 false, -1 uncertain,
        NaN not mentioned -> scalar in float32. With S = 2 uncertain pairs are left out. Without any pair that counts
        the loss is 0 and still differentiable.
    Raises: ShapeError if the shapes do not fit.
    Reference: KAD (Zhang et al. 2023, Nature Communications 14:4542), the query network's cross-entropy.
    Deviation: uncertain is a state of its own; balance.
    """

    def __init__(self, *, states: int | None = None, balanced: bool = True, unmentioned: float = 0.0) -> None:
        super().__init__()
        self.states = states
        self.balanced = balanced
        self.unmentioned = unmentioned

    def counts(self, labels: Tensor, states: int) -> Tensor:
        """Which pairs the loss looks at, of logits with so many states: (B, C) bool. Logits of others may be any."""
        return self._state(labels, states) >= 0

    def forward(self, logits: Tensor, labels: Tensor) -> LossOutput:
        states = self.states or logits.shape[-1]
        if logits.ndim != 3 or logits.shape[2] != states or states not in (2, 3) or labels.shape != logits.shape[:2]:
            raise ShapeError(
                f"expected logits of one width (B, C, {self.states or '2 or 3'}) and labels (B, C), "
                f"got {tuple(logits.shape)} and {tuple(labels.shape)}"
            )
        state = self._state(labels, states)  # (B, C), -1 where it does not count
        weights = self._weights(labels, state, states)
        log_p = F.log_softmax(logits.float(), dim=2)
        picked = log_p.gather(2, state.clamp(min=0)[:, :, None])[:, :, 0]
        total = -(weights * picked).sum() / weights.sum().clamp(min=1e-12)
        right = (logits.argmax(dim=2) == state)[state >= 0].float()
        accuracy = right.mean() if len(right) else right.new_zeros(())
        return LossOutput(total, {"accuracy": accuracy.detach()})

    def _state(self, labels: Tensor, states: int) -> Tensor:
        state = torch.full(labels.shape, -1, dtype=torch.long, device=labels.device)
        state[labels == 0] = 0
        state[labels == 1] = 1
        if states == 3:
            state[labels == -1] = 2
        if self.unmentioned:
            state[torch.isnan(labels)] = 0
        return state

    def _weights(self, labels: Tensor, state: Tensor, states: int) -> Tensor:
        told = [absence(labels, self.unmentioned), *((state == s).float() for s in range(1, states))]
        weights = torch.stack(told, dim=2)  # (B, C, S)
        if not self.balanced:
            return weights.sum(dim=2)
        sums = weights.sum(dim=0)  # (C, S)
        found = (sums > 0).sum(dim=1)  # (C,)
        each = (found > 1)[:, None] / (sums.clamp(min=1e-12) * found.clamp(min=1)[:, None])
        return (weights * each).sum(dim=2)
