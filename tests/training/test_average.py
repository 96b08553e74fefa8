"""The moving average of the weights: by hand, over the stages of a run, in its states and in its checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from kvlp.errors import ConfigError
from kvlp.models.momentum import FeatureQueue
from kvlp.training.average import WeightAverage
from kvlp.training.recipe import load_recipe
from kvlp.training.run import Progress, run_recipe
from kvlp.training.state import latest_state


def test_by_hand_with_the_decay_that_grows():
    model, head = torch.nn.Linear(1, 1, bias=False), torch.nn.BatchNorm1d(1, affine=False)
    queue = torch.nn.ModuleDict({"rows": FeatureQueue(2, 3)})
    with torch.no_grad():
        model.weight.fill_(0.0)
    average = WeightAverage(model, {"norm": head, "queue": queue}, decay=0.24)
    assert list(average.heads) == ["norm"]
    expected = 0.0
    for taken, weight in enumerate([1.0, 5.0, -2.0], start=1):
        with torch.no_grad():
            model.weight.fill_(weight)
        head(torch.randn(4, 1))
        average.follow(model, {"norm": head, "queue": queue})
        decay = {1: 2 / 11, 2: 0.24, 3: 0.24}[taken]  # 3/12 and 4/13 are above it
        expected = decay * expected + (1 - decay) * weight
    average.give(model, {"norm": head, "queue": queue})
    assert model.weight.item() == pytest.approx(expected)
    assert int(head.num_batches_tracked) == 3


def test_a_decay_that_would_never_move_is_refused():
    for wrong in ("1", "0", "-0.1"):
        with pytest.raises(ConfigError, match="ema: "):
            load_recipe("smoke-cpu", [f"ema={wrong}"])


class Stop(Exception):
    """Stands for a crash of the process."""


@pytest.mark.slow
def test_the_average_is_scored_saved_and_resumed_to_the_bit(manifest, tmp_path: Path):
    wanted = ["threads=1", "precision=fp32", "knowledge.min_patients=2", "save_every=2", "stages.0.steps=6"]
    wanted += ["query_network={layers: 1, heads: 2}", "stages.0.losses.query={weight: 1.0}"]
    recipe = load_recipe("smoke-cpu", [*wanted, "ema=0.9"])
    whole, plain = tmp_path / "whole", tmp_path / "plain"
    run_recipe(recipe, manifest, whole)
    run_recipe(load_recipe("smoke-cpu", wanted), manifest, plain)
    weights = "checkpoint/open_clip_model.safetensors", "checkpoint/kvlp_extra.safetensors"
    saved, extra = (load_file(whole / name) for name in weights)
    state = load_file(latest_state(whole / "states") / "weights.safetensors")  # type: ignore[operator]
    for name, value in saved.items():
        assert torch.equal(value, state[f"average.model.copy.{name}"]), name
    assert not torch.equal(saved["text.text_projection"], state["model.text.text_projection"])
    learned = next(name for name in extra if name.startswith("query."))
    assert torch.equal(extra[learned], state[f"average.heads.query.copy.{learned.removeprefix('query.')}"])

    without = load_file(latest_state(plain / "states") / "weights.safetensors")  # type: ignore[operator]
    assert all(torch.equal(value, state[name]) for name, value in without.items())  # training itself is the same

    def crash(p: Progress) -> None:
        if p.phase.startswith("train") and p.done == 5:
            raise Stop

    with pytest.raises(Stop):
        run_recipe(recipe, manifest, tmp_path / "cut", progress=crash)
    run_recipe(recipe, manifest, tmp_path / "cut", resume=True)
    for name in weights:
        assert (tmp_path / "cut" / name).read_bytes() == (whole / name).read_bytes()
    assert json.loads((whole / "checkpoint/kvlp.json").read_text())["card"]["recipe"]["ema"] == 0.9
