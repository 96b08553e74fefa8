"""Several crops of each image, large and small, changed in grey and sharpness: views for training on images alone.

Chest films are not mirrored: a mirrored film has its heart on the wrong side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kvlp.errors import ConfigError, ShapeError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["CropSettings", "Crops", "cell_places", "crop_images", "multi_crop"]


@dataclass(frozen=True, slots=True)
class CropSettings:
    """What the crops of an image are.

    Attributes:
        count: crops of each image.
        size: side of a crop in pixels.
        area: least and most share of the image's area that a crop covers.
        aspect: most that a crop is wider than high, or higher than wide, before it is made square.
        gain, offset: most change of contrast (a factor of 1 - gain to 1 + gain) and brightness (a share of white).
        blur: most standard deviation of a Gaussian blur, in pixels of the crop; half of the crops are blurred.
        flip: mirror half of the crops left to right. Not for chest films.
    """

    count: int = 2
    size: int = 96
    area: tuple[float, float] = (0.4, 1.0)
    aspect: float = 4 / 3
    gain: float = 0.2
    offset: float = 0.1
    blur: float = 1.0
    flip: bool = False

    def __post_init__(self) -> None:
        low, high = self.area
        ranges = 0 < low <= high <= 1 and self.aspect >= 1 and 0 <= self.gain < 1
        if self.count < 1 or self.size < 1 or not ranges or min(self.offset, self.blur) < 0:
            raise ConfigError(
                f"crops: expected count and size >= 1, 0 < area <= 1, aspect >= 1, 0 <= gain < 1, "
                f"offset and blur >= 0; got {self}"
            )


@dataclass(frozen=True, slots=True)
class Crops:
    """The same crop number of every image of a batch.

    Attributes:
        pixels: (n, size, size) uint8, or (n, C, size, size) float of `crop_images`.
        boxes: (n, 4) float32 left, top, width, height in shares of the image; the width is negative if mirrored, and
            left is then the right edge.
    """

    pixels: Tensor
    boxes: Tensor


def multi_crop(pixels: Tensor, settings: CropSettings, rng: np.random.Generator) -> list[Crops]:
    """Return `settings.count` crops of each grey image, all drawn from `rng`.

    Call it once with large crops and once with small ones for the multi-crop of DINO or LVM-Med.

    Shape: pixels (n, H, W) uint8.
    Raises: ShapeError if the images are not of that kind.
    """
    import torch

    if pixels.ndim != 3 or pixels.dtype != torch.uint8:
        raise ShapeError(f"expected grey images (n, H, W) of uint8, got {tuple(pixels.shape)} of {pixels.dtype}")
    found = crop_images(pixels.float().div(255)[:, None], settings, rng)
    return [Crops(c.pixels[:, 0].clamp(0, 1).mul(255).add(0.5).to(torch.uint8), c.boxes) for c in found]


def crop_images(
    images: Tensor,
    settings: CropSettings,
    rng: np.random.Generator,
    *,
    white: float = 1.0,
    part: tuple[int, int] | None = None,
) -> list[Crops]:
    """The same for images of any range, such as normalised ones; nothing is clamped.

    Args:
        images: (n, C, H, W) float.
        settings: what the crops are.
        rng: what they are drawn from.
        white: how far white is from black, which `offset` is a share of.
        part: of a larger batch these are the rows from the first number on, of the second many: they are cropped as
            they would be among the others.

    Raises:
        ShapeError: the images are not of that kind.
    """
    import torch
    import torch.nn.functional as F

    if images.ndim != 4 or not images.is_floating_point():
        raise ShapeError(f"expected images (n, C, H, W) of floats, got {tuple(images.shape)} of {images.dtype}")
    first, count = part or (0, len(images))
    own, found = slice(first, first + len(images)), []
    for _ in range(settings.count):
        every = torch.from_numpy(_boxes(count, settings, rng)).to(images.device)
        boxes = every[own]
        left, top, width, height = boxes.unbind(dim=1)
        zero = torch.zeros_like(left)
        # affine_grid's places run from -1 to 1 over the crop: scale and middle of the box, in those of the image
        rows = [[width, zero, 2 * left + width - 1], [zero, height, 2 * top + height - 1]]
        theta = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)  # (n, 2, 3)
        fine = settings.size * _oversampling(images.shape[2:], every, settings.size)
        grid = F.affine_grid(theta, [len(images), 1, fine, fine], align_corners=False)
        crops = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
        drawn = torch.from_numpy(rng.uniform(-1, 1, size=(4, count)).astype(np.float32)).to(images.device)
        found.append(Crops(_changed(F.adaptive_avg_pool2d(crops, settings.size), settings, drawn, own, white), boxes))
    return found


def cell_places(boxes: Tensor, rows: int, columns: int) -> Tensor:
    """Where the middle of each cell of a crop's map of features lies in the whole image.

    Args:
        boxes: (n, 4), see `Crops`.
        rows: of the map.
        columns: of the map.

    Returns:
        (n, rows * columns, 2) float32, x and y in shares of the image, row by row.
    """
    import torch

    x = (torch.arange(columns) + 0.5) / columns
    y = (torch.arange(rows) + 0.5) / rows
    within = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1).view(1, -1, 2).to(boxes)
    return boxes[:, None, :2] + within * boxes[:, None, 2:]


def _boxes(n: int, settings: CropSettings, rng: np.random.Generator) -> NDArray[np.float32]:
    """Left, top, width, height (n, 4); a box that would stand out of the image is made narrower or lower."""
    area = rng.uniform(*settings.area, size=n)
    aspect = np.exp(rng.uniform(-1, 1, size=n) * math.log(settings.aspect))
    size = np.minimum(np.sqrt(np.stack([area * aspect, area / aspect], axis=1)), 1.0)
    corner = rng.uniform(size=(n, 2)) * (1 - size)
    mirrored = rng.uniform(size=n) < (0.5 if settings.flip else 0.0)
    corner[mirrored, 0] += size[mirrored, 0]
    size[mirrored, 0] *= -1
    return np.concatenate([corner, size], axis=1).astype(np.float32)


def _oversampling(shape: tuple[int, ...], boxes: Tensor, size: int) -> int:
    """How many times finer to sample before averaging, so that no pixel of the image is skipped."""
    widest = max(float(boxes[:, 2].abs().max()) * shape[1], float(boxes[:, 3].max()) * shape[0]) if len(boxes) else 1.0
    return max(1, math.ceil(widest / size))


def _changed(crops: Tensor, settings: CropSettings, drawn: Tensor, own: slice, white: float) -> Tensor:
    """Change contrast, brightness and sharpness by numbers in [-1, 1] (4, n), of which `own` are the crops'."""
    spread, u = settings.blur * drawn[2].abs() * (drawn[3] > 0), drawn[:, own]
    gain, offset = (1 + settings.gain * u[0])[:, None, None, None], (settings.offset * u[1])[:, None, None, None]
    middle = crops.mean(dim=(1, 2, 3), keepdim=True)
    crops = (crops - middle) * gain + middle + white * offset
    reach = max(1, math.ceil(3 * float(spread.max()))) if len(spread) else 1  # of all, so that a part is as the whole
    return _blurred(crops, spread[own], reach) if settings.blur else crops


def _blurred(crops: Tensor, spread: Tensor, reach: int) -> Tensor:
    """Gaussian blur of each image by its own standard deviation, in pixels; 0 leaves it as it is."""
    import torch
    import torch.nn.functional as F

    at = torch.arange(-reach, reach + 1, dtype=torch.float32, device=crops.device)
    weights = torch.exp(-0.5 * (at[None] / spread.clamp(min=1e-3)[:, None]) ** 2)
    weights = (weights / weights.sum(dim=1, keepdim=True)).repeat_interleave(crops.shape[1], dim=0)
    planes = crops.flatten(0, 1)[None]  # each channel of each image by itself
    n = planes.shape[1]
    planes = F.conv2d(F.pad(planes, (reach, reach, 0, 0), mode="replicate"), weights[:, None, None], groups=n)
    planes = F.conv2d(F.pad(planes, (0, 0, reach, reach), mode="replicate"), weights[:, None, :, None], groups=n)
    return planes[0].unflatten(0, crops.shape[:2])
