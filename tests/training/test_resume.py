"""A run that was stopped, killed or damaged goes on to the same weights, bit for bit."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from training_small import write_manifest

from kvlp.checkpoint_files import read_exposure
from kvlp.datasets.manifest import Manifest
from kvlp.errors import CheckpointError, ConfigError, DataError
from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.knowledge.names import AND_OTHERS
from kvlp.losses.output import LossOutput
from kvlp.training.objectives import ClipPart, Losses
from kvlp.training.recipe import Recipe, Stage, load_recipe
from kvlp.training.run import Interrupted, Progress, run_recipe
from kvlp.training.state import latest_state
from kvlp.training.task import PretrainTask

WEIGHTS = "open_clip_model.safetensors"


@pytest.fixture(scope="module")
def manifest_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(write_manifest(tmp_path_factory.mktemp("data"), rows=40).root) / "manifest.csv"


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("smoke-cpu", ["save_every=3", "threads=1", "precision=fp32"])


@pytest.fixture(scope="module")
def uninterrupted(manifest_path: Path, recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    run_recipe(recipe, Manifest.load(manifest_path), out)
    return out


def weights(out: Path) -> bytes:
    return (out / "checkpoint" / "open_clip_model.safetensors").read_bytes()


def metrics(out: Path) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("data_s", "step_s")} for row in rows]


class Stop(Exception):
    """Stands for a crash of the process."""


def crash_after(step: int):
    def progress(p: Progress) -> None:
        if p.phase.startswith("train") and p.done == step:
            raise Stop

    return progress


def test_the_run_learns_and_leaves_what_the_design_names(uninterrupted: Path):
    rows = metrics(uninterrupted)
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert np.mean([row["loss"] for row in rows[-3:]]) < np.mean([row["loss"] for row in rows[:3]])
    assert {"clip", "entity", "knowledge"} <= set(rows[0]["parts"])
    card = json.loads((uninterrupted / "checkpoint" / "kvlp.json").read_text())["card"]
    assert {"pleural_effusion", "pneumothorax", "cardiomegaly"} <= set(card["named_concepts"])
    assert (uninterrupted / "recipe.yaml").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 5])
def test_a_crashed_run_resumes_to_the_same_bits(
    step: int, manifest_path: Path, recipe: Recipe, uninterrupted: Path, tmp_path: Path
):
    manifest, out = Manifest.load(manifest_path), tmp_path / "run"
    with pytest.raises(Stop):
        run_recipe(recipe, manifest, out, progress=crash_after(step))
    run_recipe(recipe, manifest, out, resume=True)
    assert weights(out) == weights(uninterrupted)
    assert metrics(out) == metrics(uninterrupted)


@pytest.mark.slow
def test_a_damaged_newest_state_is_passed_over(
    manifest_path: Path, recipe: Recipe, uninterrupted: Path, tmp_path: Path
):
    manifest, out = Manifest.load(manifest_path), tmp_path / "run"
    with pytest.raises(Stop):
        run_recipe(recipe, manifest, out, progress=crash_after(8))
    newest = latest_state(out / "states")
    assert newest is not None
    assert newest.name.endswith("00000006")
    content = bytearray((newest / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (newest / "weights.safetensors").write_bytes(content)
    assert latest_state(out / "states").name.endswith("00000003")  # type: ignore[union-attr]
    run_recipe(recipe, manifest, out, resume=True)
    assert weights(out) == weights(uninterrupted)


@pytest.mark.slow
def test_sigterm_writes_the_state_and_resume_is_exact(
    manifest_path: Path, recipe: Recipe, uninterrupted: Path, tmp_path: Path
):
    def terminate(p: Progress) -> None:
        if p.phase.startswith("train") and p.done == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    manifest, out = Manifest.load(manifest_path), tmp_path / "run"
    with pytest.raises(Interrupted, match=r"stopped after step [56] of 12; go on with --resume"):
        run_recipe(recipe, manifest, out, progress=terminate)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    run_recipe(recipe, manifest, out, resume=True)
    assert weights(out) == weights(uninterrupted)


def test_a_run_is_never_written_over(manifest_path: Path, recipe: Recipe, uninterrupted: Path):
    manifest = Manifest.load(manifest_path)
    with pytest.raises(ConfigError, match="already holds a run; add --resume"):
        run_recipe(recipe, manifest, uninterrupted)
    other = recipe.model_copy(update={"seed": 1})
    with pytest.raises(ConfigError, match="another recipe or of other data"):
        run_recipe(other, manifest, uninterrupted, resume=True)


def test_data_that_cannot_be_trained_on_is_named(manifest_path: Path, recipe: Recipe, tmp_path: Path):
    manifest = Manifest.load(manifest_path)
    with pytest.raises(DataError, match="no record has split 'dev'"):
        run_recipe(
            recipe.model_copy(update={"data": recipe.data.model_copy(update={"split": "dev"})}),
            manifest,
            tmp_path / "a",
        )
    folder = tmp_path / "broken"
    folder.mkdir()
    manifest = write_manifest(folder, rows=12)
    (folder / "003.png").write_bytes((folder / "003.png").read_bytes()[:60])
    with pytest.raises(DataError, match="got 1 of 12 that are not; first, row 4"):
        run_recipe(recipe, manifest, tmp_path / "b")


def test_a_start_that_is_no_checkpoint_is_refused(manifest_path: Path, recipe: Recipe, tmp_path: Path):
    started = recipe.model_copy(update={"model": recipe.model.model_copy(update={"start": str(tmp_path)})})
    with pytest.raises(CheckpointError):
        run_recipe(started, Manifest.load(manifest_path), tmp_path / "run")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kill_9_during_pretraining_then_resume_gives_the_same_bits(manifest_path: Path, tmp_path: Path):
    """A real process, killed at random moments, also inside a save; each time it goes on."""
    settings = ["save_every=1", "threads=1", "precision=fp32", "stages.0.steps=30"]
    command = [
        str(Path(sys.executable).parent / "kvlp"),
        "pretrain",
        "smoke-cpu",
        "--data",
        str(manifest_path),
        "--json",
    ]
    command += [part for s in settings for part in ("--set", s)]
    subprocess.run([*command, "--out", str(tmp_path / "whole")], check=True, capture_output=True)
    rng, kills, out = np.random.default_rng(0), 0, tmp_path / "killed"
    while not (out / "checkpoint").is_dir():
        started = out.exists()
        process = subprocess.Popen(
            [*command, "--out", str(out), *(["--resume"] if started else [])],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip
        before = latest_state(out / "states")
        while process.poll() is None and latest_state(out / "states") == before:
            time.sleep(0.01)
        time.sleep(float(rng.uniform(0, 0.4)))
        if process.poll() is None and kills < 8:
            process.send_signal(signal.SIGKILL)
            kills += 1
        _, errors = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), errors.decode()
    assert kills >= 3
    assert weights(out) == weights(tmp_path / "whole")


def test_the_checkpoint_tells_the_images_it_was_trained_on(uninterrupted: Path, manifest_path: Path):
    import pyarrow as pa

    with pa.memory_map(str(uninterrupted / "checkpoint" / "exposure.arrow")) as source:
        told = pa.ipc.open_file(source).read_all()["sha256"].to_pylist()
    pixels = [np.asarray(Image.open(path)) for path in sorted(manifest_path.parent.glob("*.png"))]
    assert told == sorted(hashlib.sha256(b"(48, 48)" + grey.tobytes()).hexdigest() for grey in pixels)


@pytest.mark.slow
def test_a_run_that_begins_from_a_model_tells_of_its_images_and_names_too(
    uninterrupted: Path, manifest_path: Path, tmp_path: Path
):
    start = uninterrupted / "checkpoint"
    before, named = read_exposure(start / "exposure.arrow"), "lung_cavity"
    pixels = np.random.default_rng(9).integers(0, 256, size=(4, 48, 48), dtype=np.uint8)
    lines = ["id,image,text,patient_id,split"]
    for i, grey in enumerate(pixels):
        Image.fromarray(grey).save(tmp_path / f"{i}.png")
        lines.append(f'{i},{i}.png,"There is a lung cavity.",p{i},train')
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = [
        "threads=1",
        "precision=fp32",
        f"model.start={start}",
        "stages.0.steps=1",
        "stages.0.losses.entity=null",
    ]
    manifest = Manifest.load(tmp_path / "manifest.csv")
    after = run_recipe(load_recipe("smoke-cpu", settings), manifest, tmp_path / "run")
    own = {hashlib.sha256(b"(48, 48)" + grey.tobytes()).hexdigest() for grey in pixels}
    assert read_exposure(after / "exposure.arrow") == before | own
    assert {named, "pneumothorax"} <= set(json.loads((after / "kvlp.json").read_text())["card"]["named_concepts"])
    silent = tmp_path / "silent"
    shutil.copytree(start, silent)
    (silent / "exposure.arrow").unlink()
    about = json.loads((silent / "kvlp.json").read_text())
    del about["card"]["named_concepts"]
    (silent / "kvlp.json").write_text(json.dumps(about))
    recipe = load_recipe("smoke-cpu", [*settings, f"model.start={silent}"])
    unsure = run_recipe(recipe, manifest, tmp_path / "unsure")
    assert not (unsure / "exposure.arrow").exists()
    card = json.loads((unsure / "kvlp.json").read_text())["card"]
    assert card["exposure"].startswith("not known")
    assert set(card["named_concepts"]) == {named, AND_OTHERS}


def test_states_that_no_run_tells_of_are_not_continued(uninterrupted: Path, manifest_path: Path, recipe, tmp_path):
    shutil.copytree(uninterrupted / "states", tmp_path / "run" / "states")
    with pytest.raises(ConfigError, match=r"holds states of a run that run\.json does not tell of; choose another"):
        run_recipe(recipe, Manifest.load(manifest_path), tmp_path / "run")


@pytest.mark.slow
def test_a_transformers_text_tower_trains_by_name_and_loads_in_open_clip(manifest_path: Path, tmp_path: Path):
    import open_clip

    import kvlp

    recipe = load_recipe("smoke-cpu", ["threads=1", "precision=fp32", "model.text=tiny-bert", "stages.0.steps=2"])
    folder = run_recipe(recipe, Manifest.load(manifest_path), tmp_path / "run")
    ours = kvlp.load(folder).encode_text(["no pleural effusion", "pneumothorax"])
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")(["no pleural effusion", "pneumothorax"])
    with torch.no_grad():
        theirs = model.encode_text(tokens, normalize=True)
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_folder_of_a_transformers_encoder_gives_its_weights_and_its_tokenizer(manifest_path: Path, tmp_path: Path):
    from transformers import BertConfig, BertModel

    from kvlp.tokenizers import build_tokenizer
    from kvlp.training.setup import prepare

    tokenizer = build_tokenizer([], KnowledgeGraph.load("chest"), vocab_size=400)
    tokenizer.save_pretrained(tmp_path / "bert")
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_attention_heads=2, num_hidden_layers=1, intermediate_size=48
    )
    bert = BertModel(config, add_pooling_layer=False)
    bert.save_pretrained(tmp_path / "bert")
    recipe = load_recipe("smoke-cpu", [f"model.text={tmp_path / 'bert'}"])
    (tmp_path / "run").mkdir()
    prepared = prepare(recipe, Manifest.load(manifest_path), tmp_path / "run", lambda *_: None)
    words = prepared.model.text.transformer.embeddings.word_embeddings.weight
    torch.testing.assert_close(words.detach(), bert.embeddings.word_embeddings.weight.detach())
    assert prepared.tokenizer.get_vocab() == tokenizer.get_vocab()


LOCKED = Stage(
    name="lock", steps=6, batch_size=8, accumulate=2, lock_image=True, lr=1e-2, losses=Losses(clip=ClipPart())
)


@pytest.mark.slow
def test_a_locked_image_tower_stays_as_it_was_while_texts_learn(recipe: Recipe, manifest_path: Path, tmp_path: Path):
    first, second = (stage.model_copy(update={"steps": 2}) for stage in (recipe.stages[-1], LOCKED))
    manifest = Manifest.load(manifest_path)
    before = load_file(run_recipe(replace_stages(recipe, first), manifest, tmp_path / "a") / WEIGHTS)
    after = load_file(run_recipe(replace_stages(recipe, first, second), manifest, tmp_path / "b") / WEIGHTS)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not {name for name in changed if name.startswith("visual.")}
    assert {name for name in before if name.startswith("text.")} - changed == set()


@pytest.mark.slow
def test_a_locked_stage_resumes_to_the_bit(recipe: Recipe, manifest_path: Path, tmp_path: Path):
    stages = replace_stages(recipe, LOCKED).model_copy(update={"save_every": 2})
    manifest = Manifest.load(manifest_path)
    whole = run_recipe(stages, manifest, tmp_path / "whole") / WEIGHTS

    def stop(progress: Progress) -> None:
        if progress.phase == "train lock" and progress.done == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        run_recipe(stages, manifest, tmp_path / "cut", progress=stop)
    assert (run_recipe(stages, manifest, tmp_path / "cut", resume=True) / WEIGHTS).read_bytes() == whole.read_bytes()


def replace_stages(recipe: Recipe, *stages: Stage) -> Recipe:
    return recipe.model_copy(update={"stages": stages})


@pytest.mark.slow
def test_a_step_that_is_not_finite_is_told_with_its_rows_and_the_run_goes_on(
    recipe: Recipe, manifest_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    real, steps = PretrainTask.loss, []

    def broken(self: PretrainTask, *inputs: dict[str, torch.Tensor]) -> LossOutput:
        steps.append(inputs[1]["row"].tolist())
        output = real(self, *inputs)
        return replace(output, total=output.total * math.nan) if len(steps) == 2 else output

    monkeypatch.setattr(PretrainTask, "loss", broken)
    manifest = Manifest.load(manifest_path)
    run_recipe(recipe, manifest, tmp_path / "run")
    rows = metrics(tmp_path / "run")
    assert [row["step"] for row in rows if row["skipped"]] == [2]
    keys = [hashlib.sha256(record.id.encode()).hexdigest()[:12] for record in manifest]
    assert rows[1]["skipped_rows"] == [keys[i] for i in steps[1]]
    assert [row["step"] for row in rows if "skipped_rows" in row] == [2]
    assert len(rows) == 12
    assert all(1 <= row["logit_scale"] <= 100 for row in rows)
