"""SigLipLoss: chunks change nothing but the memory, and it is open_clip's loss."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from losses_suite import unit
from open_clip.loss import SigLipLoss as OpenClipLoss
from torch.utils._python_dispatch import TorchDispatchMode

from kvlp.errors import ConfigError, ShapeError
from kvlp.losses import SIGLIP_START, LossOutput, SigLipLoss

ROWS, WIDTH = 96, 16


def leaves(rows: int = ROWS) -> list[torch.Tensor]:
    """Embeddings, scale and bias."""
    emb = [torch.from_numpy(unit(rows, WIDTH, seed=seed)).float() for seed in (1, 2)]
    return [value.requires_grad_() for value in (*emb, *map(torch.tensor, SIGLIP_START))]


def gradients(loss: Any, *same: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    given = leaves()
    output = loss(*given, *same)
    total = output.total if isinstance(output, LossOutput) else output
    total.backward()
    return total.detach(), [value.grad for value in given]


@pytest.mark.parametrize("duplicates", ["ignore", "positive"])
@pytest.mark.parametrize("chunk", [1, 7, 32])
def test_chunks_change_nothing(chunk: int, duplicates: Any) -> None:
    key = torch.arange(ROWS) % 40
    same = key[:, None] == key[None, :]
    whole = gradients(SigLipLoss(duplicates=duplicates), same)
    parts = gradients(SigLipLoss(duplicates=duplicates, chunk=chunk), same)
    torch.testing.assert_close(parts, whole, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("chunk", [16, 4096])
def test_it_is_the_loss_of_open_clip(chunk: int) -> None:
    torch.testing.assert_close(gradients(SigLipLoss(chunk=chunk)), gradients(OpenClipLoss()), rtol=1e-5, atol=1e-6)


class Largest(TorchDispatchMode):
    """Remembers the most elements that any operation gave out."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else [out]:
            if isinstance(value, torch.Tensor):
                self.elements = max(self.elements, value.numel())
        return out


@pytest.mark.parametrize("chunk", [8, ROWS])
def test_memory_is_that_of_a_chunk(chunk: int) -> None:
    with Largest() as seen:
        SigLipLoss(chunk=chunk)(*leaves()).total.backward()
    assert seen.elements == ROWS * max(chunk, WIDTH)


def test_start_says_no_to_nearly_everything() -> None:
    output = SigLipLoss()(*leaves())
    assert float(output.parts["unmatched"]) < 0.05
    assert float(output.parts["matched"]) > 5


def test_settings_and_shapes_are_checked() -> None:
    with pytest.raises(ConfigError, match="at least 1 text, got 0"):
        SigLipLoss(chunk=0)
    given = leaves(3)
    with pytest.raises(ShapeError, match="as many texts as images, got 2 and 3"):
        SigLipLoss()(given[0], given[1][:2], *given[2:])
