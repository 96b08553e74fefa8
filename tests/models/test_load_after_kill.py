"""A checkpoint folder that is being replaced is whole at every moment."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from kvlp.checkpoints import load, save_checkpoint
from kvlp.models.preprocess import Preprocess


def save_again_and_again(folder: Path, module: torch.nn.Module, cfg: Any, tokenizer: Any) -> None:
    for turn in range(20):  # an end of its own, should its parent be gone
        save_checkpoint(folder, module, cfg, Preprocess(size=64).to_dict(), tokenizer, {"turn": turn})


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_at_any_moment_the_folder_loads(
    tiny_module: torch.nn.Module, tiny_cfg: Any, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    """kill -9 while the folder is rewritten: what is there is one whole checkpoint, and never an older one."""
    folder, rng, newest = tmp_path / "model", random.Random(0), -1
    kills = max(8, round(40 * float(os.environ.get("KVLP_SLOW_SHARE", "1"))))
    start = time.perf_counter()
    save_checkpoint(folder, tiny_module, tiny_cfg, Preprocess(size=64).to_dict(), tiny_tokenizer, {"turn": -1})
    one_save = time.perf_counter() - start
    inside = 0
    for _ in range(kills):
        child = os.fork()
        if child == 0:
            save_again_and_again(folder, tiny_module, tiny_cfg, tiny_tokenizer)
            os._exit(0)
        time.sleep(rng.uniform(0.0, 3 * one_save))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        newest = max(newest, load(folder).card["turn"])
        left = list(tmp_path.glob(".model.*"))
        inside += bool(left)
        for path in left:
            shutil.rmtree(path)
    assert newest >= 0, "no child ever replaced the folder: the test shows nothing"
    assert inside > kills // 4, "too few kills landed inside a write"
