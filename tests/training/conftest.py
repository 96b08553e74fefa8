"""Small data that the tests of this room share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kvlp.datasets.manifest import Manifest


@pytest.fixture(scope="session")
def noise_manifest(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Sequence[str]], Manifest]:
    """Write 24 small noise images of 12 patients whose mean tells which of four reports they have."""

    def write(sentences: Sequence[str]) -> Manifest:
        folder: Path = tmp_path_factory.mktemp("data")
        rng = np.random.default_rng(0)
        lines = ["id,image,text,patient_id,split"]
        for i in range(24):
            pixels = rng.normal(60 + 40 * (i % 4), 20, size=(48, 48)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{i:03d}.png")
            lines.append(f'{i:03d},{i:03d}.png,"{sentences[i % 4]}",p{i // 2:03d},train')
        (folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return Manifest.load(folder / "manifest.csv")

    return write
