"""Run as a script by test_two_processes.py: each case's batch halved over two gloo processes, gathered, and joined.

A loss sees tensors alone; in several processes the rows are gathered first, with their gradient, and each process
computes the loss of the whole batch. Then the mean over processes of the gradients is that of one process.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.nn.functional import all_gather

ROWS = 4


def _gathered(name: str, value: torch.Tensor) -> torch.Tensor:
    if value.is_floating_point():
        return torch.cat(all_gather(value.contiguous()))
    parts = [torch.empty_like(value) for _ in range(2)]
    dist.all_gather(parts, value.contiguous())
    return torch.cat(parts)


def one(suite: Any, case: Any) -> dict[str, np.ndarray]:
    """Loss and gradients in one process."""
    given = suite.tensors(case, case.inputs(ROWS))
    total = case.build()(**given).total
    total.backward()
    return {
        "total": total.detach().numpy(),
        **{n: given[n].grad.numpy() for n in case.gradients if given[n].grad is not None},
    }


def half(suite: Any, case: Any, rank: int) -> dict[str, np.ndarray]:
    """The same from the rows of one process; gradients are gathered and are means, as DDP's."""
    given = suite.tensors(case, case.inputs(ROWS))
    mine = slice(rank * ROWS // 2, (rank + 1) * ROWS // 2)
    split = {n for n in (*case.rows, *case.squares) if given[n] is not None}
    local = {n: given[n][mine].detach().requires_grad_(given[n].requires_grad) for n in split}
    total = case.build()(**{**given, **{n: _gathered(n, value) for n, value in local.items()}}).total
    total.backward()
    found = {"total": total.detach().numpy()}
    for name in case.gradients:
        grad = (local if name in split else given)[name].grad
        if grad is None:
            continue
        if name in split:
            grad = _gathered(name, grad / 2)
        else:
            dist.all_reduce(grad)
            grad = grad / 2
        found[name] = grad.detach().numpy()
    return found


def work(rank: int, store: str, out: str) -> None:
    """One of two processes: all cases, results as one .npz a process."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    sys.path.insert(0, str(Path(__file__).parents[1] / "shared"))
    suite = import_module("losses_suite")
    results: dict[str, np.ndarray] = {}
    for title, case in suite.load_cases().items():
        both = {"one": one(suite, case), "two": half(suite, case, rank)}
        results |= {f"{title}|{way}|{name}": value for way, found in both.items() for name, value in found.items()}
    np.savez(f"{out}.{rank}.npz", **results)
    dist.destroy_process_group()


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    fork = multiprocessing.get_context("fork")  # torch is imported once, before anything was computed
    workers = [fork.Process(target=work, args=(rank, *sys.argv[1:])) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    sys.exit(max(abs(worker.exitcode or 0) for worker in workers))
