"""On a card: bf16 beside float32, compiled towers, shards on one card, resume, images a second and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from kvlp.datasets.manifest import Manifest
from kvlp.models.dual_encoder import build_dual_encoder
from kvlp.models.towers import model_config
from kvlp.training.recipe import load_recipe
from kvlp.training.run import Progress, run_recipe
from kvlp.training.state import latest_state

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

STEPS = 8
SETTINGS = ("save_every=4", "model.image=tiny-vit", f"stages.0.steps={STEPS}", "stages.0.batch_size=8", "evaluation=[]")


def rows(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def trained(manifest: Manifest, out: Path, *settings: str) -> list[dict[str, float]]:
    run_recipe(load_recipe("smoke-cpu", [*SETTINGS, *settings]), manifest, out)
    return rows(out)


def test_bf16_learns_as_float32_does(manifest: Manifest, tmp_path: Path):
    whole = trained(manifest, tmp_path / "fp32", "precision=fp32")
    half = trained(manifest, tmp_path / "bf16", "precision=bf16")
    assert not any(row["skipped"] for row in half)
    np.testing.assert_allclose(half[0]["loss"], whole[0]["loss"], rtol=2e-2)
    assert np.mean([row["loss"] for row in half[-3:]]) < half[0]["loss"]


def test_compiled_towers_say_the_same():
    cfg = model_config("tiny-vit", "tiny-text", vocab_size=30, eos_id=3, embed_dim=16, image_size=24, context_length=6)
    model = build_dual_encoder(cfg).cuda().eval()
    pixels = torch.randn(8, 3, 24, 24, device="cuda")
    with torch.no_grad():
        plain, compiled = model.visual(pixels), torch.compile(model.visual)(pixels)
    torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-5)


def test_a_compiled_run_learns_the_same(manifest: Manifest, tmp_path: Path):
    whole = trained(manifest, tmp_path / "plain", "precision=fp32")
    compiled = trained(manifest, tmp_path / "compiled", "precision=fp32", "compile=true")
    np.testing.assert_allclose([r["loss"] for r in compiled], [r["loss"] for r in whole], rtol=1e-2)


def test_a_cut_run_goes_on_as_near_as_a_card_can(manifest: Manifest, tmp_path: Path):
    whole = trained(manifest, tmp_path / "whole", "precision=fp32", "data.workers=2")

    class Crash(Exception):
        """Stands for the end of the process."""

    def cut(p: Progress) -> None:
        if p.phase.startswith("train") and p.done == 6:
            raise Crash

    recipe = load_recipe("smoke-cpu", [*SETTINGS, "precision=fp32", "data.workers=2"])
    with pytest.raises(Crash):
        run_recipe(recipe, manifest, tmp_path / "cut", progress=cut)
    run_recipe(recipe, manifest, tmp_path / "cut", resume=True)
    np.testing.assert_allclose([r["loss"] for r in rows(tmp_path / "cut")], [r["loss"] for r in whole], rtol=1e-4)
    state = latest_state(tmp_path / "cut" / "states")
    assert state is not None
    assert set(load_file(state / "random.safetensors")) == {"torch", "cuda"}


def test_shards_on_one_card(manifest: Manifest, tmp_path: Path):
    whole = trained(manifest, tmp_path / "whole", "precision=fp32")
    told = [part for setting in (*SETTINGS, "precision=fp32", "parallel=fsdp2") for part in ("--set", setting)]
    data, out = Path(manifest.root) / "manifest.csv", tmp_path / "shards"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1", "-m", "kvlp"]
    done = subprocess.run(
        [*launch, "pretrain", "smoke-cpu", "--data", str(data), "--out", str(out), *told],
        env=dict(os.environ, PYTHONSAFEPATH="1"), capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    np.testing.assert_allclose([r["loss"] for r in rows(out)], [r["loss"] for r in whole], rtol=1e-3)


def test_images_a_second_and_memory(manifest: Manifest, tmp_path: Path):
    """Printed, for the docs (`pytest -m gpu -s`); the limit only tells that the card was used."""
    torch.cuda.reset_peak_memory_stats()
    settings = ("precision=bf16", "model.image=vit-b-16", "model.image_size=224", "stages.0.batch_size=24")
    told = trained(manifest, tmp_path / "run", *settings, "data.workers=2")[3:]
    seconds = np.median([row["data_s"] + row["step_s"] for row in told])
    peak = torch.cuda.max_memory_allocated() / 2**30
    print(f"{torch.cuda.get_device_name()}: {24 / seconds:.0f} images/s, {peak:.1f} GiB at most, batch 24, bf16")
    assert peak > 0.5
