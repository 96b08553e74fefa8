"""Studies of one, two and three views as one sample each: what a batch holds, what is pooled, and the gradient."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from kvlp.datasets.manifest import Manifest, Record
from kvlp.errors import ConfigError
from kvlp.models.dual_encoder import build_dual_encoder
from kvlp.models.towers import model_config
from kvlp.training.data import Batches, TrainingRows
from kvlp.training.loop import _forward_backward
from kvlp.training.objectives import ClipPart, EntityPart, Losses
from kvlp.training.recipe import load_recipe
from kvlp.training.run import run_recipe
from kvlp.training.task import PretrainTask
from kvlp.training.texts import TextRows
from kvlp.training.views import pool_views, study_rows, with_study_reports

#: patient, study, report: a study of two views whose report stands with the second, one of three, one of one
ROWS = [("p1", "s1", ""), ("p2", "s1", "No effusion."), ("p1", "s1", "Pneumothorax."), ("p2", "s1", "No effusion."),
        ("p3", "", "Large heart."), ("p2", "s1", "")]  # fmt: skip


def manifest_of(rows: list[tuple[str, str, str]]) -> Manifest:
    return Manifest(
        Record(str(i), f"{i}.png", text=text, patient_id=patient, study_id=study)
        for i, (patient, study, text) in enumerate(rows)
    )


def batches_of(batch_size: int, **settings) -> Batches:
    manifest = with_study_reports(manifest_of(ROWS))
    said = [record.report for record in manifest]
    texts = TextRows(
        slots=tuple(((text,),) for text in said), weights=tuple(np.ones(1) for _ in said), classes=("x",),
        labels=np.arange(len(said), dtype=np.float32)[:, None], named=frozenset(),
        signature=np.unique(said, return_inverse=True)[1],
    )  # fmt: skip
    pixels = np.arange(len(said), dtype=np.uint8)[:, None, None].repeat(24, 1).repeat(24, 2)
    words = sorted(set(said))
    return Batches(
        rows=TrainingRows(pixels, texts, said, study_rows(manifest)),
        tokenize=lambda asked: torch.tensor([[words.index(text) + 5, 3] for text in asked]),
        normalise=lambda squares: squares.float()[:, None].expand(-1, 3, -1, -1),
        batch_size=batch_size, accumulate=1, seed=(0, 0), max_sentences=0, augmented=False, **settings,
    )  # fmt: skip


def test_a_study_is_told_by_its_first_report_and_one_without_an_id_is_its_own():
    manifest = with_study_reports(manifest_of(ROWS))
    said = ["Pneumothorax.", "No effusion.", "Pneumothorax.", "No effusion.", "Large heart.", "No effusion."]
    assert [record.report for record in manifest] == said
    assert [rows.tolist() for rows in study_rows(manifest)] == [[0, 2], [1, 3, 5], [4]]


def test_each_view_comes_once_an_epoch_with_its_study_and_one_report():
    batches = batches_of(2)
    assert batches.steps_per_epoch == 2
    shown = []
    for micro, _ in batches.steps(0, 2):
        batch = micro[0]
        assert len(batch["text"]) == len(batch["views"]) == len(batch["row"]) == len(batch["labels"])
        pixels = batch["image"][:, 0, 0, 0].int().tolist()
        assert len(pixels) == int(batch["views"].sum())
        for study, row in zip(torch.tensor(pixels).split(batch["views"].tolist()), batch["row"].tolist(), strict=True):
            assert study.tolist() == {0: [0, 2], 1: [1, 3, 5], 4: [4]}[row]
        assert len(set(batch["signature"].tolist())) == len(batch["row"])  # no study stands against itself
        shown += pixels
    assert sorted(shown) == [0, 1, 2, 3, 4, 5]


def test_parts_of_several_processes_are_the_batch_of_one():
    whole = batches_of(3, image_features=None)[0][0][0]
    parts = [batches_of(3, share=(k, 2))[0][0][0] for k in range(2)]
    for name, value in whole.items():
        assert torch.equal(torch.cat([part[name] for part in parts]), value), name


def test_pooling_by_hand():
    emb = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], requires_grad=True)
    found = pool_views({"image_emb": emb, "image_raw": 2 * emb.detach()}, torch.tensor([2, 1]))
    half = 0.5**0.5
    torch.testing.assert_close(found["image_emb"], torch.tensor([[half, half], [0.6, 0.8]]))
    torch.testing.assert_close(found["image_raw"], torch.tensor([[1.0, 1.0], [1.2, 1.6]]))
    found["image_emb"][0, 0].backward()
    assert emb.grad is not None
    torch.testing.assert_close(emb.grad, torch.tensor([[half / 2, -half / 2], [half / 2, -half / 2], [0.0, 0.0]]))


def test_micro_batches_of_studies_give_the_gradient_of_the_whole_batch():
    def gradient(accumulate: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        sizes = {"vocab_size": 30, "eos_id": 3, "embed_dim": 16, "image_size": 24, "context_length": 6}
        model = build_dual_encoder(model_config("tiny-vit", "tiny-text", **sizes))
        task = PretrainTask(model, Losses(clip=ClipPart(), entity=EntityPart()))
        batches = batches_of(3 // accumulate)
        batches.accumulate = accumulate
        micro, _ = batches[0]
        assert sum(int(batch["views"].sum()) for batch in micro) == 6
        _forward_backward(task, micro, {"prompts": torch.tensor([[7, 3], [8, 3]])}, nullcontext)
        return {name: p.grad for name, p in task.named_parameters() if p.grad is not None}

    whole, parts = gradient(1), gradient(3)
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        assert (parts[name] - value).abs().max() <= 2e-6 * value.abs().max() + 1e-9, name


def test_a_loss_on_single_images_is_refused():
    with pytest.raises(ConfigError, match=r"stage 'align': the loss query works on single images.*data\.views to one"):
        load_recipe("kad-phantom", ["data.views=all"])
    assert load_recipe("phantom-cpu", ["data.views=all"]).data.views == "all"


@pytest.mark.slow
def test_a_run_on_studies_of_which_one_view_has_the_report(noise_manifest, tmp_path: Path):
    sentences = ["There is a left pleural effusion.", "Right pneumothorax.", "The heart is enlarged.", "No effusion."]
    manifest = noise_manifest(sentences)
    settings = ["threads=1", "precision=fp32", "knowledge.min_patients=2", "data.max_sentences=0", "data.augment=true"]
    settings += ["stages.0.steps=3", "stages.0.batch_size=6", "data.views=all", "data.workers=1"]
    recipe = load_recipe("smoke-cpu", settings)
    paired = Manifest(
        (Record(r.id, r.image, text=r.text if i % 2 else "", patient_id=r.patient_id, study_id="s", split="train")
         for i, r in enumerate(manifest)), manifest.root,
    )  # fmt: skip
    folder = run_recipe(recipe, paired, tmp_path / "paired")
    lines = (tmp_path / "paired" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 3
    assert len(load_file(folder / "open_clip_model.safetensors")) > 50
    assert not (tmp_path / "paired" / "skipped.jsonl").exists()  # a view without a report has its study's
