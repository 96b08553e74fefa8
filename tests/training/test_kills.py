"""A training process killed at random moments, also while it writes its state: what it told of is there and whole."""

from __future__ import annotations

import hashlib
import math
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from kvlp.models.dual_encoder import build_dual_encoder
from kvlp.models.towers import model_config
from kvlp.training.loop import train_steps
from kvlp.training.objectives import ClipPart, Losses
from kvlp.training.state import KEPT, latest_state, load_state, save_state, state_tensors
from kvlp.training.task import PretrainTask

#: Kills at full size; a share of them otherwise (see .ci/slow.py).
KILLS = 100
ROWS = 6


def task_and_optimizer() -> tuple[PretrainTask, torch.optim.Optimizer]:
    torch.manual_seed(0)
    cfg = model_config("tiny-vit", "tiny-text", vocab_size=30, eos_id=3, embed_dim=16, image_size=24, context_length=6)
    task = PretrainTask(build_dual_encoder(cfg), Losses(clip=ClipPart()))
    return task, torch.optim.AdamW(task.parameters(), lr=1e-3)


def batch(step: int) -> tuple[list[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    rng = np.random.default_rng(step)
    text = torch.from_numpy(rng.integers(5, 30, size=(ROWS, 6)))
    text[:, 5] = 3
    image = torch.from_numpy(rng.normal(size=(ROWS, 3, 24, 24)).astype(np.float32))
    rows = torch.arange(ROWS)
    return [{"row": rows, "image": image, "text": text, "signature": rows, "labels": torch.zeros(ROWS, 0)}], {}


def train(folder: Path, told: Path, stop: int) -> None:
    """Go on from the newest state, write one after each step, and then tell of it."""
    torch.set_num_threads(1)
    task, optimizer = task_and_optimizer()
    state = latest_state(folder)
    start = load_state(state, task, optimizer)["step"] if state else 0
    batches: Iterator[object] = (batch(step) for step in range(start, stop))
    for info in train_steps(task, batches, optimizer, lambda _: 1e-3, start=start, autocast=nullcontext):  # type: ignore[arg-type]
        tensors = state_tensors(task, optimizer)
        save_state(folder, tensors, {"stage": 0, "step": info.step}, name=f"step-00-{info.step:08d}")
        with told.open("a") as file:
            file.write(f"{info.step}\n")
            file.flush()
            os.fsync(file.fileno())


def last_told(told: Path) -> int:
    lines = told.read_text().split() if told.is_file() else []
    return int(lines[-1]) if lines else 0


def check_states(folder: Path, told: int) -> int:
    """Every state is whole, two are kept, and the newest is at most the step that was being told of; its step."""
    states = sorted(folder.glob("step-*"))
    assert len(states) >= min(KEPT, told)
    for state in states:  # a damaged one would be refused by its hash
        assert load_state(state, *task_and_optimizer())["step"] == int(state.name.split("-")[-1])
        assert {p.name for p in state.iterdir()} == {f"{n}.safetensors" for n in ("weights", "optimizer", "random")} | {
            "state.json"
        }
    newest = latest_state(folder)
    assert (newest is None) == (not states)
    step = int(newest.name.split("-")[-1]) if newest else 0
    assert told <= step <= told + 1
    return step


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kills_at_random_moments_lose_no_state_that_was_told_of(tmp_path: Path):
    seed = int(os.environ.get("SLOW_SEED") or 0)
    kills = max(10, math.ceil(KILLS * float(os.environ.get("KVLP_SLOW_SHARE", "1"))))
    rng = np.random.default_rng(seed)
    fork = multiprocessing.get_context("fork")
    folder, told = tmp_path / "states", tmp_path / "told.txt"
    folder.mkdir()
    inside = reached = 0
    for number in range(kills):
        process = fork.Process(target=train, args=(folder, told, 1 << 30))
        process.start()
        before, end = last_told(told), time.monotonic() + 60
        while last_told(told) == before and time.monotonic() < end:
            time.sleep(0.002)
        while number % 2 and process.is_alive() and not list(folder.glob(".step-*.tmp")) and time.monotonic() < end:
            time.sleep(0.001)  # every second one aims at a save
        time.sleep(float(rng.uniform(0, 0.02 if number % 2 else 0.15)))
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        inside += bool(list(folder.glob(".step-*.tmp")))
        reached = check_states(folder, last_told(told))
    print(f"{kills} kills, {inside} of them inside a save, {reached} steps; seed {seed}")
    assert inside >= kills // 5  # else the kills say little about saving
    process = fork.Process(target=train, args=(folder, told, reached + 3))
    process.start()
    process.join()
    whole = tmp_path / "whole"
    process = fork.Process(target=train, args=(whole, tmp_path / "whole.txt", reached + 3))
    process.start()
    process.join()
    assert _hashes(folder) == _hashes(whole)


def _hashes(folder: Path) -> dict[str, str]:
    newest = latest_state(folder)
    assert newest is not None
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(newest.iterdir())}
