"""Small models that the tests of this room share."""

from __future__ import annotations

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
