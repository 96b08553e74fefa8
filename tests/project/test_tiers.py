"""The unit tier has no network, and the slow tier rotates, keeps to its budget and counts rightly."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

SLOW_TESTS = """
import os, time
import pytest

def test_quick(): raise AssertionError("not slow: must not run")

@pytest.mark.slow
def test_a(): assert os.environ["KVLP_SLOW_SHARE"] == "0.5"

@pytest.mark.slow
def test_b(): {body}

@pytest.mark.slow
def test_c(): pytest.skip("no data")
"""


def test_connections_are_refused() -> None:
    with socket.socket() as probe, pytest.raises(RuntimeError, match="without a network"):
        probe.connect(("127.0.0.1", 9))


def test_name_lookups_are_refused() -> None:
    with pytest.raises(RuntimeError, match="without a network"):
        socket.getaddrinfo("localhost", 80)


def test_local_sockets_stay_open() -> None:
    left, right = socket.socketpair()
    with left, right:
        left.send(b"x")
        assert right.recv(1) == b"x"


def test_rotation_is_a_permutation_and_each_file_comes_first_within_a_week(
    ci_script: Callable[[str], ModuleType],
) -> None:
    slow = ci_script("slow")
    files = [f"tests/test_{i}.py" for i in range(7)]
    orders = [slow.rotated(files, seed) for seed in range(7)]
    assert all(sorted(order) == files for order in orders)
    assert {order[0] for order in orders} == set(files)
    assert slow.rotated(files, 3) == slow.rotated(list(reversed(files)), 3)
    assert slow.rotated([], 3) == []


def run_tier(folder: Path, repository: Path, body: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_planted.py").write_text(SLOW_TESTS.format(body=body))
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    slow: x\n    gpu: x\n")
    command = [sys.executable, str(repository / ".ci" / "slow.py"), "--share", "0.5", *options]
    env = dict(os.environ, PYTHONSAFEPATH="1", SLOW_SEED="11")
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_tier_counts_its_tests(tmp_path: Path, repository: Path) -> None:
    done = run_tier(tmp_path, repository, "pass", "--figures", "out/slow.json")
    assert done.returncode == 0, done.stdout
    assert "slow tier: 3 of 3 selected, 2 passed, 0 failed, 1 skipped; seed 11, share 0.5" in done.stdout
    figures = json.loads((tmp_path / "out" / "slow.json").read_text())
    assert (figures["total"], figures["passed"], figures["skipped"], figures["seed"]) == (3, 2, 1, 11)
    assert set(figures["tests"]) == {f"test_planted.py::test_{x}" for x in "abc"}
    assert figures["finished"]


@pytest.mark.slow
def test_a_tier_that_is_killed_leaves_the_figures_of_the_tests_before(tmp_path: Path, repository: Path) -> None:
    done = run_tier(tmp_path, repository, "os.kill(os.getpid(), 9)", "--figures", "out/slow.json")
    assert done.returncode == -9, done.stdout
    figures = json.loads((tmp_path / "out" / "slow.json").read_text())
    assert not figures["finished"]
    assert (figures["total"], figures["passed"]) == (3, 1)
    assert set(figures["tests"]) == {"test_planted.py::test_a"}


@pytest.mark.slow
def test_a_tier_that_is_interrupted_is_not_finished(tmp_path: Path, repository: Path) -> None:
    done = run_tier(tmp_path, repository, "raise KeyboardInterrupt", "--figures", "out/slow.json")
    assert done.returncode == pytest.ExitCode.INTERRUPTED, done.stdout
    figures = json.loads((tmp_path / "out" / "slow.json").read_text())
    assert not figures["finished"]
    assert "test_planted.py::test_a" in figures["tests"]


@pytest.mark.slow
def test_tier_fails_with_a_failing_test_and_starts_nothing_after_its_budget(tmp_path: Path, repository: Path) -> None:
    done = run_tier(tmp_path, repository, "time.sleep(4)", "--budget", "0.05")
    assert done.returncode == 1
    assert "slow tier: 2 of 3 selected, 1 passed, 1 failed" in done.stdout.splitlines()[-1]


@pytest.mark.slow
def test_tier_without_slow_tests_passes(tmp_path: Path, repository: Path) -> None:
    command = [sys.executable, str(repository / ".ci" / "slow.py"), "--seed", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "slow tier: 0 of 0 selected" in done.stdout
