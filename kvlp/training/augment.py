"""Small changes to radiographs that keep their meaning: shift, scale, turn, brightness. Never a horizontal flip."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["augment", "changed", "draw_changes"]

#: Limits: shift as a share of the side, scale as a factor, turn in degrees, gain and offset of the grey value.
SHIFT, SCALE, TURN, GAIN, OFFSET = 0.06, 0.1, 6.0, 0.15, 0.06


def augment(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    """Return randomly changed copies of grey images.

    A flip would move the heart to the right and turn the patient's sides round, so there is none.

    Shape: pixels (n, S, S) uint8 -> (n, S, S) uint8.
    """
    return changed(pixels, draw_changes(len(pixels), rng))


def draw_changes(count: int, rng: np.random.Generator) -> Tensor:
    """What is done to so many images: (6, n) float32 in [-1, 1], shares of the limits."""
    return torch.from_numpy(rng.uniform(-1, 1, size=(6, count)).astype(np.float32))


def changed(pixels: Tensor, u: Tensor) -> Tensor:
    """Grey images (n, S, S) uint8 changed as `draw_changes` says, likewise uint8."""
    n = len(pixels)
    angle, scale = u[0] * math.radians(TURN), 1 + SCALE * u[1]
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    theta = torch.stack([cos, -sin, 2 * SHIFT * u[2], sin, cos, 2 * SHIFT * u[3]], dim=1).view(n, 2, 3)
    images = pixels.float().div_(255)[:, None]
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, align_corners=False)[:, 0]
    gain, offset = (1 + GAIN * u[4])[:, None, None], (OFFSET * u[5])[:, None, None]
    result = (moved - 0.5) * gain + 0.5 + offset
    return result.clamp_(0, 1).mul_(255).add_(0.5).to(torch.uint8)
