"""Adapters: what gets one, that nothing else of the towers learns, and that merged weights are plain and the same."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import kvlp
from kvlp.errors import ConfigError, MissingExtraError
from kvlp.models.dual_encoder import build_dual_encoder
from kvlp.models.towers import model_config
from kvlp.training.lora import Adapters, LoraPart, is_adapter
from kvlp.training.optimizer import choose_trained, rate_scales
from kvlp.training.recipe import Stage, load_recipe
from kvlp.training.run import Progress, run_recipe
from kvlp.training.task import PretrainTask

pytest.importorskip("peft")

PIXELS, TOKENS = torch.randn(3, 3, 24, 24), torch.randint(4, 30, (3, 6))


def built(image: str = "tiny-vit", text: str = "tiny-bert") -> Any:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 30, "eos_id": 3, "embed_dim": 16, "image_size": 24, "context_length": 6}
    return build_dual_encoder(model_config(image, text, **sizes)).eval()


def said(model: Any) -> list[torch.Tensor]:
    model.eval()
    with torch.no_grad():
        return [model.encode_image(PIXELS), model.encode_text(TOKENS)]


def adapted_layers(model: Any) -> set[str]:
    return {name.split(".lora_A")[0] for name, _ in model.named_parameters() if ".lora_A." in name}


def test_adapters_begin_as_nothing_and_are_merged_to_plain_weights():
    model = built()
    names, before = list(model.state_dict()), said(model)
    adapters = Adapters(model, LoraPart(rank=2, alpha=4), seed=0)
    for now, then in zip(said(model), before, strict=True):
        torch.testing.assert_close(now, then, rtol=0, atol=1e-6)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_()
    beside = said(model)
    adapters.merge()
    assert sorted(model.state_dict()) == sorted(names)
    for merged, adapted, then in zip(said(model), beside, before, strict=True):
        torch.testing.assert_close(merged, adapted, rtol=1e-4, atol=1e-4)
        assert (merged - then).abs().max() > 1e-3


def test_of_the_towers_only_adapters_learn():
    model = built()
    Adapters(model, LoraPart(rank=2), seed=0)
    stage = Stage(steps=1, image_layer_decay=0.5, freeze_text_blocks=1)
    still = choose_trained(model, stage)
    rates = rate_scales(PretrainTask(model, stage.losses), stage)
    assert {name for name in rates if not is_adapter(name)} == {"model.logit_scale"}
    assert {rate for name, rate in rates.items() if "resblocks.0." in name} == {0.0625}
    assert not [name for name in rates if "text.transformer.encoder.layer.0." in name]
    assert [name for name in rates if "text.transformer.encoder.layer.1." in name]
    assert model.visual.ln_post in still
    assert model.visual not in still


def test_by_default_the_linear_layers_and_attentions_of_the_blocks_are_adapted_or_else_convolutions():
    vit, cnn = built(), built("tiny-cnn", "tiny-text")
    Adapters(vit, LoraPart(rank=1, towers="image"), seed=0)
    inner = {f"visual.transformer.resblocks.{i}.{part}" for i in range(4) for part in ("mlp.c_fc", "mlp.c_proj")}
    attention = {f"visual.transformer.resblocks.{i}.attn" for i in range(4)}
    assert adapted_layers(vit) == inner | attention | {f"{name}.base_layer.out_proj" for name in attention}
    Adapters(cnn, LoraPart(rank=1, towers="image"), seed=0)
    found = adapted_layers(cnn)
    assert all(name.startswith("visual.trunk.stages.") for name in found)
    assert "visual.trunk.stages.1.0.conv1_1x1.conv" in found


def test_targets_are_ends_of_names_and_a_wrong_one_is_answered_with_those_there_are():
    model = built()
    Adapters(model, LoraPart(rank=1, targets=("query", "1.mlp.c_fc")), seed=0)
    text = {f"text.transformer.encoder.layer.{i}.attention.self.query" for i in range(2)}
    assert adapted_layers(model) == {*text, "visual.transformer.resblocks.1.mlp.c_fc"}
    with pytest.raises(ConfigError, match="no layer of the towers ends in qvk; there are attn, c_fc, c_proj"):
        Adapters(built(), LoraPart(targets=("qvk",), towers="image"), seed=0)


def test_texts_alone_need_an_adapted_text_tower():
    with pytest.raises(ConfigError, match=r"stage 'knowledge' has texts alone.*set lora\.towers to both"):
        load_recipe("phantom-cpu", ["lora={towers: image}"])


def test_without_peft_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"peft is not installed; install it with: pip install 'kvlp\[lora\]'"):
        Adapters(built(), LoraPart(), seed=0)


class Stop(Exception):
    """Stands for a crash of the process."""


@pytest.mark.slow
@pytest.mark.parametrize("towers", ["tiny-vit tiny-bert", "tiny-cnn tiny-text"])
def test_a_run_with_adapters_ends_in_a_plain_checkpoint_and_resumes_to_the_bit(towers: str, manifest, tmp_path: Path):
    import open_clip
    from peft import PeftModel

    image, text = towers.split()
    settings = ["threads=1", "precision=fp32", "save_every=2", "stages.0.steps=6", f"model.image={image}"]
    settings += [f"model.text={text}", "knowledge.min_patients=2"]
    start = run_recipe(load_recipe("smoke-cpu", settings), manifest, tmp_path / "start")
    settings += [f"model.start={start}", "lora={rank: 2, alpha: 8}", "ema=0.5", "grad_checkpointing=both"]
    recipe = load_recipe("smoke-cpu", [*settings, "stages.0.lr=0.05"])
    whole = run_recipe(recipe, manifest, tmp_path / "whole")
    before, after = (load_file(folder / "open_clip_model.safetensors") for folder in (start, whole))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert "logit_scale" in changed
    kinds = ("attn", "attention", "conv", "mlp", "dense", "logit_scale", "num_batches")
    assert all(any(kind in name for kind in kinds) for name in changed)
    assert not [name for name in changed if "norm" in name.lower() or ".bn." in name or name.endswith("bias")]
    model: Any = open_clip.create_model(f"local-dir:{whole}").eval()
    merged = kvlp.load(whole).module
    torch.testing.assert_close(model.state_dict(), merged.state_dict())

    bare: Any = kvlp.load(start).module
    beside: Any = PeftModel.from_pretrained(bare, str(tmp_path / "whole" / "adapter")).eval().base_model.model
    pixels, tokens = torch.randn(2, 3, 48, 48), torch.randint(4, 200, (2, 8))
    with torch.no_grad():
        torch.testing.assert_close(beside.encode_image(pixels), merged.encode_image(pixels), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(beside.encode_text(tokens), merged.encode_text(tokens), rtol=1e-4, atol=1e-5)

    def crash(p: Progress) -> None:
        if p.phase.startswith("train") and p.done == 3:
            raise Stop

    with pytest.raises(Stop):
        run_recipe(recipe, manifest, tmp_path / "cut", progress=crash)
    cut = run_recipe(recipe, manifest, tmp_path / "cut", resume=True)
    name = "open_clip_model.safetensors"
    assert (cut / name).read_bytes() == (whole / name).read_bytes()
