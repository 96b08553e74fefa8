"""The preprocessing equals open_clip's on the same picture, and refuses what is no grey image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from kvlp.errors import ConfigError, ImageError, ShapeError
from kvlp.models.preprocess import Preprocess, as_grey_uint8


@pytest.fixture(scope="module")
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("resize_mode", ["longest", "shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_equals_open_clips_transform(rng: np.random.Generator, resize_mode: str, interpolation: str) -> None:
    for shape in [(96, 96), (200, 150), (151, 233), (40, 61), (97, 96), (300, 20)]:
        grey = rng.integers(0, 256, shape, dtype=np.uint8)
        cfg = PreprocessCfg(size=96, resize_mode=resize_mode, interpolation=interpolation, fill_color=7)
        theirs = image_transform_v2(cfg, is_train=False)(Image.fromarray(grey))
        ours = Preprocess.from_dict(
            {"size": 96, "resize_mode": resize_mode, "interpolation": interpolation, "fill_color": 7}
        )
        torch.testing.assert_close(ours(grey), theirs, rtol=0, atol=1e-6)


def test_the_cached_square_is_what_inference_sees(rng: np.random.Generator) -> None:
    grey = rng.random((130, 80)).astype(np.float32)
    settings = Preprocess(size=64)
    cached = settings.fit(as_grey_uint8(grey))
    assert cached.shape == (64, 64)
    assert cached.dtype == np.uint8
    assert not cached[:, :12].any(), "a tall image is padded left and right with black"
    torch.testing.assert_close(settings.normalise(cached[None])[0], settings(grey), rtol=0, atol=0)


def test_normalise_by_hand() -> None:
    batch = np.array([[[0, 255], [51, 102]]], np.uint8)
    out = Preprocess(size=2, mean=(0.5, 0.4, 0.0), std=(0.25, 0.5, 1.0)).normalise(batch)
    assert out.shape == (1, 3, 2, 2)
    torch.testing.assert_close(out[0, :, 0, 1], torch.tensor([2.0, 1.2, 1.0]))
    torch.testing.assert_close(out[0, :, 1, 0], torch.tensor([-1.2, -0.4, 0.2]))


def test_all_forms_of_one_picture_are_one_picture(rng: np.random.Generator) -> None:
    grey = rng.integers(0, 256, (12, 9), dtype=np.uint8)
    unit = grey.astype(np.float64) / 255
    forms = [
        grey,
        grey[..., None],
        unit,
        unit.astype(np.float32),
        Image.fromarray(grey),
        Image.fromarray(grey).convert("RGB"),
        Image.fromarray(grey.astype(np.uint16) * 257),
        np.repeat(grey[..., None], 3, axis=-1),
        torch.from_numpy(grey),
        torch.from_numpy(unit)[None],
        torch.from_numpy(np.repeat(unit[None], 3, axis=0)),
    ]
    for form in forms:
        np.testing.assert_array_equal(as_grey_uint8(form), grey)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.full((4, 4), 1.5, np.float32), ImageError, r"in \[0, 1\], got 1.5"),
        (np.full((4, 4), -0.1), ImageError, r"got -0.1"),
        (np.full((4, 4), np.nan), ImageError, "nan"),
        (np.zeros((4, 4), np.uint16), ImageError, "65535"),
        (np.zeros((4, 4), bool), ImageError, "bool"),
        (np.zeros((0, 4), np.uint8), ShapeError, r"\(0, 4\)"),
        (np.zeros(4, np.uint8), ShapeError, r"\(4,\)"),
        (np.zeros((4, 4, 2), np.uint8), ShapeError, r"\(4, 4, 2\)"),
        (Image.new("F", (4, 4)), ImageError, "mode 'F'"),
        ("picture.png", ImageError, "load_grey"),
        (None, ImageError, "NoneType"),
    ],
)
def test_refuses_what_is_no_grey_image(image: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        as_grey_uint8(image)


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="resize_mode"):
        Preprocess(resize_mode="stretch")
    with pytest.raises(ConfigError, match="square"):
        Preprocess.from_dict({"size": [96, 64]})
    with pytest.raises(ConfigError, match="deviations"):
        Preprocess(std=(1.0, 0.0, 1.0))


def test_settings_round_trip_through_open_clips_form() -> None:
    settings = Preprocess(size=64, mean=(0.1, 0.2, 0.3), resize_mode="squash", fill_color=9)
    assert Preprocess.from_dict(settings.to_dict()) == settings
    assert set(settings.to_dict()) == set(PreprocessCfg().__dict__)
