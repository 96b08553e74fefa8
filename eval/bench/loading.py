"""Image-text batches at 224 px from the same shards: kvlp's cache of pixels, and plain webdataset with Pillow.

webdataset is used as open_clip uses it: its own decoder, open_clip's inference transform, one text a sample through the
same tokenizer, batches of a fixed size; no worker processes on either side, and no augmentation. The transform is told
kvlp's settings, so that both make the same tensors.
"""

from __future__ import annotations

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


def loading(options: BenchOptions, manifest: Manifest, prepared: Prepared, scratch: Path) -> list[Measure]:
    """Images a second of the first epoch, which fills the cache, and of each later one, beside webdataset's."""
    import torch

    manifest = manifest.subset(split="train")
    write_shards(manifest, scratch / "shards")
    contestants: dict[str, Callable[[], object]] = {
        "first": lambda: _first_epoch(manifest, prepared, scratch),
        "later": lambda: _epoch(_batches(manifest, prepared, scratch)),
        "webdataset": lambda: _webdataset(scratch / "shards", prepared),
    }
    for run in contestants.values():
        run()
    seconds = alternate(contestants, options.repeats)
    sizes = (
        f"{len(manifest)} drawn radiographs of 512 px in PNG shards, to {prepared.preprocess.size} px; one process, "
        f"{torch.get_num_threads()} threads of torch"
    )
    said = {
        "first": ("kvlp, first epoch", f"{sizes}; shards read, hashes checked, cache of pixels written"),
        "later": ("kvlp, later epochs", f"{sizes}; from the cache of pixels"),
        "webdataset": ("webdataset + Pillow", f"{sizes}; decoded and resized in every epoch"),
    }
    rates = [
        Measure.of("loading", who, [len(manifest) / s for s in seconds[key]], "images/s", notes)
        for key, (who, notes) in said.items()
    ]
    against = [
        ratio(seconds[key], seconds["webdataset"], "loading, times faster", f"{said[key][0]} / {said['webdataset'][0]}")
        for key in ("first", "later")
    ]
    return [*rates, *against]


def _first_epoch(manifest: Manifest, prepared: Prepared, scratch: Path) -> int:
    shutil.rmtree(scratch / "cache", ignore_errors=True)
    return _epoch(_batches(manifest, prepared, scratch))


def _batches(manifest: Manifest, prepared: Prepared, scratch: Path) -> Batches:
    from dataclasses import replace

    from kvlp.training.data import Batches
    from kvlp.training.pixels import cached_pixels

    pixels, _ = cached_pixels(manifest, prepared.preprocess, scratch / "cache", shards=scratch / "shards")
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


def _webdataset(shards: Path, prepared: Prepared) -> int:
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
    batched = samples.map_tuple(transform, tokens).batched(_BATCH)
    return sum(len(images) for images, _ in batched)
