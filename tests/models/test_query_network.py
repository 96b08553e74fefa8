"""Pairs that nobody asks for cost nothing and change nothing."""

from __future__ import annotations

import pytest
import torch

from kvlp.errors import ShapeError
from kvlp.losses.query_state import QueryStateLoss
from kvlp.models.query_network import QueryNetwork

NAN = float("nan")
LABELS = torch.tensor([[1.0, NAN, 0.0, NAN], [NAN, NAN, NAN, NAN], [0.0, 1.0, 1.0, -1.0], [NAN, 0.0, NAN, 1.0]])


def network(**settings: object) -> QueryNetwork:
    torch.manual_seed(0)
    return QueryNetwork(8, layers=2, heads=2, ffn=16, dropout=0.0, **settings).double().train()  # type: ignore[arg-type]


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    queries, memory = torch.randn(4, 8, dtype=torch.float64), torch.randn(4, 5, 8, dtype=torch.float64)
    return queries.requires_grad_(), memory.requires_grad_()


@pytest.mark.parametrize("mixed", [False, True])
def test_what_is_asked_is_answered_as_if_all_were(mixed: bool):
    net, asked = network(mix_queries=mixed), ~LABELS.isnan()
    everything, some = net(*inputs()), net(*inputs(), asked)
    torch.testing.assert_close(some[asked], everything[asked], rtol=0, atol=1e-12)
    assert not some[~asked].any()


@pytest.mark.parametrize("unmentioned", [0, 0.3])
def test_loss_and_gradients_are_those_of_all_pairs(unmentioned: float):
    net, loss = network(), QueryStateLoss(unmentioned=unmentioned)
    found = []
    for asked in (None, loss.counts(LABELS, 3)):
        net.zero_grad()
        queries, memory = inputs()
        output = loss(net(queries, memory, asked), LABELS)
        output.total.backward()
        assert memory.grad is not None
        assert memory.grad[0].any()
        assert bool(memory.grad[1].any()) == (unmentioned > 0)
        found.append(
            [output.total, output.parts["accuracy"], queries.grad, memory.grad, *(p.grad for p in net.parameters())]
        )
    for wanted, given in zip(*found, strict=True):
        torch.testing.assert_close(given, wanted, rtol=0, atol=1e-7)  # the loss itself is in float32


def test_pairs_that_nobody_asks_for_are_not_computed():
    net, rows = network(), []
    net.layers[0].ffn.register_forward_hook(lambda module, given, out: rows.append(out.shape[:-1].numel()))
    net(*inputs())
    net(*inputs(), ~LABELS.isnan())
    assert rows == [16, 8]


def test_no_pair_at_all_is_a_loss_of_zero_with_a_gradient():
    net = network()
    queries, memory = inputs()
    labels = torch.full((4, 4), NAN)
    output = QueryStateLoss()(net(queries, memory, ~labels.isnan()), labels)
    output.total.backward()
    assert output.total.item() == 0
    assert memory.grad is not None
    assert not memory.grad.any()


def test_pairs_of_another_shape_are_refused():
    with pytest.raises(ShapeError, match=r"expected asked of shape \(4, 4\), got \(3, 4\)"):
        network()(*inputs(), ~LABELS[:3].isnan())
