"""Momentum contrast in a run: queues fill from nothing, the copies' share rises, skipped steps leave no trace."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kvlp.datasets.manifest import Manifest, Record
from kvlp.training.groups import row_groups
from kvlp.training.loop import train_steps
from kvlp.training.recipe import Recipe, load_recipe
from kvlp.training.run import run_recipe
from kvlp.training.setup import Prepared, prepare
from kvlp.training.task import PretrainTask

SENTENCES = [
    "There is a left pleural effusion. No pneumothorax.",
    "Right pneumothorax. Heart size is normal.",
    "The heart is enlarged. No pleural effusion or pneumothorax.",
    "No pleural effusion. No pneumothorax. Heart size is normal.",
]
ROWS, BATCH = 24, 8


def recipe(*more: str) -> Recipe:
    settings = [
        "threads=1", "precision=fp32", "stages.0.losses.clip=null", "stages.0.losses.entity=null", "save_every=3",
        "stages.0.losses.knowledge=null", "stages.0.losses.momentum={queue: 20, momentum: 0.9}", "stages.0.steps=7",
        f"stages.0.batch_size={BATCH}", "data.augment=false",
    ]  # fmt: skip
    return load_recipe("smoke-cpu", [*settings, *more])


@pytest.fixture(scope="module")
def manifest(noise_manifest: Callable[[Sequence[str]], Manifest]) -> Manifest:
    return noise_manifest(SENTENCES)


@pytest.fixture(scope="module")
def prepared(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(recipe(), manifest, tmp_path_factory.mktemp("prepared"), lambda *_: None)


def batch_of(prepared: Prepared, indices: Sequence[int]) -> dict[str, torch.Tensor]:
    numbers, texts = np.array(indices), prepared.rows.texts
    return {
        "row": torch.from_numpy(numbers),
        "image": prepared.normalise(torch.from_numpy(np.array(prepared.rows.pixels[numbers]))),
        "text": prepared.tokenize([texts.sample(i, np.random.default_rng(i), 0) for i in indices]),
        "labels": torch.from_numpy(texts.labels[numbers]),
        "signature": torch.from_numpy(texts.signature[numbers]),
    }


def stepped(prepared: Prepared, batches: list[dict[str, torch.Tensor]]) -> tuple[PretrainTask, list[Any]]:
    losses = recipe().stages[0].losses
    task = PretrainTask(deepcopy(prepared.model), losses, sources=prepared.sources).train()
    optimizer = torch.optim.SGD([p for p in task.parameters() if p.requires_grad], lr=0.0)
    steps = [([batch], {}) for batch in batches]
    return task, list(train_steps(task, steps, optimizer, lambda _: 0.0, autocast=nullcontext))


def test_queues_fill_from_nothing_and_the_share_rises_over_the_first_epoch(prepared: Prepared) -> None:
    batches = [batch_of(prepared, range(i, i + BATCH)) for i in (0, 8, 16, 0)]
    task, infos = stepped(prepared, batches)
    assert [info.parts["momentum.held"] for info in infos] == [0, 8, 16, 20]
    memory: Any = task.memories["momentum"]
    assert memory.share == 1.0  # 32 rows pushed of 24
    memory.images.pushed.fill_(6)
    assert memory.share == 6 / ROWS
    newest = memory.texts.rows()
    assert newest.keys[-BATCH:].tolist() == batches[-1]["signature"].tolist()
    torch.testing.assert_close(
        newest.emb[-BATCH:], memory.model(lambda m: m.encode_text(batches[-1]["text"], normalize=True))
    )


def test_a_step_that_is_not_taken_leaves_nothing_behind(prepared: Prepared) -> None:
    good, bad = batch_of(prepared, range(BATCH)), batch_of(prepared, range(8, 16))
    bad["image"] = torch.full_like(bad["image"], math.nan)
    task, infos = stepped(prepared, [good, bad, good])
    assert [info.skipped for info in infos] == [False, True, False]
    memory: Any = task.memories["momentum"]
    assert len(memory.images) == 2 * BATCH
    assert memory.images.rows().emb.isfinite().all()


def test_rows_that_say_the_same_are_told_apart_in_batch_and_queue(prepared: Prepared) -> None:
    """Report 0 and its like, four rows on, are no negatives: with them alone the loss has nothing to push against."""
    alike = [0, 4, 8, 12]
    _, infos = stepped(prepared, [batch_of(prepared, alike)] * 2)
    assert [info.parts["momentum.held"] for info in infos] == [0, 4]
    assert [info.loss for info in infos] == [0, 0]


@pytest.mark.slow
def test_a_crashed_run_resumes_to_the_same_bits(manifest: Manifest, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def crash(progress: Any) -> None:
        if progress.phase.startswith("train") and progress.done == 5:
            raise Stop

    settings = recipe("stages.0.accumulate=2", "stages.0.batch_size=4")
    whole = run_recipe(settings, manifest, tmp_path / "whole")
    with pytest.raises(Stop):
        run_recipe(settings, manifest, tmp_path / "cut", progress=crash)
    cut = run_recipe(settings, manifest, tmp_path / "cut", resume=True)
    for name in ("open_clip_model.safetensors",):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()
    assert not (whole / "kvlp_extra.safetensors").exists()  # copies and queues are the run's, not the model's
    losses = [json.loads(line)["loss"] for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 7
    assert all(map(math.isfinite, losses))


def test_rows_of_one_patient_or_study_are_one_group() -> None:
    def row(name: str, patient: str = "", study: str = "") -> Record:
        return Record(id=name, image=Path("x.png"), patient_id=patient, study_id=study)

    rows = [
        row("a", "p1"), row("b", "p2", "s1"), row("c"), row("d", "", "s1"), row("e", "p1", "s2"), row("f"),
        row("g", "p3", "s2"),
    ]  # fmt: skip
    assert row_groups(rows) == (0, 1, 2, 1, 0, 5, 0)
    late = [row("a", "p1"), row("b", "p2"), row("c", "p1", "s"), row("d", "p2", "s")]
    assert len(set(row_groups(late))) == 1  # one study of two patients: better too wide than too narrow
