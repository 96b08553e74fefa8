"""Heat maps of phrases, and training that puts them where the finding is."""

from __future__ import annotations

import pytest
import torch
from losses_suite import unit

from kvlp.errors import ConfigError, ShapeError
from kvlp.losses import LocalAlignLoss, phrase_heat_maps


def test_a_heat_map_by_hand() -> None:
    x, y = torch.eye(2)
    maps = phrase_heat_maps(torch.stack([torch.stack([x, 2 * y, -x])]), torch.stack([y, 3 * x]))
    torch.testing.assert_close(maps, torch.tensor([[[0.0, 1.0, 0.0]], [[1.0, 0.0, -1.0]]]))


def test_training_brings_each_phrase_to_its_place() -> None:
    """Images are noise with two planted patterns each; only the pairing of images and reports tells what is where."""
    torch.manual_seed(0)
    rows, kinds, places = 45, 6, 9
    pairs = torch.combinations(torch.arange(kinds))[torch.arange(rows) % 15]  # (rows, 2)
    where = torch.stack([torch.randperm(places)[:2] for _ in range(rows)])
    pixels = 0.3 * torch.randn(rows, places, 16)
    pixels[torch.arange(rows)[:, None], where] += 2 * torch.from_numpy(unit(kinds, 16, seed=1)).float()[pairs]
    tower, phrases = torch.nn.Linear(16, 8), torch.nn.Embedding(kinds, 8)
    loss, owner = LocalAlignLoss(), torch.arange(rows).repeat_interleave(2)
    optimizer = torch.optim.Adam([*tower.parameters(), *phrases.parameters()], lr=0.03)
    same = (pairs[:, None] == pairs[None, :]).all(dim=2)
    for _ in range(60):
        optimizer.zero_grad()
        named = torch.nn.functional.normalize(phrases(pairs.flatten()), dim=1)
        loss(tower(pixels), named, owner, torch.tensor(10.0), same).total.backward()
        optimizer.step()
    maps = phrase_heat_maps(tower(pixels).detach(), phrases.weight.detach())  # (kinds, rows, places)
    found = maps[pairs.flatten(), owner].argmax(dim=1)
    assert float((found == where.flatten()).float().mean()) > 0.8  # chance is 1 in 9


def test_more_phrases_are_no_advantage() -> None:
    patches = torch.from_numpy(unit(2, 3, 4, seed=1)).float()
    phrases = torch.from_numpy(unit(2, 4, seed=2)).float()
    once = LocalAlignLoss()(patches, phrases, torch.tensor([0, 1]), torch.tensor(5.0)).total
    twice = LocalAlignLoss()(patches, phrases[[0, 1, 1, 1]], torch.tensor([0, 1, 1, 1]), torch.tensor(5.0)).total
    torch.testing.assert_close(once, twice)


@pytest.mark.parametrize("owner", [[0, 2], [-1, 0], [0]])
def test_owners_are_rows(owner: list[int]) -> None:
    with pytest.raises(ShapeError, match=r"each of 2 phrases its row in \[0, 2\)"):
        LocalAlignLoss()(torch.rand(2, 3, 4), torch.rand(2, 4), torch.tensor(owner), torch.tensor(1.0))


def test_settings_and_widths_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"sharpness in \(0, 40\], got 4 and 50"):
        LocalAlignLoss(sharpness=50.0)
    with pytest.raises(ShapeError, match="one width"):
        phrase_heat_maps(torch.rand(2, 2, 4), torch.rand(1, 3))
