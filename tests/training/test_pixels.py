"""The cache of pixels is the same from files and from shards; a row that shards lack is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kvlp.datasets.manifest import Manifest
from kvlp.datasets.shards import write_shards
from kvlp.errors import DataError
from kvlp.models.preprocess import Preprocess
from kvlp.training.pixels import cached_pixels


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    rng = np.random.default_rng(0)
    lines = ["id,image,text,patient_id,split"]
    for i in range(7):
        Image.fromarray(rng.integers(0, 255, (40 + i, 48), dtype=np.uint8)).save(tmp_path / f"{i}.png")
        lines.append(f"{i},{i}.png,No effusion.,p{i},train")
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Manifest.load(tmp_path / "manifest.csv")


def test_from_files_and_from_shards_the_same(manifest: Manifest, tmp_path: Path):
    write_shards(manifest, tmp_path / "shards", max_samples=3)
    pixels, hashes = cached_pixels(manifest, Preprocess(size=32), tmp_path / "a")
    others, other_hashes = cached_pixels(manifest, Preprocess(size=32), tmp_path / "b", shards=tmp_path / "shards")
    assert np.array_equal(pixels, others)
    assert pixels.std() > 0
    assert hashes == other_hashes
    assert len(set(hashes)) == 7
    again, same = cached_pixels(manifest, Preprocess(size=32), tmp_path / "b", shards=tmp_path / "not there")
    assert np.array_equal(again, others)
    assert same == hashes


def test_a_row_that_shards_lack_is_named(manifest: Manifest, tmp_path: Path):
    write_shards(manifest.subset(where=lambda record: record.id != "4"), tmp_path / "shards")
    with pytest.raises(DataError, match=r"got 1 of 7 that are not; first, row 5: not in the shards of"):
        cached_pixels(manifest, Preprocess(size=32), tmp_path / "c", shards=tmp_path / "shards")
    assert not list((tmp_path / "c").glob("*.npy"))
