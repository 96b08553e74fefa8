"""Two processes that gather their rows have the loss and the gradient of one: every case, one pair of processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from losses_suite import load_cases


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    script = Path(__file__).with_name("two_processes.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "store"), str(tmp_path / "found")],
        env=dict(os.environ, OMP_NUM_THREADS="1"), capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    seen = set()
    for rank in range(2):
        found = np.load(tmp_path / f"found.{rank}.npz")
        for key in found.files:
            title, way, name = key.split("|")
            if way == "one":
                np.testing.assert_allclose(found[f"{title}|two|{name}"], found[key], rtol=1e-5, atol=1e-6, err_msg=key)
                seen.add(title)
    assert seen == set(load_cases())
