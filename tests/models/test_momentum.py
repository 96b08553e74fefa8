"""The moving average follows, the queue forgets the oldest, and both are in the state."""

from __future__ import annotations

from collections import deque

import pytest
import torch
from torch import nn

from kvlp.errors import ConfigError, ShapeError
from kvlp.models.momentum import FeatureQueue, MomentumCopy


def _model(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))


def test_it_begins_as_the_model_and_is_its_own() -> None:
    model = _model()
    copy = MomentumCopy(model)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in copy.copy.state_dict().items())
    with torch.no_grad():
        model[0].weight.add_(1.0)
    assert not torch.equal(copy.copy[0].weight, model[0].weight)
    assert not any(p.requires_grad for p in copy.parameters())


def test_three_steps_by_hand() -> None:
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(0.0)
        copy = MomentumCopy(model, momentum=0.5)
        for value in (1.0, 2.0, 4.0):
            model.weight.fill_(value)
            copy.follow(model)
    assert float(copy.copy.weight) == 0.5 * (0.5 * (0.5 * 0 + 0.5 * 1) + 0.5 * 2) + 0.5 * 4


def test_buffers_follow_and_counts_are_taken_over() -> None:
    model = _model()
    copy = MomentumCopy(model, momentum=0.9)
    model(torch.randn(8, 3) + 5)
    copy.follow(model)
    torch.testing.assert_close(copy.copy[1].running_mean, 0.1 * model[1].running_mean)
    assert int(copy.copy[1].num_batches_tracked) == 1


def test_the_copy_answers_in_evaluation_mode_without_gradient() -> None:
    copy = MomentumCopy(_model()).train()
    pixels = torch.randn(4, 3)
    first, second = (copy(lambda model: model(pixels)) for _ in range(2))
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert not copy.copy.training


def test_a_resumed_average_goes_on_where_it_was() -> None:
    model = _model()
    copy = MomentumCopy(model, momentum=0.9)
    with torch.no_grad():
        model[0].weight.add_(1.0)
    copy.follow(model)
    resumed = MomentumCopy(_model(seed=1), momentum=0.9)
    resumed.load_state_dict(copy.state_dict())
    for average in (copy, resumed):
        average.follow(model)
    assert all(torch.equal(v, copy.state_dict()[k]) for k, v in resumed.state_dict().items())


def test_another_model_is_refused() -> None:
    with pytest.raises(ShapeError, match="the model that was copied"):
        MomentumCopy(nn.Linear(2, 2)).follow(nn.Linear(2, 3))
    with pytest.raises(ConfigError, match=r"momentum in \[0, 1\), got 1"):
        MomentumCopy(nn.Linear(2, 2), momentum=1.0)


@pytest.mark.parametrize("sizes", [[2, 1], [2, 2, 2, 2], [3, 1, 9, 2], [5, 5], [12], []])
def test_the_queue_is_a_deque(sizes: list[int]) -> None:
    queue, expected, key = FeatureQueue(5, 3), deque(maxlen=5), 0
    generator = torch.Generator().manual_seed(0)
    for n in sizes:
        rows = torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=1)
        queue.push(3 * rows, torch.arange(key, key + n))
        expected.extend((k, row) for k, row in enumerate(rows, key))
        key += n
    held = queue.rows()
    assert len(queue) == len(expected)
    assert held.keys.tolist() == [k for k, _ in expected]
    for row, (_, wanted) in zip(held.emb, expected, strict=True):
        torch.testing.assert_close(row, wanted)


def test_a_new_queue_is_empty_and_what_it_hands_out_does_not_change() -> None:
    queue = FeatureQueue(2, 3)
    assert queue.rows().emb.shape == (0, 3)
    queue.push(torch.eye(3)[:2], torch.tensor([7, 8]))
    held = queue.rows()
    queue.push(torch.eye(3)[2:], torch.tensor([9]))
    assert held.keys.tolist() == [7, 8]
    assert torch.equal(held.emb, torch.eye(3)[:2])
    assert queue.rows().keys.tolist() == [8, 9]


def test_a_resumed_queue_goes_on_where_it_was() -> None:
    queue, resumed = FeatureQueue(4, 3), FeatureQueue(4, 3)
    queue.push(torch.randn(6, 3), torch.arange(6))
    resumed.load_state_dict(queue.state_dict())
    for each in (queue, resumed):
        each.push(torch.eye(3)[:1], torch.tensor([6]))
    assert all(torch.equal(a, b) for a, b in zip(queue.rows(), resumed.rows(), strict=True))


def test_no_gradient_goes_into_the_queue() -> None:
    queue, emb = FeatureQueue(4, 3), torch.randn(2, 3, requires_grad=True)
    queue.push(emb, torch.arange(2))
    assert not queue.rows().emb.requires_grad


def test_rows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"rows \(n, 3\) and a key for each, got \(2, 4\) and \(2,\)"):
        FeatureQueue(4, 3).push(torch.ones(2, 4), torch.arange(2))
    with pytest.raises(ConfigError, match="at least 1, got 0 and 3"):
        FeatureQueue(0, 3)
