"""Attention without copies is torch's: the same parameters, draws, outputs and, to rounding, gradients."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from kvlp.models.dual_encoder import build_dual_encoder
from kvlp.models.plain_attention import PlainAttention, use_plain_attention
from kvlp.models.towers import model_config

CAUSAL = torch.full((5, 5), -torch.inf).triu(1)


def both(*, dropout: float = 0.0) -> tuple[nn.MultiheadAttention, PlainAttention]:
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(8, 2, dropout=dropout, batch_first=True).train()
    nn.init.normal_(theirs.in_proj_bias)
    ours = PlainAttention(8, 2, dropout=dropout, batch_first=True).train()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, ours


def looked(module: nn.MultiheadAttention, *, apart: bool, mask: torch.Tensor | None) -> list[torch.Tensor]:
    torch.manual_seed(1)
    x = torch.randn(3, 5, 8, requires_grad=True)
    memory = torch.randn(3, 4, 8, requires_grad=True) if apart else x
    out, weights = module(x, memory, memory, need_weights=False, attn_mask=mask)
    assert weights is None
    (out * torch.randn(3, 5, 8)).sum().backward()
    module_grads = [p.grad for p in module.parameters() if p.grad is not None]
    assert len(module_grads) == 4
    assert x.grad is not None
    assert memory.grad is not None
    return [out.detach(), x.grad, memory.grad, *module_grads]


@pytest.mark.parametrize(("apart", "mask"), [(False, None), (False, CAUSAL), (False, CAUSAL < 0), (True, None)])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_output_and_gradients_are_torchs(apart: bool, mask: torch.Tensor | None, dropout: float):
    theirs, ours = both(dropout=dropout)
    expected = looked(theirs, apart=apart, mask=mask)
    for found, wanted in zip(looked(ours, apart=apart, mask=mask), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


def test_weights_masks_of_keys_and_evaluation_are_torchs_own_way():
    theirs, ours = both()
    x, padding = torch.randn(3, 5, 8), torch.tensor([[False] * 4 + [True]] * 3)
    for expected, found in zip(theirs(x, x, x), ours(x, x, x), strict=True):
        assert torch.equal(expected, found)
    hidden = theirs(x, x, x, key_padding_mask=padding, need_weights=False)[0]
    assert torch.equal(ours(x, x, x, key_padding_mask=padding, need_weights=False)[0], hidden)
    theirs.eval(), ours.eval()
    assert torch.equal(ours(x, x, x, need_weights=False)[0], theirs(x, x, x, need_weights=False)[0])


def test_towers_take_it_and_give_it_back():
    torch.manual_seed(0)
    model = build_dual_encoder(model_config("tiny-vit", "tiny-text", vocab_size=30, eos_id=3, embed_dim=16)).train()
    plain = [module for module in model.modules() if isinstance(module, PlainAttention)]
    assert len(plain) == 6
    other = deepcopy(model)
    use_plain_attention(other, plain=False)
    assert {type(m) for m in other.modules() if isinstance(m, nn.MultiheadAttention)} == {nn.MultiheadAttention}
    pixels, tokens = torch.randn(2, 3, 96, 96), torch.tensor([[2, 7, 8, 3, 0], [2, 9, 10, 11, 3]])
    assert torch.equal(model.encode_image(pixels), other.encode_image(pixels))
    torch.testing.assert_close(model.encode_text(tokens), other.encode_text(tokens), rtol=0, atol=1e-6)
