"""What small runs train on and by which settings: four reports, noise images that tell them apart, narrow towers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from kvlp.datasets.manifest import Manifest

SENTENCES = (
    "There is a left pleural effusion. No pneumothorax.",
    "Right pneumothorax. Heart size is normal.",
    "The heart is enlarged. No pleural effusion or pneumothorax.",
    "No pleural effusion. No pneumothorax. Heart size is normal.",
)
#: For recipes with towers of their own; the same bits on every machine.
SMALL = (
    "model.embed_dim=32", "model.image_size=48", "tokenizer.min_patients=2", "knowledge.min_patients=2", "threads=1",
    "precision=fp32",
)  # fmt: skip
WEIGHTS = ("open_clip_model.safetensors", "kvlp_extra.safetensors")


def write_manifest(folder: Path, sentences: Sequence[str] = SENTENCES, rows: int = 24) -> Manifest:
    """Images of 48 x 48, two a patient, whose mean tells which of the four sentences is their report."""
    rng = np.random.default_rng(0)
    lines = ["id,image,text,patient_id,split"]
    for i in range(rows):
        pixels = rng.normal(60 + 40 * (i % 4), 20, size=(48, 48)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:03d}.png")
        lines.append(f'{i:03d},{i:03d}.png,"{sentences[i % 4]}",p{i // 2:03d},train')
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Manifest.load(folder / "manifest.csv")
