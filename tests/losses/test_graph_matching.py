"""The estimated gradient against the true one of the expected loss; training by matching; local affinities."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from losses_suite import unit

from kvlp.errors import ConfigError, ShapeError
from kvlp.losses import GraphMatchingLoss, gumbel_noise, local_affinity
from kvlp.losses.graph_matching import _Matching
from kvlp.models.graph_views import nearest_neighbours

NEAR, FAR = np.array([[1], [2], [0]]), np.array([[2], [0], [1]])
EVERY = np.array(list(itertools.permutations(range(3))))
HAMMING = 2 * (np.arange(3) != EVERY).mean(axis=1)
#: for each matching, whether the first graph's edge (row) lies on the second's (column)
LAID = np.array([[[p[i] == a and p[NEAR[i, 0]] == FAR[a, 0] for a in range(3)] for i in range(3)] for p in EVERY])
CHOSEN = np.eye(3)[EVERY]


def _problem() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.uniform(-1, 1, (3, 3)), rng.uniform(-0.5, 0.5, (3, 3))  # the solver finds the best of all


def _best(vertex: np.ndarray, edge: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Number in EVERY of the best matching for each draw of noise (m, 3, 3)."""
    fixed = (CHOSEN * vertex).sum(axis=(1, 2)) + (LAID * edge).sum(axis=(1, 2))
    return np.argmax(noise.reshape(-1, 9) @ CHOSEN.reshape(6, 9).T + fixed, axis=1)


def _estimate(vertex: np.ndarray, edge: np.ndarray, noise: np.ndarray, strength: float) -> tuple[np.ndarray, ...]:
    """The estimate for each draw, all matchings tried."""
    pair = _best(vertex, edge, noise), _best(vertex + 2 * strength * np.eye(3), edge, noise)
    return tuple((table[pair[0]] - 1.0 * table[pair[1]]) / (3 * strength) for table in (CHOSEN, 1.0 * LAID))


def test_the_estimate_tends_to_the_gradient_of_the_expected_loss() -> None:
    given, noise = _problem(), np.random.default_rng(0).gumbel(size=(200_000, 3, 3))
    for which, found in enumerate(_estimate(*given, noise, 0.1)):
        true = np.zeros((3, 3))
        for place in np.ndindex(3, 3):
            sides = []
            for step in (0.1, -0.1):
                moved = [value.copy() for value in given]
                moved[which][place] += step
                sides.append(HAMMING[_best(*moved, noise)].mean())
            true[place] = (sides[0] - sides[1]) / 0.2
        assert np.abs(true).max() > 0.02
        np.testing.assert_allclose(found.mean(axis=0), true, atol=0.02)


@pytest.mark.parametrize("strength", [0.1, 1.0])
def test_the_gradient_is_that_estimate(strength: float) -> None:
    given, noise = _problem(), np.random.default_rng(1).gumbel(size=(40, 3, 3))
    expected = _estimate(*given, noise, strength)
    edges = torch.from_numpy(NEAR), torch.from_numpy(FAR)
    for draw in range(len(noise)):
        leaves = [torch.tensor(value, requires_grad=True) for value in given]
        total = _Matching.apply(*leaves, *edges, torch.from_numpy(noise[draw]), strength)[0]
        (3 * total).backward()  # a weight of the loss is a factor of the gradient
        assert total.item() == pytest.approx(HAMMING[_best(*given, noise[draw])[0]])
        for leaf, wanted in zip(leaves, expected, strict=True):
            torch.testing.assert_close(leaf.grad, torch.from_numpy(3 * wanted[draw]))


def test_training_by_matching_brings_the_views_together() -> None:
    """Two views are different linear pictures of hidden causes; a linear tower each learns to undo them."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(2, 6, 12)
    towers = torch.nn.ModuleList(torch.nn.Linear(12, 8) for _ in range(2))
    optimizer = torch.optim.Adam(towers.parameters(), lr=0.02)
    loss, matched = GraphMatchingLoss(), []
    for _ in range(60):
        causes = torch.randn(12, 6)
        first, second = (tower(causes @ mix) for tower, mix in zip(towers, mixing, strict=True))
        edges = [nearest_neighbours(emb, 3) for emb in (first, second)]
        output = loss(first, second, *edges, gumbel_noise(12, generator))
        optimizer.zero_grad()
        output.total.backward()
        optimizer.step()
        matched.append(float(output.parts["matched"]))
    assert np.mean(matched[-10:]) > max(0.8, np.mean(matched[:5]) + 0.3)


def test_gumbel_noise_has_its_mean_and_spread_and_follows_the_seed() -> None:
    noise = gumbel_noise(200, torch.Generator().manual_seed(1))
    assert float(noise.mean()) == pytest.approx(0.5772, abs=0.03)
    assert float(noise.std()) == pytest.approx(np.pi / np.sqrt(6), abs=0.03)
    assert torch.equal(noise, gumbel_noise(200, torch.Generator().manual_seed(1)))


def test_local_affinity_equals_a_slow_loop() -> None:
    rng = np.random.default_rng(2)
    rows, others = 18, 3  # more rows than are compared at a time
    first, second = rng.normal(size=(rows, 4, 5)), rng.normal(size=(others, 3, 5))
    places = rng.uniform(size=(rows, 4, 2)), rng.uniform(size=(others, 3, 2))
    found = local_affinity(*(torch.from_numpy(v).float() for v in (first, second, *places)))
    for i, a in itertools.product(range(rows), range(others)):
        cosines = np.array([[p @ q / np.linalg.norm(p) / np.linalg.norm(q) for q in second[a]] for p in first[i]])
        apart = np.array([[np.linalg.norm(p - q) for q in places[1][a]] for p in places[0][i]])
        ours = [(row[d.argmin()] + row.max()) / 2 for row, d in zip(cosines, apart, strict=True)]
        theirs = [(row[d.argmin()] + row.max()) / 2 for row, d in zip(cosines.T, apart.T, strict=True)]
        assert float(found[i, a]) == pytest.approx((np.mean(ours) + np.mean(theirs)) / 2, abs=1e-5)


def test_local_affinity_has_a_gradient() -> None:
    cells = [torch.from_numpy(unit(3, 2, 4, seed=s)).requires_grad_() for s in (1, 2)]
    places = [torch.rand(3, 2, 2, generator=torch.Generator().manual_seed(s)) for s in (1, 2)]
    local_affinity(*cells, *places).trace().backward()
    assert all(float(value.grad.abs().sum()) > 0 for value in cells)


def test_settings_and_shapes_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"positive strength, got 0\.8, 1, 0\.02 and 0"):
        GraphMatchingLoss(strength=0.0)
    emb, edges = torch.eye(3), torch.zeros(3, 1, dtype=torch.int64)
    with pytest.raises(ShapeError, match=r"two views of 3 images and neighbours \(3, k\)"):
        GraphMatchingLoss()(emb, emb, edges, edges[:2])
    with pytest.raises(ShapeError, match=r"noise of shape \(3, 3\), got \(2, 3\)"):
        GraphMatchingLoss()(emb, emb, edges, edges, torch.zeros(2, 3))
    with pytest.raises(ShapeError, match=r"local affinity of shape \(3, 3\)"):
        GraphMatchingLoss()(emb, emb, edges, edges, None, torch.zeros(2, 3))
    with pytest.raises(ShapeError, match=r"places \(B, P, 2\), got \(1, 2, 3\) and \(1, 2, 3\)"):
        local_affinity(torch.ones(1, 2, 3), torch.ones(1, 2, 3), torch.ones(1, 2, 3), torch.ones(1, 2, 2))
