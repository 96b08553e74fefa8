"""Views as graphs: neighbours, messages, gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kvlp.errors import ConfigError, ShapeError
from kvlp.models.graph_views import ViewGraph, nearest_neighbours


def test_neighbours_by_hand() -> None:
    emb = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 2.0], [0.5, 0.6]])
    assert nearest_neighbours(emb, 2).tolist() == [[1, 3], [0, 3], [3, 1], [2, 1]]
    assert nearest_neighbours(emb[:1], 2).shape == (1, 0)
    assert nearest_neighbours(emb, 9).shape == (4, 3)


def test_a_layer_of_messages_equals_a_slow_loop() -> None:
    torch.manual_seed(0)
    graph, pooled = ViewGraph(6, dim=4, hidden=5, neighbours=2), torch.randn(5, 6)
    nodes = graph(pooled)
    plain = graph.project(pooled).detach().numpy()
    plain = plain - plain.mean(axis=0)
    plain = plain / np.linalg.norm(plain, axis=1, keepdims=True)
    linked = {(i, int(j)) for i in range(5) for j in nodes.neighbours[i]}
    linked |= {(j, i) for i, j in linked} | {(i, i) for i in range(5)}
    degree = [sum((i, j) in linked for j in range(5)) for i in range(5)]
    weight = graph.messages[0].weight.detach().numpy()
    for i in range(5):
        heard = sum(plain[j] / np.sqrt(degree[i] * degree[j]) for j in range(5) if (i, j) in linked)
        row = plain[i] + np.maximum(weight @ heard, 0)
        np.testing.assert_allclose(nodes.emb[i].detach().numpy(), row / np.linalg.norm(row), atol=1e-5)


def test_no_layer_leaves_the_projection() -> None:
    graph, pooled = ViewGraph(6, dim=4, layers=0), torch.randn(3, 6)
    projected = graph.project(pooled)
    centred = projected - projected.mean(dim=0)
    torch.testing.assert_close(graph(pooled).emb, torch.nn.functional.normalize(centred, dim=1))


def test_order_of_the_batch_does_not_matter_and_cells_keep_their_row() -> None:
    torch.manual_seed(1)
    graph, pooled, cells = ViewGraph(6, dim=4, neighbours=2), torch.randn(5, 6), torch.randn(5, 3, 6)
    order = torch.tensor([3, 1, 4, 0, 2])
    nodes, moved = graph(pooled, cells), graph(pooled[order], cells[order])
    torch.testing.assert_close(moved.emb, nodes.emb[order])
    torch.testing.assert_close(moved.cells, nodes.cells[order])
    torch.testing.assert_close(order[moved.neighbours], nodes.neighbours[order])


def test_gradient_reaches_every_weight() -> None:
    torch.manual_seed(2)
    graph = ViewGraph(6, dim=8, layers=2)
    nodes = graph(torch.randn(5, 6))
    (nodes.emb * torch.randn(5, 8)).sum().backward()
    lost = [name for name, p in graph.named_parameters() if p.grad is None or not float(p.grad.abs().sum()) > 0]
    assert not lost


def test_settings_and_shapes_are_checked() -> None:
    with pytest.raises(ConfigError, match="neighbours of at least 1"):
        ViewGraph(6, neighbours=0)
    with pytest.raises(ShapeError, match=r"cells \(B, P, W\), got \(5, 6\) and \(4, 3, 6\)"):
        ViewGraph(6)(torch.randn(5, 6), torch.randn(4, 3, 6))
