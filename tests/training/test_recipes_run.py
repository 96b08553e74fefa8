"""Shipped recipes in small on the phantom: each runs, stage by stage, and its losses fall."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kvlp.checkpoints import load
from kvlp.datasets.manifest import Manifest
from kvlp.datasets.phantom import generate_phantom
from kvlp.training.recipe import load_recipe
from kvlp.training.run import VALIDATION, run_recipe

SMALL = [
    "model.image=tiny-cnn", "model.text=tiny-text", "model.embed_dim=64", "model.image_size=64",
    "model.projection=linear", "tokenizer.vocab_size=1000", "tokenizer.min_patients=2", "tokenizer.context_length=48",
    "knowledge.min_patients=2", "threads=1", "save_every=1000",
]  # fmt: skip
NAMES = (
    "clip-baseline", "clip-cxr-real", "cxr-real-cpu", "kad", "kad-1024", "kad-512", "kad-cxr-real", "kad-phantom",
    "motor", "motor-phantom", "negation-phantom", "no-graph", "phantom-cpu", "phantom-cpu-shuffled", "shuffled-graph",
    "shuffled-reports",
)  # fmt: skip


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("phantom")
    generate_phantom(folder, patients=60, seed=0, size=64)
    return Manifest.load(folder / "manifest.csv")


def in_small(name: str, steps: int = 24) -> list[str]:
    recipe = load_recipe(name)
    settings = list(SMALL)
    for number, stage in enumerate(recipe.stages):
        here = f"stages.{number}"
        settings += [f"{here}.epochs=0", f"{here}.steps={steps}", f"{here}.batch_size=16", f"{here}.accumulate=1"]
        settings += [f"{here}.lr={max(stage.lr, 1e-3)}"]
    if recipe.query_network is not None:
        settings += ["query_network.ffn=64", "query_network.dropout=0"]
    if recipe.report_decoder is not None:
        last = f"stages.{len(recipe.stages) - 1}.losses"
        settings += [f"report_decoder.{key}" for key in ("width=32", "heads=2", "layers=1", "knowledge_layers=1")]
        settings += [f"{last}.momentum.queue=32", f"{last}.motor.refresh=8", "tokenizer.context_length=64"]
    if recipe.validation is not None:
        settings += ["validation.every=10"]
    return settings


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_trains_in_small(name: str, manifest: Manifest, tmp_path: Path):
    recipe = load_recipe(name, in_small(name))
    run_recipe(recipe, manifest, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert not any(row["skipped"] for row in rows)
    for stage in ("knowledge", "align"):
        losses = [row["loss"] for row in rows if row["name"] == stage]
        if losses:
            assert np.mean(losses[-8:]) < np.mean(losses[:8]), stage
    model = load(tmp_path / "run" / "checkpoint")
    assert ("query_network" in model.card) == (recipe.query_network is not None)
    assert ("report_decoder" in model.card) == (recipe.report_decoder is not None)
    assert (tmp_path / "run" / VALIDATION).exists() == (recipe.validation is not None)
