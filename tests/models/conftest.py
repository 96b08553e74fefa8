"""Small models that the tests of this room share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kvlp.checkpoints import save_checkpoint
from kvlp.models.dual_encoder import build_dual_encoder
from kvlp.models.preprocess import Preprocess
from kvlp.models.towers import model_config
from kvlp.tokenizers import build_tokenizer

SENTENCES = [
    "There is a small left pleural effusion.",
    "No pneumothorax.",
    "The heart is enlarged.",
    "There is no focal consolidation.",
]


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    pairs = [(f"p{i}", sentence) for i in range(4) for sentence in SENTENCES]
    return build_tokenizer(pairs, vocab_size=300, context_length=24)


@pytest.fixture(scope="session")
def tiny_cfg(tiny_tokenizer: Any) -> dict[str, Any]:
    return model_config(
        "tiny-cnn",
        "tiny-text",
        vocab_size=len(tiny_tokenizer),
        eos_id=tiny_tokenizer.sep_token_id,
        embed_dim=32,
        image_size=64,
        context_length=24,
    )


@pytest.fixture(scope="session")
def tiny_module(tiny_cfg: dict[str, Any]) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_dual_encoder(tiny_cfg).eval()


@pytest.fixture(scope="session")
def tiny_folder(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_module: torch.nn.Module,
    tiny_cfg: dict[str, Any],
    tiny_tokenizer: Any,
) -> Path:
    """A checkpoint folder as kvlp writes it. Tests that change files copy it first."""
    return save_checkpoint(
        tmp_path_factory.mktemp("models") / "tiny",
        tiny_module,
        tiny_cfg,
        Preprocess(size=64).to_dict(),
        tiny_tokenizer,
        {"name": "tiny", "licence": "Apache-2.0", "named_concepts": ["pleural_effusion"], "limits": "random weights"},
        extra={"queries": torch.arange(6.0).reshape(2, 3)},
    )


@pytest.fixture(scope="session")
def sentences() -> list[str]:
    return SENTENCES


@pytest.fixture(scope="session")
def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, shape, dtype=np.uint8) for shape in [(64, 64), (90, 70), (50, 81)]]


class Axes:
    """A model to work out by hand: each word has an axis, "no" turns it round, images are vectors already.

    With scale 1 and a pair of prompts, the decision of a class is twice the image's coordinate.
    """

    words = ("effusion", "pneumothorax", "mass")
    dim = len(words) + 1
    card = {"named_concepts": ["pleural_effusion"]}

    def __init__(self, name: str = "axes", scale: float = 1.0, gain: Sequence[float] = (1.0, 1.0, 1.0)) -> None:
        self.hash, self.logit_scale, self.gain = name, scale, gain
        self.source = name

    def encode_text(self, texts: Sequence[str]) -> np.ndarray:
        rows = np.zeros((len(texts), self.dim))
        for row, text in zip(rows, texts):
            low = text.lower()
            for column, word in enumerate(self.words):
                if word in low:
                    row[column] = (-1 if "no " in low else 1) * np.sign(self.gain[column])
            row[-1] = 1.0 if not row.any() else 0.0
        return rows

    def encode_image(self, images: Sequence[np.ndarray], *, batch_size: int = 64) -> np.ndarray:
        rows = np.array([[*(image[0, :3] / 127.5 - 1), 0.5] for image in images]).reshape(len(images), self.dim)
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="session")
def axes() -> type[Axes]:
    """The class of a model whose scores can be worked out by hand."""
    return Axes


@pytest.fixture(scope="session")
def labelled() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """(X, y) of n images: embeddings for `axes`, and labels of two classes that follow them with some noise."""

    def draw(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        y = (rng.random((n, 2)) < [0.4, 0.2]).astype(float)
        X = np.zeros((n, Axes.dim))
        X[:, :2] = np.clip(0.35 * (2 * y - 1) + 0.3 * rng.normal(size=(n, 2)), -0.69, 0.69)
        X[:, 3] = np.sqrt(1 - (X**2).sum(axis=1))
        return X, y

    return draw
