"""Texts that no loss teaches are embedded without a graph; one loss that teaches them is enough."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kvlp.training.objectives import Losses
from kvlp.training.task import PretrainTask


class Words(nn.Module):
    """A tower whose text feature is the sum of its words."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 4)
        self.logit_scale = nn.Parameter(torch.zeros(()))

    def encode_text(self, tokens: Tensor, *, normalize: bool) -> Tensor:
        assert normalize
        return nn.functional.normalize(self.words(tokens).sum(dim=1), dim=-1)


@pytest.mark.parametrize("teaches", [False, True])
def test_only_what_is_taught_keeps_a_graph(teaches: bool):
    losses: dict[str, Any] = {"entity": {}, "query": {"teach_texts": teaches}}
    task = PretrainTask(Words(), Losses(**losses), heads={"query": nn.Identity()})
    tokens = torch.tensor([[1, 2, 0], [3, 4, 5]])
    found = task.encode_shared({"prompts": tokens, "queries": tokens})
    assert found["prompts"].requires_grad
    assert found["queries"].requires_grad == teaches
    assert torch.equal(found["queries"], found["prompts"])
