"""Two and four processes that share the rows of a step take the gradient of one process that has them all."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kvlp.datasets.manifest import Manifest

SCRIPT = Path(__file__).with_name("several_processes.py")
#: Limits on what differs, as a share of the whole gradient's length and of a tensor's largest number. In float32 the
#: convolutions of half a batch round otherwise than those of the whole, and batch norm makes more of it; in float64 the
#: same towers and losses show that nothing else differs. Fused pairs and matched graphs are sums of many small terms.
LIMITS = {"float64": (1e-12, 1e-11), "cnn": (5e-6, 5e-5), "summed": (5e-6, 5e-5), "": (1e-6, 5e-6)}


def cases() -> dict[str, tuple[str, ...]]:
    spec = importlib.util.spec_from_file_location("several_processes", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, tuple[str, ...]] = module.CASES
    return found


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("processes", [2, 4])
def test_several_processes_take_the_gradient_of_one(processes: int, manifest: Manifest, tmp_path: Path) -> None:
    told = (Path(manifest.root) / "manifest.csv", tmp_path / "store", tmp_path / "found", processes)
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, told)],
        env=dict(os.environ, OMP_NUM_THREADS="1"), capture_output=True, text=True, check=False, timeout=1400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for number, (title, settings) in enumerate(cases().items()):
        alone = np.load(tmp_path / f"found.{number}.alone.npz")
        names = [name for name in alone.files if not name.endswith("|rows")]
        normed = "cnn" if all("tiny-vit" not in s and "lock_image" not in s for s in settings) else ""
        summed = "summed" if title.endswith(("arl", "graph matching")) else normed
        of_whole, of_tensor = LIMITS["float64" if title.endswith("float64") else summed]
        for rank in range(processes):
            found = np.load(tmp_path / f"found.{number}.{rank}.npz")
            assert set(found.files) == set(alone.files), title
            for step in ("0", "3"):
                np.testing.assert_array_equal(found[f"{step}|rows"], alone[f"{step}|rows"], err_msg=title)
                mine = [name for name in names if name.startswith(f"{step}|") and not name.endswith("|loss")]
                assert len(mine) > 20, title
                apart = np.concatenate([(found[name].astype(float) - alone[name]).ravel() for name in mine])
                length = np.linalg.norm(np.concatenate([alone[name].ravel() for name in mine]))
                assert np.linalg.norm(apart) <= of_whole * length, (title, rank, step)
            for name in names:
                # what softmax, or the centring of graphs, does not see: the gradient is rounding alone
                if name.endswith((".key.bias", ".graph.project.2.bias")):
                    continue
                largest = np.abs(alone[name]).max(initial=0)
                within = of_tensor * largest + (1e-16 if title.endswith("float64") else 1e-9)
                np.testing.assert_allclose(found[name], alone[name], rtol=0, atol=within, err_msg=f"{title} {name}")
