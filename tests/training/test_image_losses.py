"""SigLIP, local alignment and graph matching in a run: they fall, resume to the bit, and may be split."""

from __future__ import annotations

import json
import math
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kvlp.datasets.manifest import Manifest
from kvlp.errors import ConfigError
from kvlp.models.dual_encoder import build_dual_encoder
from kvlp.models.towers import model_config
from kvlp.training.loop import _forward_backward
from kvlp.training.objectives import GraphMatchingPart, LocalAlignPart, Losses, SigLipPart
from kvlp.training.recipe import Recipe, load_recipe
from kvlp.training.run import run_recipe
from kvlp.training.task import PretrainTask

REPORTS = [
    "There is a small left pleural effusion. No pneumothorax.",
    "Large right pneumothorax. Heart size is normal.",
    "The heart is enlarged. No pleural effusion or pneumothorax.",
]
LOSSES = "{siglip: {}, local_align: {}, graph_matching: {dim: 32, neighbours: 3, alpha: 0.7}}"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Noise images with a bright square whose place tells which of three reports they have."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    lines = ["id,image,text,patient_id,split"]
    for i in range(24):
        pixels = rng.normal(90, 25, size=(48, 48))
        pixels[8 + 12 * (i % 3) : 20 + 12 * (i % 3), 18:30] += 90
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i:03d}.png")
        lines.append(f'{i:03d},{i:03d}.png,"{REPORTS[i % 3]}",p{i:03d},train')
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Manifest.load(folder / "manifest.csv")


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    settings = ["threads=1", "evaluation=[]", "stages.0.steps=10", "stages.0.batch_size=12", "save_every=4"]
    return load_recipe("smoke-cpu", [*settings, f"stages.0.losses={LOSSES}"])


@pytest.fixture(scope="module")
def run(manifest: Manifest, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    run_recipe(recipe, manifest, out)
    return out


def weights(out: Path) -> bytes:
    return (out / "checkpoint" / "open_clip_model.safetensors").read_bytes()


@pytest.mark.slow
def test_losses_of_a_run_fall(run: Path) -> None:
    rows = [json.loads(line)["parts"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    for name in ("siglip", "local_align", "graph_matching"):
        values = [row[name] for row in rows]
        assert all(math.isfinite(value) for value in values)
        assert np.mean(values[-3:]) < np.mean(values[:3]) or name == "graph_matching", name  # ten steps are few for it


class Stop(Exception):
    """Stands for a crash of the process."""


@pytest.mark.slow
def test_a_crashed_run_resumes_to_the_same_bits(run: Path, recipe: Recipe, manifest: Manifest, tmp_path: Path) -> None:
    def crash(progress: object) -> None:
        if progress.phase.startswith("train") and progress.done == 6:  # type: ignore[attr-defined]
            raise Stop

    with pytest.raises(Stop):
        run_recipe(recipe, manifest, tmp_path / "run", progress=crash)
    run_recipe(recipe, manifest, tmp_path / "run", resume=True)
    assert weights(tmp_path / "run") == weights(run)


def _task(losses: Losses) -> PretrainTask:
    torch.manual_seed(0)
    cfg = model_config("tiny-vit", "tiny-text", vocab_size=30, eos_id=3, embed_dim=16, image_size=24, context_length=6)
    return PretrainTask(build_dual_encoder(cfg), losses)


def _tokens(n: int, seed: int) -> torch.Tensor:
    tokens = torch.from_numpy(np.random.default_rng(seed).integers(5, 30, size=(n, 6)))
    tokens[:, 4], tokens[:, 5] = 3, 0
    return tokens


def _batch(rows: slice) -> dict[str, torch.Tensor]:
    whole = {
        "row": torch.arange(6),
        "image": torch.from_numpy(np.random.default_rng(0).normal(size=(6, 3, 24, 24)).astype(np.float32)),
        "text": _tokens(6, 1),
        "labels": torch.tensor([[1, 0], [0, 1], [math.nan, 1], [1, 1], [0, 0], [-1, 1]]),
        "signature": torch.tensor([0, 1, 2, 3, 0, 5]),
        "view_draw": torch.arange(6),
    }
    return {name: value[rows] for name, value in whole.items()}


def test_micro_batches_give_the_gradient_of_the_whole_batch() -> None:
    found = []
    for parts in ([slice(0, 6)], [slice(0, 2), slice(2, 6)]):
        task = _task(Losses(siglip=SigLipPart(chunk=4), local_align=LocalAlignPart()))
        _forward_backward(task, [_batch(part) for part in parts], {"phrases": _tokens(2, 2)}, nullcontext)
        found.append({name: p.grad for name, p in task.named_parameters() if p.grad is not None})
    assert {"learned.siglip.bias", "learned.siglip.log_scale", "learned.local_align.log_scale"} <= found[0].keys()
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        assert float((found[1][name] - value).abs().max()) <= 2e-6 * float(value.abs().max()) + 1e-9, name


def test_views_are_a_function_of_the_draw_and_reach_the_tower_alone() -> None:
    task = _task(Losses(graph_matching=GraphMatchingPart(dim=16, neighbours=2)))
    first, again = (task.encode(_batch(slice(0, 6))) for _ in range(2))
    assert torch.equal(first["view_second"], again["view_second"])
    assert not torch.equal(first["view_first"], first["view_second"])
    other = {**_batch(slice(0, 6)), "view_draw": torch.arange(6) + 9}
    assert not torch.equal(first["view_first"], task.encode(other)["view_first"])
    _forward_backward(task, [_batch(slice(0, 6))], {}, nullcontext)
    moved = {name.split(".")[1] for name, p in task.named_parameters() if p.grad is not None}
    assert moved == {"visual", "graph_matching"}


@pytest.mark.slow
def test_crops_learn_to_find_each_other() -> None:
    """Images are coarse random patterns; a small transformer learns to match two crops of each."""
    rng = np.random.default_rng(0)
    plain = {"alpha": 1.0, "layers": 0, "edge_weight": 0.6, "temperature": 0.0}
    task = _task(Losses(graph_matching=GraphMatchingPart(dim=16, neighbours=3, area=0.7, **plain)))
    optimizer = torch.optim.Adam(task.parameters(), lr=5e-4)
    patterns = torch.from_numpy(rng.normal(size=(48, 1, 3, 3)).astype(np.float32)).expand(-1, 3, -1, -1)
    images, matched = torch.nn.functional.interpolate(patterns, size=24, mode="bilinear"), []
    for _ in range(70):
        rows = torch.from_numpy(rng.choice(48, size=12, replace=False))
        batch = {"row": rows, "image": images[rows], "view_draw": torch.from_numpy(rng.integers(1 << 31, size=12))}
        batch |= {"labels": torch.zeros(12, 1), "signature": rows}
        optimizer.zero_grad()
        matched.append(float(_forward_backward(task, [batch], {}, nullcontext)[1]["graph_matching.matched"]))
        optimizer.step()
    assert np.mean(matched[-15:]) > np.mean(matched[:15]) + 0.2


def test_what_graph_matching_cannot_do_is_told() -> None:
    with pytest.raises(ConfigError, match="dim is 128, the model embeds in 16; set dim to 16"):
        _forward_backward(_task(Losses(graph_matching=GraphMatchingPart())), [_batch(slice(0, 6))], {}, nullcontext)
    locked = {name: value for name, value in _batch(slice(0, 6)).items() if name != "image"}
    with pytest.raises(ConfigError, match="leave lock_image out"):
        _task(Losses(graph_matching=GraphMatchingPart(dim=16))).encode({**locked, "image_emb": torch.ones(6, 16)})
