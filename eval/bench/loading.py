"""Image-text batches at 224 px from the same shards: kvlp's cache of pixels, and plain webdataset with Pillow.

webdataset is used as open_clip uses it: its own decoder, open_clip's inference transform, one text a sample through the
same tokenizer, batches of a fixed size, and no augmentation. The transform is told kvlp's settings, so that both make
the same tensors. Each is timed twice: alone in its process, and with as many threads (kvlp's decoding) or worker
processes (webdataset's) as are asked for; a worker has shards of its own.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvlp.datasets.manifest import Manifest
from kvlp.datasets.shards import write_shards
from kvlp.eval.bench.measure import BenchOptions, Measure, alternate, ratio

if TYPE_CHECKING:
    import torch

    from kvlp.training.data import Batches
    from kvlp.training.setup import Prepared

__all__ = ["loading"]

_BATCH = 64


def loading(
    options: BenchOptions, manifest: Manifest, prepared: Prepared, scratch: Path, *, jobs: int
) -> list[Measure]:
    """Images a second of the first epoch, which fills the cache, and of each later one, beside webdataset's.

    Args:
        jobs: threads that kvlp decodes in, and webdataset's worker processes; 1 for neither.
    """
    manifest = manifest.subset(split="train")
    shards = scratch / f"shards-{jobs}"
    write_shards(manifest, shards, max_samples=max(1, -(-len(manifest) // jobs)))
    contestants: dict[str, Callable[[], object]] = {
        "first": lambda: _first_epoch(manifest, prepared, shards, jobs),
        "later": lambda: _epoch(_batches(manifest, prepared, shards, jobs)),
        "webdataset": lambda: _webdataset(shards, prepared, jobs),
    }
    for run in contestants.values():
        run()
    seconds = alternate(contestants, options.repeats)
    sizes = (
        f"{len(manifest)} drawn radiographs of 512 px in PNG shards, to {prepared.preprocess.size} px; "
        f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )
    theirs = "no worker process" if jobs == 1 else f"{jobs} worker processes"
    said = {
        "first": (
            "kvlp, first epoch",
            f"shards read, hashes checked, cache of pixels written; decoded in {jobs} threads",
        ),
        "later": ("kvlp, later epochs", "from the cache of pixels"),
        "webdataset": ("webdataset + Pillow", f"decoded and resized in every epoch; {theirs}"),
    }
    what = f"loading, {jobs} at work"
    rates = [
        Measure.of(what, who, [len(manifest) / s for s in seconds[key]], "images/s", f"{sizes}; {notes}")
        for key, (who, notes) in said.items()
    ]
    against = [
        ratio(seconds[key], seconds["webdataset"], f"{what}, times faster", f"{said[key][0]} / {said['webdataset'][0]}")
        for key in ("first", "later")
    ]
    return [*rates, *against]


def _first_epoch(manifest: Manifest, prepared: Prepared, shards: Path, jobs: int) -> int:
    shutil.rmtree(_cache(shards), ignore_errors=True)
    return _epoch(_batches(manifest, prepared, shards, jobs))


def _cache(shards: Path) -> Path:
    return shards.with_name(f"{shards.name}-cache")


def _batches(manifest: Manifest, prepared: Prepared, shards: Path, jobs: int) -> Batches:
    from dataclasses import replace

    from kvlp.training.data import Batches
    from kvlp.training.pixels import cached_pixels

    pixels, _ = cached_pixels(manifest, prepared.preprocess, _cache(shards), shards=shards, jobs=jobs)
    return Batches(
        rows=replace(prepared.rows, pixels=pixels),
        tokenize=prepared.tokenize,
        normalise=prepared.normalise,
        batch_size=_BATCH,
        accumulate=1,
        seed=(0, 0),
        max_sentences=0,
        augmented=False,
    )


def _epoch(batches: Batches) -> int:
    return sum(len(micro[0]["image"]) for micro, _ in batches.steps(0, batches.steps_per_epoch))


def _webdataset(shards: Path, prepared: Prepared, workers: int) -> int:
    import webdataset as wds
    from open_clip import image_transform

    settings = {k: v for k, v in prepared.preprocess.to_dict().items() if k not in ("size", "mode")}
    transform: Any = image_transform(prepared.preprocess.size, is_train=False, **settings)

    def tokens(record: dict[str, Any]) -> torch.Tensor:
        text = record["text"] or f"{record['findings']} {record['impression']}"
        ids = prepared.tokenize([text])[0]
        return ids.new_zeros(prepared.tokenize.context_length).index_copy_(0, ids.new_tensor(range(len(ids))), ids)

    paths = [str(path) for path in sorted(shards.glob("*.tar"))]
    samples = wds.WebDataset(paths, shardshuffle=False).decode("pilrgb").to_tuple("png", "json")
    batched: Any = samples.map_tuple(transform, tokens).batched(_BATCH)
    if workers > 1:
        batched = wds.WebLoader(batched, batch_size=None, num_workers=workers)
    return sum(len(images) for images, _ in batched)
