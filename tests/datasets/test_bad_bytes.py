"""Thousands of damaged files through every loader: one of our errors or a sound result, never anything else."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kvlp.datasets.images import inspect_image
from kvlp.datasets.manifest import Manifest, Record
from kvlp.datasets.shards import ShardReader, write_shards
from kvlp.errors import DataError

SHARE = float(os.environ.get("KVLP_SLOW_SHARE", "1"))
SLOWEST = 10.0


KINDS = ("cut", "flipped", "filled", "spliced")


def damaged(data: bytes, rng: np.random.Generator, count: int) -> Iterator[tuple[str, bytes]]:
    """Copies that are cut, flipped, filled or spliced; now and then one is the original still."""
    for number in range(count):
        mutant = bytearray(data)
        kind = number % 4
        at = int(rng.integers(len(data)))
        # headers are where a byte matters most
        near = int(rng.integers(min(len(data), 2048)))
        if kind == 0:
            del mutant[at:]
        elif kind == 1:
            for place in (near, at):
                mutant[place] = int(rng.integers(256))
        elif kind == 2:
            mutant[near : near + 4] = rng.choice([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"])
        else:
            mutant[near:near] = mutant[at : at + int(rng.integers(1, 64))]
        yield KINDS[kind], bytes(mutant)


def survive(read: Callable[[Path], object], path: Path, data: bytes, count: int) -> Counter[tuple[str, str]]:
    """Counts of (kind of damage, "refused", "same" or "changed"); answers are quick, refusals one line of ours."""
    rng = np.random.default_rng(len(data))
    path.write_bytes(data)
    try:
        whole = read(path)
    except DataError:  # a colour photograph, say: refused as it is
        whole = None
    counts: Counter[tuple[str, str]] = Counter()
    for kind, mutant in damaged(data, rng, count):
        path.write_bytes(mutant)
        start = time.monotonic()
        message, found = "", None
        try:
            found = read(path)
        except DataError as problem:
            message = str(problem)
            assert message
        assert "\n" not in message
        assert time.monotonic() - start < SLOWEST
        if mutant != data:
            counts[kind, "refused" if message else "same" if found == whole else "changed"] += 1
    return counts


def pixels_of(path: Path) -> bytes:
    return inspect_image(path)[0].tobytes()


@pytest.mark.slow
def test_damaged_images(tmp_path: Path, kvlp_data: Path) -> None:
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (40, 50), dtype=np.uint8)
    for number, (name, array) in enumerate(
        {"a.png": grey, "b.jpg": grey, "c.png": grey.astype(np.uint16) * 200, "d.jpg": np.dstack([grey] * 3)}.items()
    ):
        Image.fromarray(array).save(tmp_path / name)
        counts = survive(pixels_of, tmp_path / f"m{number}", (tmp_path / name).read_bytes(), int(300 * SHARE) + 8)
        assert counts["cut", "refused"] >= 2
        assert not counts["cut", "changed"]  # what is cut off behind the pixels may be missed
    small = [p for p in sorted((kvlp_data / "dicom").glob("*/*.dcm")) if p.stat().st_size < 150_000]
    for number, path in enumerate(small):
        counts = survive(pixels_of, tmp_path / f"d{number}.dcm", path.read_bytes(), int(60 * SHARE) + 8)
        assert not counts["cut", "changed"]  # what is cut off behind the pixels may be missed


@pytest.mark.slow
def test_damaged_tables_and_shards(tmp_path: Path) -> None:
    records = [Record(str(i), f"{i}.png", "Text, with é.", labels={"A": 1.0, "B": 0.0}) for i in range(20)]
    for ending in (".csv", ".jsonl"):
        Manifest(records).save(tmp_path / f"m{ending}")
        data = (tmp_path / f"m{ending}").read_bytes()
        survive(lambda path: Manifest.load(path).content_hash, tmp_path / f"x{ending}", data, int(400 * SHARE) + 8)
    for record in records:
        Image.new("L", (8, 8), int(record.id)).save(tmp_path / record.image)
    shards = tmp_path / "shards"
    write_shards(Manifest(records, tmp_path), shards)
    for name in ("shards.json", "shard-000000.tar"):
        data = (shards / name).read_bytes()
        counts = survive(
            lambda path: [s.grey.tobytes() for s in ShardReader(path.parent).samples(0)],
            shards / name,
            data,
            int(200 * SHARE) + 8,
        )
        refused = sum(n for (_, answer), n in counts.items() if answer == "refused")
        # every byte of a shard is under its hash; a changed byte of the index may lie in white space
        assert refused >= (counts.total() if name.endswith(".tar") else 0.9 * counts.total())
        (shards / name).write_bytes(data)
