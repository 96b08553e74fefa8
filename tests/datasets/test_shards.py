"""Shards: what was written is read, in an order of (seed, epoch); damage is named; nothing in a shard is ever run."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kvlp.datasets.manifest import Manifest, Record
from kvlp.datasets.shards import ShardReader, write_shards
from kvlp.errors import ShardError


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    folder = tmp_path / "data"
    folder.mkdir()
    records = []
    for number in range(10):
        grey = np.random.default_rng(number).integers(0, 256, (20 + number, 30), dtype=np.uint8)
        Image.fromarray(grey).save(folder / f"{number}.png")
        records.append(
            Record(
                id=f"00{number}",
                image=f"{number}.png",
                text=f"Rapport numéro {number}.",
                patient_id=f"SECRET{number}",
                split="train",
                labels={"Edema": float(number % 2)},
                extra={"difficulty": "1"},
            )
        )
    return Manifest(records, folder)


@pytest.fixture
def shards(manifest: Manifest, tmp_path: Path) -> Path:
    write_shards(manifest, tmp_path / "shards", max_samples=3)
    return tmp_path / "shards"


def test_what_was_written_is_read(manifest: Manifest, shards: Path) -> None:
    reader = ShardReader(shards)
    samples = list(reader.samples())
    assert len(reader) == 10
    assert [s.record for s in samples] == list(manifest)
    for number, sample in enumerate(samples):
        with Image.open(manifest.root / f"{number}.png") as image:
            assert (sample.grey == np.asarray(image)).all()
    assert reader.verify() == []
    assert reader.manifest_hash == manifest.content_hash
    names = [f"shard-00000{i}.tar" for i in range(4)]
    assert sorted(p.name for p in shards.iterdir()) == [*names, "shards.json", "skipped.jsonl"]


def test_index_holds_counts_and_hashes_and_names_tell_no_patient(shards: Path) -> None:
    index = json.loads((shards / "shards.json").read_text())
    assert [entry["samples"] for entry in index["shards"]] == [3, 3, 3, 1]
    for entry in index["shards"]:
        data = (shards / entry["name"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == entry["sha256"]
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            assert not any("SECRET" in name for name in tar.getnames())


def test_the_same_manifest_gives_the_same_bytes(manifest: Manifest, shards: Path, tmp_path: Path) -> None:
    again = write_shards(manifest, tmp_path / "again", max_samples=3)
    assert [p.read_bytes() for p in again] == [(shards / p.name).read_bytes() for p in again]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves its file open
def test_webdataset_itself_can_read_the_shards(shards: Path) -> None:
    wds = pytest.importorskip("webdataset")
    dataset = wds.WebDataset([str(shards / "shard-000000.tar")], shardshuffle=False, empty_check=False)
    assert [sample["__key__"] for sample in dataset] == ["00000000", "00000001", "00000002"]


def test_order_is_a_function_of_seed_and_epoch(shards: Path) -> None:
    reader = ShardReader(shards)

    def order(seed: int, epoch: int, **options: int) -> list[str]:
        return [s.key for s in reader.samples(seed, epoch, **options)]

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)
    for window in (1, 2, 4):
        assert sorted(order(5, 3, window=window)) == [f"{i:08d}" for i in range(10)]
    parts = [order(1, 0, rank=rank, world_size=3) for rank in range(3)]
    assert [parts[i % 3][i // 3] for i in range(10)] == order(1, 0)


def test_sizes_are_reduced_but_never_enlarged(manifest: Manifest, tmp_path: Path) -> None:
    write_shards(manifest, tmp_path / "small", size=15)
    assert [max(s.grey.shape) for s in ShardReader(tmp_path / "small").samples()] == [15] * 10
    assert next(iter(ShardReader(tmp_path / "small").samples())).grey.shape == (10, 15)
    write_shards(manifest, tmp_path / "same", size=500)
    assert next(iter(ShardReader(tmp_path / "same").samples())).grey.shape == (20, 30)


def test_unreadable_rows_are_reported_never_replaced(manifest: Manifest, tmp_path: Path) -> None:
    (manifest.root / "4.png").write_bytes(b"junk")
    out = tmp_path / "out"
    with pytest.raises(ShardError, match="1 of 10 rows cannot be read, above the limit of 1%; first: row 5: "):
        write_shards(manifest, out)
    assert list(out.iterdir()) == []
    write_shards(manifest, out, max_skipped=0.2)
    lines = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    assert [line["row"] for line in lines] == [5]
    assert [s.record.id for s in ShardReader(out).samples()] == [f"00{i}" for i in range(10) if i != 4]
    assert len(ShardReader(out)) + len(lines) == len(manifest)


def test_shards_are_never_written_over_shards(manifest: Manifest, shards: Path) -> None:
    with pytest.raises(ShardError, match="holds shards already"):
        write_shards(manifest, shards)


def test_a_write_that_fails_leaves_no_half_shard(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_shards(manifest, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_every_cut_of_a_shard_is_named(shards: Path) -> None:
    path = shards / "shard-000001.tar"
    data = path.read_bytes()
    for cut in [*range(1, len(data), 997), len(data) - 1]:
        path.write_bytes(data[:cut])
        with pytest.raises(ShardError, match=r"shard-000001\.tar: .*cut off or changed"):
            list(ShardReader(shards).samples())
    assert len(ShardReader(shards).verify()) == 1


def test_a_flipped_bit_a_missing_and_an_empty_shard_are_named(shards: Path) -> None:
    path = shards / "shard-000002.tar"
    data = bytearray(path.read_bytes())
    data[700] ^= 1
    path.write_bytes(bytes(data))
    assert "SHA-256 differs" in ShardReader(shards).verify()[0]
    path.write_bytes(b"")
    assert "empty" in ShardReader(shards).verify()[0]
    path.unlink()
    assert "cannot be opened" in ShardReader(shards).verify()[0]


class Canary:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (self.path, "w")


def forged(shards: Path, change: Callable[[tarfile.TarFile], None], *, samples: int = 3) -> ShardReader:
    """Replace the first shard by one with `change` applied, its hash in the index made to fit."""
    path = shards / "shard-000000.tar"
    buffer = io.BytesIO()
    with tarfile.open(path) as old, tarfile.open(fileobj=buffer, mode="w") as new:
        for member in old:
            new.addfile(member, old.extractfile(member))
        change(new)
    data = buffer.getvalue()
    path.write_bytes(data)
    index = json.loads((shards / "shards.json").read_text())
    index["shards"][0] |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "samples": samples}
    (shards / "shards.json").write_text(json.dumps(index))
    return ShardReader(shards)


def add(name: str, data: bytes, kind: bytes = tarfile.REGTYPE) -> Callable[[tarfile.TarFile], None]:
    def change(tar: tarfile.TarFile) -> None:
        member = tarfile.TarInfo(name)
        member.type, member.size, member.linkname = kind, len(data) if kind == tarfile.REGTYPE else 0, "/etc/passwd"
        tar.addfile(member, io.BytesIO(data))

    return change


@pytest.mark.parametrize("ending", ["pyd", "pkl", "pickle", "pth", "pt", "npy", "npz", "joblib", "pt2"])
def test_a_pickle_in_a_shard_is_refused_and_never_run(shards: Path, tmp_path: Path, ending: str) -> None:
    canary = tmp_path / "canary"
    reader = forged(shards, add(f"00000000.{ending}", pickle.dumps(Canary(canary))))
    with pytest.raises(ShardError, match=f"'00000000.{ending}' is not a sample's"):
        list(reader.samples())
    assert not canary.exists()


@pytest.mark.parametrize("name", ["../x.png", "/abs.png", "a/00000009.png", "00000009.png.exe", "x" * 300])
def test_foreign_names_are_refused(shards: Path, name: str) -> None:
    with pytest.raises(ShardError, match="refused unread"):
        list(forged(shards, add(name, b"x")).samples())


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_folders_and_devices_are_refused(shards: Path, kind: bytes) -> None:
    with pytest.raises(ShardError, match="refused unread"):
        list(forged(shards, add("00000009.png", b"", kind)).samples())


def test_half_double_and_surplus_samples_are_named(shards: Path) -> None:
    backup = {p: p.read_bytes() for p in shards.iterdir()}
    for change, message in (
        (add("00000009.json", b"{}"), "sample 00000009 is half: only .json"),
        (add("00000001.json", b"{}"), "'00000001.json' occurs twice"),
    ):
        with pytest.raises(ShardError, match=message):
            list(forged(shards, change).samples())
        for path, data in backup.items():
            path.write_bytes(data)
    with pytest.raises(ShardError, match="3 samples, expected 4"):
        list(forged(shards, lambda _: None, samples=4).samples())


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{", b'{"id": 1, "no_such": 2}', b'{"labels": []}', b"\xff", b"[" * 99_999]
)
def test_a_bad_record_is_named(shards: Path, text: bytes) -> None:
    def change(tar: tarfile.TarFile) -> None:
        png = io.BytesIO()
        Image.new("L", (4, 4)).save(png, "PNG")
        add("00000009.png", png.getvalue())(tar)
        add("00000009.json", text)(tar)

    with pytest.raises(ShardError, match="sample 00000009 cannot be read"):
        list(forged(shards, change, samples=4).samples())


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"format": 2, "shards": []}', '{"format": 1, "shards": [{"name": "../x"}]}', "[" * 99_999],
)
def test_a_bad_index_is_named(shards: Path, text: str) -> None:
    (shards / "shards.json").write_text(text)
    with pytest.raises(ShardError, match=r"shards\.json"):
        ShardReader(shards)


def test_an_index_cannot_point_out_of_its_folder(shards: Path) -> None:
    index = json.loads((shards / "shards.json").read_text())
    index["shards"][0]["name"] = "../shard-000000.tar"
    (shards / "shards.json").write_text(json.dumps(index))
    with pytest.raises(ShardError, match="expected shard names"):
        ShardReader(shards)
    with pytest.raises(ShardError, match="kvlp data shards"):
        ShardReader(shards / "nowhere")
