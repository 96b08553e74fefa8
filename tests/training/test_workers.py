"""Batches made by workers: a resumed run, with whatever number of them, ends in the bits of one that was never cut."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kvlp.datasets.manifest import Manifest
from kvlp.errors import DataError
from kvlp.training import run as run_module
from kvlp.training.loop import StepInfo
from kvlp.training.recipe import Recipe, load_recipe
from kvlp.training.run import Progress, run_recipe
from kvlp.training.state import latest_state
from kvlp.training.task import PretrainTask
from kvlp.training.workers import in_order, worker_deaths_named

#: 24 rows in batches of 2 x 5: two steps an epoch, so that seven steps end three epochs
STEPS, PER_EPOCH, ROWS = 7, 2, 24
SETTINGS = (
    "threads=1", "precision=fp32", "save_every=2", "data.augment=true", "query_network={layers: 1, ffn: 32}",
    "stages.0.batch_size=5", "stages.0.accumulate=2", f"stages.0.steps={STEPS}",
    "stages.0.losses.query={queries: sentences}", "stages.0.losses.contradiction={}",
)  # fmt: skip

Ledger = list[tuple[int, tuple[int, ...]]]


def recipe(workers: int) -> Recipe:
    return load_recipe("smoke-cpu", [*SETTINGS, f"data.workers={workers}"])


@pytest.fixture(scope="module")
def whole(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("whole") / "run"
    run_recipe(recipe(0), manifest, out)
    return outcome(out)


def outcome(out: Path) -> dict[str, str]:
    """Hashes of the weights, of the optimiser, of the generator, and of what was told of each step."""
    state = latest_state(out / "states")
    assert state is not None
    files = [*sorted(state.glob("*.safetensors")), *sorted((out / "checkpoint").glob("*.safetensors"))]
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    told = json.dumps([{k: v for k, v in row.items() if k not in ("data_s", "step_s")} for row in rows])
    hashes = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    return {**hashes, "metrics": hashlib.sha256(told.encode()).hexdigest()}


class Crash(Exception):
    """Stands for the end of the process."""


def cut(step: int) -> Callable[[Progress], None]:
    def progress(p: Progress) -> None:
        if p.phase.startswith("train") and p.done == step:
            raise Crash

    return progress


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> Ledger:
    """The rows of every step that is taken."""
    told: Ledger = []
    real = run_module.train_steps

    def noted(*args: Any, **kwargs: Any) -> Iterator[StepInfo]:
        for info in real(*args, **kwargs):
            told.append((info.step, info.rows))
            yield info

    monkeypatch.setattr(run_module, "train_steps", noted)
    return told


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "workers"), [(1, (0, 2)), (1, (2, 0)), (2, (2, 2)), (3, (0, 2)), (3, (2, 0)), (6, (2, 0)), (6, (0, 2))]
)
def test_a_cut_run_ends_in_the_same_bits_with_any_workers(
    step: int, workers: tuple[int, int], manifest: Manifest, whole: dict[str, str], ledger: Ledger, tmp_path: Path
):
    """Cut within an epoch and at its end, and gone on with other workers; each row comes once an epoch."""
    out = tmp_path / "run"
    with pytest.raises(Crash):
        run_recipe(recipe(workers[0]), manifest, out, progress=cut(step))
    assert not multiprocessing.active_children()
    run_recipe(recipe(workers[1]), manifest, out, resume=True)
    assert outcome(out) == whole
    rows = dict(ledger)  # a step that was taken again counts as it was taken last
    for first in range(1, STEPS, PER_EPOCH):
        seen = [row for s in range(first, min(first + PER_EPOCH, STEPS + 1)) for row in rows[s]]
        assert len(seen) == len(set(seen))
        assert len(seen) == ROWS or first + PER_EPOCH > STEPS + 1
    assert len(ledger) == STEPS + step - (step - 1) // 2 * 2  # the last state is that of an even step before


@pytest.mark.slow
@pytest.mark.parametrize("call", [3, 6, 9, 12])
def test_a_run_that_ends_between_micro_batches_too(
    call: int, manifest: Manifest, whole: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    calls, real = [0], PretrainTask.encode

    def encode(self: PretrainTask, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        calls[0] += 1
        if calls[0] == call:
            raise Crash
        return real(self, batch)

    monkeypatch.setattr(PretrainTask, "encode", encode)
    with pytest.raises(Crash):
        run_recipe(recipe(2), manifest, tmp_path / "run")
    assert not multiprocessing.active_children()
    monkeypatch.undo()
    run_recipe(recipe(0), manifest, tmp_path / "run", resume=True)
    assert outcome(tmp_path / "run") == whole


class Numbers:
    """Batches that are their numbers; some of them cannot be made."""

    def __init__(self, error: Exception | None = None, *, dies: bool = False) -> None:
        self.error, self.dies = error, dies

    def __getitem__(self, step: int) -> tuple[torch.Tensor, int]:
        if step == 5 and self.error is not None:
            raise self.error
        if step == 5 and self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.tensor(np.random.default_rng(step).normal(size=3)), os.getpid()


@pytest.mark.slow
def test_workers_keep_the_order_and_leave_the_generator_alone():
    before = torch.get_rng_state()
    here = [value for value, _ in in_order(Numbers(), range(3, 20), 0)]
    there, makers = zip(*in_order(Numbers(), range(3, 20), 2), strict=True)
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))
    assert len(set(makers)) == 2
    assert os.getpid() not in makers
    assert torch.equal(before, torch.get_rng_state())
    assert list(in_order(Numbers(), range(3, 3), 2)) == []


@pytest.mark.slow
def test_an_error_in_a_worker_comes_as_it_is_and_a_killed_worker_is_named():
    made = in_order(Numbers(DataError("row 7: no text")), range(20), 2)
    with pytest.raises(DataError, match=r"^row 7: no text$"):
        list(made)
    assert not multiprocessing.active_children()
    with pytest.raises(DataError, match=r"one was killed from outside.*lower data\.workers"), worker_deaths_named():
        list(in_order(Numbers(dies=True), range(20), 2))
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_workers_outlive_a_signal_to_the_group_and_end_with_the_iteration():
    """Ctrl-C and SIGTERM often go to every process of a run; the batches of the step in hand must still come."""
    made = in_order(Numbers(), range(50), 2)
    first = [next(made) for _ in range(4)]
    for pid in {pid for _, pid in first}:
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(pid, number)
    assert len(first) + len([next(made) for _ in range(10)]) == 14
    made.close()
    assert not multiprocessing.active_children()
