"""`compile: true`: blocks of the towers compiled in place; the same losses and checkpoint, one line where it fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import kvlp
from kvlp.datasets.manifest import Manifest
from kvlp.errors import ConfigError
from kvlp.models.dual_encoder import build_dual_encoder
from kvlp.models.towers import model_config
from kvlp.training.compiled import compile_blocks
from kvlp.training.ranks import Ranks
from kvlp.training.recipe import load_recipe
from kvlp.training.run import run_recipe
from kvlp.training.sharded import blocks_of

SETTINGS = (
    "threads=1", "precision=fp32", "save_every=2", "model.image=tiny-vit", "model.image_size=24", "model.embed_dim=16",
    "tokenizer.vocab_size=400", "stages.0.steps=4", "stages.0.batch_size=8", "stages.0.losses={clip: {}}",
    "data.augment=false", "evaluation=[]",
)  # fmt: skip


def model(image: str = "tiny-vit") -> torch.nn.Module:
    cfg = model_config(image, "tiny-text", vocab_size=30, eos_id=3, embed_dim=16, image_size=24, context_length=6)
    return build_dual_encoder(cfg)


def compiled(module: torch.nn.Module) -> list[bool]:
    return [getattr(block, "_compiled_call_impl", None) is not None for block in blocks_of(module)]


@pytest.fixture
def works(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile that hands everything back."""
    monkeypatch.setattr(torch, "compile", lambda f, **_: f)


def test_blocks_are_marked_and_tensors_keep_their_names(works: None) -> None:
    one = model()
    names = set(one.state_dict())
    assert not any(compiled(one))
    compile_blocks(one, load_recipe("smoke-cpu", ["compile=true"]), Ranks())
    found = compiled(one)
    assert len(found) >= 4
    assert all(found)
    assert set(one.state_dict()) == names


def test_what_does_not_go_with_it_is_one_line(works: None, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe("smoke-cpu", ["compile=true"])
    assert load_recipe("smoke-cpu").compile is False
    with pytest.raises(ConfigError, match="compile does not go with parallel fsdp2; set parallel to ddp"):
        compile_blocks(model(), recipe.model_copy(update={"parallel": "fsdp2"}), Ranks())
    with pytest.raises(ConfigError, match="compile: 2 processes take the statistics of batch norm together"):
        compile_blocks(model("tiny-cnn"), recipe, Ranks(0, 2))
    compile_blocks(model(), recipe, Ranks(0, 2))
    with pytest.raises(ConfigError, match="compile: no blocks are known"):
        compile_blocks(torch.nn.Linear(2, 2), recipe, Ranks())

    def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no compiler") from FileNotFoundError("g++")

    monkeypatch.setattr(torch, "compile", fails)
    with pytest.raises(
        ConfigError, match=r"cannot compile here \(FileNotFoundError\); it needs a C\+\+ compiler"
    ) as told:
        compile_blocks(model(), recipe, Ranks())
    assert "\n" not in str(told.value)


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")  # torch's own while it compiles
def test_a_plain_run_is_gone_on_with_compiled_and_learns_the_same(manifest: Manifest, tmp_path: Path) -> None:
    """With inductor on the processor; skipped where there is no C++ compiler."""
    run_recipe(load_recipe("smoke-cpu", [*SETTINGS]), manifest, tmp_path / "plain")

    class Crash(Exception):
        """Stands for the end of the process."""

    def cut(p: Any) -> None:
        if p.phase.startswith("train") and p.done == 3:
            raise Crash

    with pytest.raises(Crash):
        run_recipe(load_recipe("smoke-cpu", [*SETTINGS]), manifest, tmp_path / "cut", progress=cut)
    try:
        run_recipe(load_recipe("smoke-cpu", [*SETTINGS, "compile=true"]), manifest, tmp_path / "cut", resume=True)
    except ConfigError as error:
        pytest.skip(str(error))
    assert len(losses(tmp_path / "cut")) == 4
    np.testing.assert_allclose(losses(tmp_path / "cut"), losses(tmp_path / "plain"), rtol=2e-4)
    weights = [load_file(tmp_path / n / "checkpoint" / "open_clip_model.safetensors") for n in ("plain", "cut")]
    assert weights[0].keys() == weights[1].keys()
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=0.05, atol=2e-3, msg=name)
    assert kvlp.load(tmp_path / "cut" / "checkpoint").encode_text(["No mass."]).shape == (1, 16)
