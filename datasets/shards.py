"""webdataset shards of image-report pairs: written with counts and hashes, read with decoders of our own.

A sample is KEY.png (8-bit grey) and KEY.json (the record); KEY is a running number, so no file name tells of a patient.
`shards.json` names each shard's samples, bytes and SHA-256. A reader takes nothing else: webdataset's own `.decode()`
would run a pickle that someone put into a shard.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from kvlp.datasets.files import atomic_file, atomic_write, read_bytes, read_text
from kvlp.datasets.images import load_grey_uint8
from kvlp.datasets.manifest import Manifest, Record
from kvlp.errors import DataError, ShardError
from kvlp.typing import PathLike

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Sample", "ShardReader", "write_shards"]

T = TypeVar("T")

INDEX = "shards.json"
SKIPPED = "skipped.jsonl"
FORMAT = 1
_MAX_SHARD_BYTES = 4 << 30
_SHARD_NAME = re.compile(r"shard-\d{6}\.tar")
_MEMBER_NAME = re.compile(r"(\d{8})\.(png|json)")


@dataclass(frozen=True, slots=True)
class Sample:
    """One image with its record. `grey` is uint8 (H, W)."""

    key: str
    grey: NDArray[np.uint8]
    record: Record


@dataclass(frozen=True, slots=True)
class _Shard:
    name: str
    samples: int
    bytes: int
    sha256: str


def write_shards(
    manifest: Manifest,
    out: PathLike,
    *,
    max_samples: int = 1000,
    size: int | None = None,
    max_skipped: float = 0.01,
    progress: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write a manifest's images and records as shards; return their paths.

    Images that cannot be read are left out and named in `skipped.jsonl` (row and reason).

    Args:
        manifest: every record needs an image.
        out: a folder without shards in it.
        max_samples: samples in one shard.
        size: longest side in pixels; larger images are reduced, smaller ones stay.
        max_skipped: share of rows that may be unreadable.
        progress: called with rows done and all rows.

    Raises:
        ShardError: `out` holds shards already, or more than `max_skipped` of the rows cannot be read.
    """
    out = Path(out)
    if max_samples < 1 or (size is not None and size < 1):
        raise ShardError(f"expected max_samples and size of at least 1, got {max_samples} and {size}")
    if (out / INDEX).exists():
        raise ShardError(f"{out}: holds shards already; name a new folder or remove them")
    skipped: list[dict[str, object]] = []
    members = _members(manifest, size, skipped, progress)
    shards: list[_Shard] = []
    while chunk := [member for _, member in zip(range(max_samples), members)]:
        shards.append(_write_shard(out / f"shard-{len(shards):06d}.tar", chunk))
    if len(skipped) > max_skipped * len(manifest):
        for shard in shards:
            (out / shard.name).unlink()
        first = skipped[0]
        raise ShardError(
            f"{len(skipped)} of {len(manifest)} rows cannot be read, above the limit of {max_skipped:.0%}; "
            f"first: row {first['row']}: {first['reason']}"
        )
    atomic_write(out / SKIPPED, "".join(f"{json.dumps(line)}\n" for line in skipped).encode())
    index = {
        "format": FORMAT,
        "samples": sum(shard.samples for shard in shards),
        "skipped": len(skipped),
        "size": size,
        "manifest_hash": manifest.content_hash,
        "shards": [asdict(shard) for shard in shards],
    }
    atomic_write(out / INDEX, json.dumps(index, indent=1).encode())
    return [out / shard.name for shard in shards]


def _members(
    manifest: Manifest, size: int | None, skipped: list[dict[str, object]], progress: Callable[[int, int], None] | None
) -> Iterator[tuple[str, bytes, bytes]]:
    """Yield (key, png, json) of each readable row; note the others in `skipped`."""
    for row, record in enumerate(manifest, 1):
        try:
            grey = load_grey_uint8(manifest.path_of(record))
        except (DataError, OSError) as problem:
            skipped.append({"row": row, "reason": " ".join(str(problem).split())})
            continue
        values = {name: getattr(record, name) for name in Record.__dataclass_fields__}
        values |= {"labels": dict(record.labels), "extra": dict(record.extra)}
        yield f"{row - 1:08d}", _png(_reduced(grey, size)), json.dumps(values, sort_keys=True).encode()
        if progress:
            progress(row, len(manifest))


def _write_shard(path: Path, members: Iterable[tuple[str, bytes, bytes]]) -> _Shard:
    from webdataset import TarWriter

    buffer = io.BytesIO()
    count = 0
    # constant owner and time: the same manifest gives the same bytes
    writer = TarWriter(buffer, encoder=False, user="kvlp", group="kvlp", mtime=0, compress=False)
    for key, png, text in members:
        writer.write({"__key__": key, "png": png, "json": text})
        count += 1
    writer.close()
    data = buffer.getvalue()
    with atomic_file(path) as file:
        file.write(data)
    if path.stat().st_size != len(data):
        raise ShardError(f"{path}: {path.stat().st_size} of {len(data)} bytes written; is the disk full?")
    return _Shard(path.name, count, len(data), hashlib.sha256(data).hexdigest())


def _png(grey: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _reduced(grey: NDArray[np.uint8], size: int | None) -> NDArray[np.uint8]:
    from PIL import Image

    height, width = grey.shape
    if size is None or max(height, width) <= size:
        return grey
    scale = size / max(height, width)
    shape = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(grey).resize(shape, Image.Resampling.BICUBIC))


class ShardReader:
    """Read a folder of shards that `write_shards` made.

    Raises:
        ShardError: the index is missing, damaged or of another format.
    """

    def __init__(self, folder: PathLike) -> None:
        self.folder = Path(folder)
        path = self.folder / INDEX
        if not path.is_file():
            raise ShardError(f"{self.folder}: no {INDEX}; write shards with: kvlp data shards MANIFEST --out DIR")
        try:
            index = json.loads(read_text(path, max_bytes=64 << 20, error=ShardError))
            if index["format"] != FORMAT:
                raise ShardError(f"{path}: format {index['format']!r}, expected {FORMAT}")
            self._shards = [_shard(entry) for entry in index["shards"]]
            self.manifest_hash = str(index["manifest_hash"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
            raise ShardError(f"{path}: damaged: {type(problem).__name__}") from problem

    def __len__(self) -> int:
        return sum(shard.samples for shard in self._shards)

    def samples(
        self, seed: int | None = None, epoch: int = 0, *, rank: int = 0, world_size: int = 1, window: int = 4
    ) -> Iterator[Sample]:
        """Yield every sample once, in an order that is a pure function of (seed, epoch).

        Args:
            seed: None keeps the stored order.
            epoch: another epoch, another order.
            rank, world_size: take every world_size-th sample of that order, from `rank` on.
            window: shards that are mixed with each other (and held in memory) at a time.

        Raises:
            ShardError: a shard is missing, changed, cut off, or holds anything but its samples.
        """
        number = 0
        for shards, order in self._plan(seed, epoch, window):
            raw = [item for shard in shards for item in self._read(shard)]
            for index in order:
                if number % world_size == rank:
                    yield self._decode(*raw[index])
                number += 1

    def each(self, work: Callable[[Sample], T], *, jobs: int = 2) -> Iterator[T]:
        """What `work` makes of every sample, in the stored order; samples are decoded and worked on in threads.

        Raises:
            ShardError: as `samples`.
        """
        with ThreadPoolExecutor(jobs) as pool:
            for shard in self._shards:
                yield from pool.map(lambda item: work(self._decode(*item)), self._read(shard))

    def _plan(self, seed: int | None, epoch: int, window: int) -> Iterator[tuple[list[_Shard], NDArray[np.int64]]]:
        rng = None if seed is None else np.random.default_rng([seed, epoch])
        shards = self._shards if rng is None else [self._shards[i] for i in rng.permutation(len(self._shards))]
        for start in range(0, len(shards), window):
            group = shards[start : start + window]
            count = sum(shard.samples for shard in group)
            yield group, np.arange(count) if rng is None else rng.permutation(count)

    def verify(self) -> list[str]:
        """Read and decode everything; return one line for each faulty shard, nothing if all is sound."""
        faults = []
        for shard in self._shards:
            try:
                for item in self._read(shard):
                    self._decode(*item)
            except ShardError as problem:
                faults.append(str(problem))
        return faults

    def _read(self, shard: _Shard) -> list[tuple[str, bytes, bytes]]:
        """Return (key, png, json) of a shard's samples after its hash has been checked. Nothing is extracted or run."""
        path = self.folder / shard.name
        data = read_bytes(path, max_bytes=_MAX_SHARD_BYTES, error=ShardError)
        if len(data) != shard.bytes:
            raise ShardError(f"{path}: {len(data)} bytes, expected {shard.bytes}: cut off or changed; write it again")
        if hashlib.sha256(data).hexdigest() != shard.sha256:
            raise ShardError(f"{path}: its SHA-256 differs from {INDEX}: damaged or changed; write it again")
        try:
            return _samples(path, data, shard.samples)
        except (tarfile.TarError, EOFError, ValueError, OverflowError) as problem:
            raise ShardError(f"{path}: not a sound tar file: {type(problem).__name__}") from problem

    def _decode(self, key: str, png: bytes, text: bytes) -> Sample:
        try:
            values: dict[str, Any] = json.loads(text)
            labels = {str(name): float(value) for name, value in values.pop("labels", {}).items()}
            extra = {str(name): str(value) for name, value in values.pop("extra", {}).items()}
            record = Record(**{name: str(value) for name, value in values.items()}, labels=labels, extra=extra)
            return Sample(key, load_grey_uint8(png), record)
        except (DataError, ValueError, TypeError, AttributeError, RecursionError) as problem:
            reason = str(problem) if isinstance(problem, DataError) else type(problem).__name__
            raise ShardError(f"{self.folder}: sample {key} cannot be read: {reason}") from problem


def _shard(entry: dict[str, Any]) -> _Shard:
    shard = _Shard(str(entry["name"]), int(entry["samples"]), int(entry["bytes"]), str(entry["sha256"]))
    if not _SHARD_NAME.fullmatch(shard.name):
        raise ShardError(f"{INDEX}: expected shard names such as shard-000000.tar, got {shard.name[:60]!r}")
    return shard


def _samples(path: Path, data: bytes, expected: int) -> list[tuple[str, bytes, bytes]]:
    parts: dict[str, dict[str, bytes]] = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        for member in tar:
            match = _MEMBER_NAME.fullmatch(member.name)
            file = tar.extractfile(member) if match and member.isreg() and not member.issparse() else None
            if match is None or file is None:
                raise ShardError(f"{path}: member {member.name[:60]!r} is not a sample's .png or .json; refused unread")
            sample = parts.setdefault(match[1], {})
            if match[2] in sample:
                raise ShardError(f"{path}: member {member.name!r} occurs twice")
            sample[match[2]] = file.read()
    for key, sample in parts.items():
        if len(sample) != 2:
            raise ShardError(f"{path}: sample {key} is half: only .{next(iter(sample))}")
    if len(parts) != expected:
        raise ShardError(f"{path}: {len(parts)} samples, expected {expected}")
    return [(key, sample["png"], sample["json"]) for key, sample in sorted(parts.items())]
