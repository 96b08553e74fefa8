"""One contestant of the benchmark `train` alone in a process: prints its peak memory over some steps, as JSON.

Called as `python -m kvlp.eval.bench.train_worker CONTESTANT MANIFEST FOLDER STEPS RECIPE KEY=VALUE ...`.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path

__all__ = ["contestant", "main"]


def contestant(name: str, work: object) -> Callable[[], None]:
    """The steps of one contestant: clip, align (the losses of the recipe's stage) or open_clip."""
    from kvlp.eval.bench.train_steps import Work, kvlp_steps, open_clip_steps
    from kvlp.training.objectives import ClipPart, Losses

    assert isinstance(work, Work)
    if name == "open_clip":
        return open_clip_steps(work)
    return kvlp_steps(work, work.losses if name == "align" else Losses(clip=ClipPart()))


def main(arguments: list[str]) -> None:
    """Train and print {"peak_mb": during the steps, "before_mb": before them}."""
    from kvlp.datasets.manifest import Manifest
    from kvlp.eval.bench.train_steps import prepare_work

    name, manifest, folder, steps, recipe, *overrides = arguments
    work = prepare_work(recipe, Manifest.load(manifest), Path(folder), steps=int(steps), overrides=overrides)
    run = contestant(name, work)
    gc.collect()
    before, peak = _peak_of(run)
    print(json.dumps({"peak_mb": peak, "before_mb": before}))  # noqa: T201 - what it is for


def _peak_of(run: Callable[[], None]) -> tuple[float, float]:
    """Memory before and at most during a call, in MB: of the card where there is one, else of the process (Linux)."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / 2**20
        run()
        return before, torch.cuda.max_memory_allocated() / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before = _status("VmRSS")
    run()
    return before, _status("VmHWM")


def _status(key: str) -> float:
    """A line of /proc/self/status, in MB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) / 1024


if __name__ == "__main__":
    main(sys.argv[1:])
