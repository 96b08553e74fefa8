"""Runs under torchrun as users start them: stopped, killed, gone on with in another number of processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from kvlp.datasets.manifest import Manifest
from kvlp.training.state import latest_state

STEPS = 24
SETTINGS = (
    "threads=1", "precision=fp32", "save_every=4", "model.image=tiny-vit", f"stages.0.steps={STEPS}",
    "stages.0.batch_size=8", "stages.0.lr=1e-4", "evaluation=[]",
)  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def data(manifest: Manifest) -> Path:
    return Path(manifest.root) / "manifest.csv"


def command(data: Path, out: Path, processes: int, *more: str, settings: Sequence[str] = ()) -> list[str]:
    launch = [sys.executable, "-m"]
    if processes > 1:  # standalone: a port of its own
        launch += ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m"]
    told = [part for setting in (*SETTINGS, *settings) for part in ("--set", setting)]
    return [*launch, "kvlp", "pretrain", "smoke-cpu", "--data", str(data), "--out", str(out), *told, *more]


def environment() -> dict[str, str]:
    return dict(os.environ, OMP_NUM_THREADS="1", GLOO_SOCKET_IFNAME="lo", PYTHONSAFEPATH="1")


def run(*args: object, **kwargs: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*args, **kwargs),  # type: ignore[arg-type]
        env=environment(), capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def after_steps(process: subprocess.Popen[str], out: Path, steps: int) -> None:
    """Wait until so many steps are told of."""
    end = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < end:
        if (out / "metrics.jsonl").is_file() and len(rows_told(out)) >= steps:
            return
        time.sleep(0.05)
    raise AssertionError(f"ended early with {process.poll()}: {process.communicate()[1][-2000:]}")


def rows_told(out: Path) -> list[str]:
    return (out / "metrics.jsonl").read_text().splitlines()


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """Ranks in the order they were started."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return sorted(int(pid) for pid in children if b"kvlp" in Path(f"/proc/{pid}/cmdline").read_bytes())


def started(data: Path, out: Path, *more: str, settings: Sequence[str] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(data, out, 2, *more, settings=settings),
        env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    done = run(data, out, 1)
    assert done.returncode == 0, done.stderr
    return out


def close(found: Path, expected: Path) -> None:
    """Losses of equal steps, and weights, as near as rounding allows after so many steps."""
    ours, theirs = rows(found), rows(expected)
    assert [row["step"] for row in ours] == list(range(1, STEPS + 1))
    np.testing.assert_allclose([r["loss"] for r in ours], [r["loss"] for r in theirs], rtol=2e-3)
    weights = [load_file(out / "checkpoint" / "open_clip_model.safetensors") for out in (found, expected)]
    for name, value in weights[1].items():
        assert (weights[0][name] - value).abs().max() < 5e-3, name


def test_two_processes_end_where_one_does_and_speak_once(data: Path, alone: Path, tmp_path: Path):
    done = run(data, tmp_path / "run", 2, "--json", settings=("data.workers=1",))
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout)["checkpoint"] == str(tmp_path / "run" / "checkpoint")
    close(tmp_path / "run", alone)


@pytest.mark.parametrize("rank", [0, 1])
def test_sigterm_to_one_process_ends_all_with_the_state_written(rank: int, data: Path, alone: Path, tmp_path: Path):
    """And the run goes on in another number of processes, on the same rows."""
    out = tmp_path / "run"
    process = started(data, out, settings=("save_every=1000",))
    after_steps(process, out, 5)
    began = time.monotonic()
    os.kill(workers_of(process)[rank], signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - began < 30
    assert process.returncode != 0
    assert errors.count("go on with --resume") == 1, errors
    state = latest_state(out / "states")
    assert state is not None
    assert int(state.name.split("-")[-1]) == len(rows_told(out))
    done = run(data, out, 1, "--resume")
    assert done.returncode == 0, done.stderr[-2000:]
    close(out, alone)


def test_a_run_of_one_process_goes_on_in_two(data: Path, alone: Path, tmp_path: Path):
    out = tmp_path / "run"
    process = subprocess.Popen(command(data, out, 1), env=environment(), stderr=subprocess.PIPE, text=True)
    after_steps(process, out, 6)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    done = run(data, out, 2, "--resume")
    assert done.returncode == 0, done.stderr[-2000:]
    close(out, alone)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_dies_ends_the_others_with_one_line(rank: int, data: Path, tmp_path: Path):
    out = tmp_path / "run"
    process = started(data, out)
    after_steps(process, out, 6)
    began = time.monotonic()
    os.kill(workers_of(process)[rank], signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert time.monotonic() - began < 45
    assert process.returncode != 0
    ours = [line for line in errors.splitlines() if line.startswith("kvlp: error:")]
    assert len(ours) == 1, errors
    assert "another process of this run ended" in ours[0]
    assert "Traceback" not in errors.split("kvlp: error:")[0]
    done = run(data, out, 2, "--resume")
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(rows(out)) == STEPS


def test_what_chooses_among_the_rows_of_a_batch_is_shared_too(data: Path, tmp_path: Path):
    arl = (
        "concept_vectors={method: random, dim: 16}",
        "fusion={layers: 1, tap: 1, width: 32, heads: 2, entity_width: 16, entity_heads: 2, entity_hidden: 16, "
        "decoder_width: 16, decoder_layers: 1, decoder_heads: 2}",
        "stages.0.losses={clip: {}, arl: {every: 2}}",
    )
    done = run(data, tmp_path / "arl", 2, settings=arl)
    assert done.returncode == 0, done.stderr[-2000:]
    found = rows(tmp_path / "arl")
    assert len(found) == STEPS
    assert ["arl" in row["parts"] for row in found] == [step % 2 == 0 for step in range(STEPS)]


def test_too_few_rows_are_refused_by_their_number(data: Path, tmp_path: Path):
    done = run(data, tmp_path / "few", 3, settings=("stages.0.batch_size=4", "stages.0.accumulate=2"))
    assert done.returncode == 0, done.stderr[-2000:]
    done = run(data, tmp_path / "fewer", 3, settings=("stages.0.batch_size=2",))
    assert "3 processes share micro-batches of 2 rows; start fewer of them, or raise batch_size" in done.stderr


def test_a_start_that_fails_is_told_by_the_first_process(data: Path, alone: Path):
    done = run(data, alone, 2)
    assert done.returncode != 0
    assert "already holds a run; add --resume" in done.stderr
    assert done.stderr.count("add --resume") == 1


@pytest.mark.parametrize(("parallel", "processes"), [("fsdp2", 2), ("ddp", 1)])
def test_shards_learn_the_same_and_leave_the_state_of_one_process(
    parallel: str, processes: int, data: Path, alone: Path, tmp_path: Path
):
    out = tmp_path / "run"
    process = started(data, out, settings=("parallel=fsdp2", "save_every=1000"))
    after_steps(process, out, 6)
    os.kill(workers_of(process)[1], signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    states = [latest_state(folder / "states") for folder in (out, alone)]
    assert states[0] is not None, errors
    assert states[1] is not None
    for file in ("weights", "optimizer", "random"):
        ours, theirs = (load_file(state / f"{file}.safetensors") for state in states if state)
        assert {n: (v.shape, v.dtype) for n, v in ours.items()} == {n: (v.shape, v.dtype) for n, v in theirs.items()}
    done = run(data, out, processes, "--resume", settings=(f"parallel={parallel}",))
    assert done.returncode == 0, done.stderr[-2000:]
    close(out, alone)
