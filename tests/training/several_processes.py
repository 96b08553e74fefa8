"""Run as a script by test_several_processes.py: gradients of recipes in one process, and in several that share rows.

    several_processes.py MANIFEST STORE OUT PROCESSES [NAME ...]

Of each recipe (or of those named) the gradients of some steps are taken in one process and in PROCESSES forked ones
(gloo); every process writes what it found, and the first one what one process alone finds.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from kvlp.datasets.manifest import Manifest
from kvlp.training.data import Batches
from kvlp.training.loop import _forward_backward
from kvlp.training.ranks import Ranks
from kvlp.training.recipe import Recipe, load_recipe
from kvlp.training.setup import Prepared, prepare
from kvlp.training.task import PretrainTask

SMALL = (
    "threads=1", "precision=fp32", "model.embed_dim=32", "model.image_size=48", "tokenizer.vocab_size=800",
    "tokenizer.min_patients=2", "tokenizer.context_length=32", "knowledge.min_patients=2", "data.augment=true",
    "concept_vectors={method: random, dim: 16}", "query_network={layers: 1, ffn: 32, dropout: 0.1}",
    "stages.0.batch_size=10",
)  # fmt: skip
LOSSES = (
    "stages.0.losses={clip: {}, entity: {}, knowledge: {every: 1, pairs: 8}, concept_align: {}, query: {texts: true}, "
    "contradiction: {}, polarity: {findings: 8}, siglip: {}, local_align: {}, momentum: {queue: 16}}"
)
PUBLISHED = (
    "stages.0.losses={clip: {normalised: false, scale: 2.659, duplicates: repel}, "
    "knowledge: {every: 1, pairs: 8, source: published, targets: l2}, query: {queries: names, balanced: false}}"
)
MOTOR = (
    "report_decoder={width: 32, heads: 4, layers: 1, knowledge_layers: 1, retrieve: 2, facts: 6}",
    "stages.0.losses={clip: {}, momentum: {queue: 16}, motor: {refresh: 1}}",
)
ARL = (
    "fusion={layers: 2, tap: 1, width: 32, heads: 2, entity_width: 16, entity_heads: 2, entity_hidden: 16, "
    "decoder_width: 32, decoder_layers: 1, decoder_heads: 2}",
    "stages.0.losses={clip: {}, concept_align: {}, arl: {patches: 0.5, itm: 1.0}}",
)
MATCHING = ("stages.0.losses={graph_matching: {dim: 32, neighbours: 2}}",)
#: name -> settings: batch norm, a vision transformer, a locked tower, several micro-batches
CASES: dict[str, tuple[str, ...]] = {
    "cnn": (LOSSES,),
    "vit": ("model.image=tiny-vit", LOSSES),
    "accumulated": (LOSSES, "stages.0.batch_size=5", "stages.0.accumulate=2"),
    "accumulated vit": ("model.image=tiny-vit", LOSSES, "stages.0.batch_size=6", "stages.0.accumulate=3"),
    "locked": ("stages.0.lock_image=true", LOSSES),
    "published": (PUBLISHED,),
    "cnn in float64": (LOSSES,),
    "accumulated in float64": (LOSSES, "stages.0.batch_size=5", "stages.0.accumulate=2"),
    "motor": ("model.image=tiny-vit", *MOTOR),
    "accumulated motor": ("model.image=tiny-vit", *MOTOR, "stages.0.batch_size=6", "stages.0.accumulate=3"),
    "motor in float64": MOTOR,
    "arl": ("model.image=tiny-vit", *ARL),
    "accumulated arl": ("model.image=tiny-vit", *ARL, "stages.0.batch_size=6", "stages.0.accumulate=3"),
    "graph matching": ("model.image=tiny-vit", *MATCHING),
    "texts alone": ("stages.0.losses={knowledge: {every: 1, pairs: 8}}",),
}
STEPS = (0, 3)


def gradients(title: str, recipe: Recipe, ready: Prepared, ranks: Ranks) -> dict[str, np.ndarray]:
    """Loss, rows and gradients of some steps, from the weights that the model has."""
    stage = recipe.stages[0]
    model: Any = ready.model
    model.visual.requires_grad_(not stage.lock_image)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(5)
    task = PretrainTask(model, stage.losses, heads=ready.heads, pad_id=ready.tokenize.pad_id, sources=ready.sources)
    features = {"image_emb": torch.randn(len(ready.rows), 32), "image_tokens": torch.randn(len(ready.rows), 9, 32)}
    parts = stage.losses.active.parts.values()
    batches = Batches(
        rows=ready.rows, tokenize=ready.tokenize, normalise=ready.normalise, batch_size=stage.batch_size,
        accumulate=stage.accumulate, seed=(0, 0), max_sentences=3, augmented=recipe.data.augment,
        with_images=stage.losses.with_images, image_features=features if stage.lock_image else None,
        samplers=[part.samplers(ready.sources) for part in parts], share=(ranks.rank, ranks.world),
    )  # fmt: skip
    found: dict[str, np.ndarray] = {}
    exact = title.endswith("float64")
    task.train()
    task.to(torch.float64 if exact else torch.float32)
    for step in STEPS:
        task.zero_grad(set_to_none=True)
        torch.manual_seed(step)  # of the dropout in the query network
        micro, shared = batches[step]
        for batch in micro if exact else ():
            batch["image"] = batch["image"].double()
        total, _, whole = _forward_backward(task, micro, shared, nullcontext)
        ranks.average_gradients(task.parameters())
        task.remember()
        found[f"{step}|loss"] = total.numpy()
        found[f"{step}|rows"] = whole["row"].numpy() if whole else np.zeros(0)
        for name, parameter in task.named_parameters():
            if parameter.grad is not None:
                found[f"{step}|{name}"] = parameter.grad.numpy().copy()
    for name, value in task.state_dict().items():
        if "running_" in name or name.startswith("memories"):
            found[f"buffer|{name}"] = value.numpy().copy()
    task.to(torch.float32)
    model.load_state_dict(before)
    return found


def work(rank: int, world: int, store: str, out: str, ready: dict[str, tuple[Recipe, Prepared]]) -> None:
    """One of several processes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    for number, (title, (recipe, prepared)) in enumerate(ready.items()):
        np.savez(f"{out}.{number}.{rank}.npz", **gradients(title, recipe, prepared, Ranks.now()))
    dist.destroy_process_group()


def main(manifest: str, store: str, out: str, processes: str, *names: str) -> int:
    """Prepare, fork, wait; the exit status is the worst one's."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    ready = {}
    for number, title in enumerate(names or CASES):
        recipe = load_recipe("smoke-cpu", [*SMALL, *CASES[title]])
        with tempfile.TemporaryDirectory() as folder:
            ready[title] = recipe, prepare(recipe, Manifest.load(Path(manifest)), Path(folder), lambda *_: None)
        np.savez(f"{out}.{number}.alone.npz", **gradients(title, *ready[title], Ranks()))
    fork = multiprocessing.get_context("fork")
    world = int(processes)
    workers = [fork.Process(target=work, args=(rank, world, store, out, ready)) for rank in range(world)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return max(abs(worker.exitcode or 0) for worker in workers)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
