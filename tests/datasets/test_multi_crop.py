"""Crops: where they say they are, never mirrored unasked, a function of the generator."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from kvlp.datasets.multi_crop import CropSettings, _blurred, cell_places, crop_images, multi_crop
from kvlp.errors import ConfigError, ShapeError

PLAIN = CropSettings(count=3, size=16, gain=0.0, offset=0.0, blur=0.0)
RAMP = np.arange(64) / 63 * 250


def ramps(axis: int, n: int = 6) -> torch.Tensor:
    """Images whose grey is their own x (axis 1) or y (axis 0)."""
    image = np.broadcast_to(RAMP[None, :] if axis else RAMP[:, None], (64, 64))
    return torch.from_numpy(np.repeat(image[None], n, axis=0).round().astype(np.uint8))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
def test_boxes_say_where_a_crop_lies(axis: int, *, flip: bool) -> None:
    settings = replace(PLAIN, flip=flip, area=(0.1, 0.9))
    for crops in multi_crop(ramps(axis), settings, np.random.default_rng(0)):
        places = cell_places(crops.boxes, 16, 16)[..., 1 - axis].view(-1, 16, 16)
        expected = (places * 64 - 0.5).clamp(0, 63) / 63 * 250
        assert float((crops.pixels.float() - expected).abs().max()) < 3.5


def test_chest_films_are_not_mirrored_unasked() -> None:
    crops = multi_crop(ramps(1, n=40), replace(PLAIN, count=4), np.random.default_rng(1))
    assert all(bool((c.pixels[:, :, -1] > c.pixels[:, :, 0]).all()) for c in crops)
    assert all(bool((c.boxes[:, 2] > 0).all()) for c in crops)
    asked = multi_crop(ramps(1, n=40), replace(PLAIN, flip=True), np.random.default_rng(1))[0]
    mirrored = asked.boxes[:, 2] < 0
    assert 8 < int(mirrored.sum()) < 32
    assert torch.equal(mirrored, asked.pixels[:, 0, -1] < asked.pixels[:, 0, 0])


def test_areas_and_boxes_are_within_bounds() -> None:
    settings = replace(PLAIN, area=(0.2, 0.5))
    boxes = torch.cat([c.boxes for c in multi_crop(ramps(0, n=200), settings, np.random.default_rng(2))])
    area = boxes[:, 2] * boxes[:, 3]
    assert 0.2 - 1e-6 <= float(area.min()) < 0.22
    assert 0.48 < float(area.max()) <= 0.5 + 1e-6
    assert float(boxes.min()) >= 0
    assert float((boxes[:, :2] + boxes[:, 2:]).max()) <= 1 + 1e-6


def test_crops_are_a_function_of_the_generator() -> None:
    settings = CropSettings(size=16)
    first, again, other = (multi_crop(ramps(0), settings, np.random.default_rng(s)) for s in (3, 3, 4))
    assert all(torch.equal(a.pixels, b.pixels) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0].pixels, other[0].pixels)
    assert not torch.equal(first[0].pixels, first[1].pixels)


def test_fine_lines_are_averaged_not_skipped() -> None:
    lines = torch.zeros(1, 64, 64, dtype=torch.uint8)
    lines[:, :, ::2] = 200
    crop = multi_crop(lines, replace(PLAIN, area=(1.0, 1.0), aspect=1.0), np.random.default_rng(0))[0]
    assert int((crop.pixels.int() - 100).abs().max()) <= 1


def test_blur_by_hand() -> None:
    dot = torch.zeros(2, 1, 15, 15)
    dot[:, :, 7, 7] = 1.0
    sharp, blurred = _blurred(dot, torch.tensor([0.0, 1.0]), 3)
    assert torch.equal(sharp, dot[0])
    axis = torch.exp(-0.5 * torch.arange(-3, 4.0) ** 2)
    torch.testing.assert_close(blurred[0, 7, 4:11], axis / axis.sum() * (axis / axis.sum())[3])
    assert float(blurred.sum()) == pytest.approx(1.0, abs=1e-5)


def test_grey_changes_stay_within_their_limits() -> None:
    flat = torch.full((50, 64, 64), 128, dtype=torch.uint8)
    crops = multi_crop(flat, CropSettings(size=8, offset=0.1), np.random.default_rng(5))[0]
    assert 128 - 26.5 <= int(crops.pixels.min()) < 110
    assert 146 < int(crops.pixels.max()) <= 128 + 26.5


def test_normalised_images_are_cropped_the_same() -> None:
    settings = CropSettings(size=16, count=1)
    images = ramps(0).float().div(255)[:, None]
    plain = crop_images(images, settings, np.random.default_rng(6))[0]
    normal = crop_images((images - 0.5).repeat(1, 3, 1, 1) * 4, settings, np.random.default_rng(6), white=4.0)[0]
    torch.testing.assert_close(normal.pixels[:, 2:] / 4 + 0.5, plain.pixels, atol=1e-5, rtol=0)
    assert torch.equal(normal.boxes, plain.boxes)


def test_places_of_cells_by_hand() -> None:
    places = cell_places(torch.tensor([[0.2, 0.1, 0.4, 0.8], [0.6, 0.0, -0.4, 1.0]]), 1, 2)
    torch.testing.assert_close(places, torch.tensor([[[0.3, 0.5], [0.5, 0.5]], [[0.5, 0.5], [0.3, 0.5]]]))


def test_settings_and_images_are_checked() -> None:
    with pytest.raises(ConfigError, match="0 < area <= 1"):
        CropSettings(area=(0.5, 1.2))
    with pytest.raises(ShapeError, match=r"grey images \(n, H, W\) of uint8, got \(1, 3, 8, 8\)"):
        multi_crop(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), PLAIN, np.random.default_rng(0))


def test_a_part_of_a_batch_is_cropped_as_it_is_among_the_others() -> None:
    images = torch.rand(7, 1, 40, 30, generator=torch.Generator().manual_seed(1))
    settings = CropSettings(size=8, area=(0.1, 1.0), flip=True)
    whole = crop_images(images, settings, np.random.default_rng(4))
    for first, last in ((0, 3), (3, 7), (6, 7)):
        part = crop_images(images[first:last], settings, np.random.default_rng(4), part=(first, 7))
        for ours, theirs in zip(part, whole, strict=True):
            torch.testing.assert_close(ours.boxes, theirs.boxes[first:last], rtol=0, atol=0)
            torch.testing.assert_close(ours.pixels, theirs.pixels[first:last], rtol=0, atol=1e-6)
