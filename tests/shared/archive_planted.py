"""A stand-in for a model, with vectors that a test plants: no torch, no weights, readable answers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

DIM = 16


def direction(text: str, dim: int = DIM) -> np.ndarray:
    """A unit vector that depends on the text alone."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    vector = np.random.default_rng(seed).standard_normal(dim)
    return vector / np.linalg.norm(vector)


class PlantedModel:
    """Embeds an image by its pixels and a text by its words, unless a vector was planted for them."""

    def __init__(self, name: str = "planted", dim: int = DIM, texts: Mapping[str, np.ndarray] | None = None) -> None:
        self.hash = hashlib.sha256(name.encode()).hexdigest()
        self.dim = dim
        self.source = ""
        self.texts = dict(texts or {})
        self.images: dict[bytes, np.ndarray] = {}
        self.seen = 0

    def plant(self, grey: np.ndarray, vector: Sequence[float]) -> None:
        """Give an image (uint8) this embedding."""
        self.images[grey.tobytes()] = np.asarray(vector, dtype=np.float64)

    def encode_image(self, images: Sequence[np.ndarray], *, batch_size: int = 64) -> np.ndarray:
        self.seen += len(images)
        return np.array([self.image_vector(image) for image in images], dtype=np.float32)

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([self.texts.get(t, direction(t, self.dim)) for t in texts], dtype=np.float32)

    def image_vector(self, image: np.ndarray) -> np.ndarray:
        pixels = image.tobytes()
        planted = self.images.get(pixels)
        return planted if planted is not None else direction(hashlib.sha256(pixels).hexdigest(), self.dim)


def grey_of(number: int, size: int = 12) -> np.ndarray:
    """A small picture, another one for every number."""
    return np.random.default_rng(number).integers(0, 256, (size, size), dtype=np.uint8)


def write_image(path: Path, number: int, *, size: int = 12) -> Path:
    """Write picture `number` as a PNG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grey_of(number, size)).save(path, compress_level=0)
    return path


def write_images(folder: Path, numbers: Sequence[int]) -> list[Path]:
    """Write pictures as 0003.png and so on."""
    return [write_image(folder / f"{number:04d}.png", number) for number in numbers]
