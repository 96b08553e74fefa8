"""Batches made ahead by worker processes. They come in order, and no random number of the main process is used."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from kvlp.errors import DataError, KvlpError

__all__ = ["in_order", "worker_deaths_named"]

#: A worker still makes the batch it has begun; one that does not end within so many seconds is killed.
PATIENCE_S = 5.0

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class _ByStep(Protocol[T_co]):
    def __getitem__(self, step: int) -> T_co: ...


def in_order(batches: _ByStep[T], steps: Sequence[int], workers: int) -> Generator[T, None, None]:
    """Yield `batches[step]` for each of `steps`, in this order.

    With `workers` so many forked processes make them ahead, and end with the iteration, however that ends. `batches` is
    not copied: what it holds, memory-mapped or not, is shared.

    Raises:
        DataError: a worker was killed; or whatever error of ours making a batch raised.
    """
    if not workers or not steps:
        yield from (batches[step] for step in steps)
        return
    before = set(multiprocessing.active_children())
    loader: DataLoader[Any] = DataLoader(
        _Told(batches), batch_size=None, sampler=steps, num_workers=workers, collate_fn=_as_it_is,
        worker_init_fn=_begin, multiprocessing_context="fork", pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # else it would draw from the one that dropout uses
    )  # fmt: skip
    with _one_thread_of_tokenizers():
        made = iter(loader)
    ours = set(multiprocessing.active_children()) - before
    try:
        for item in made:
            if isinstance(item, KvlpError):
                raise item
            yield item
    finally:
        del made  # the loader tells its workers to end, and waits for them
        for worker in ours:
            worker.join(PATIENCE_S)
            if worker.is_alive():
                worker.kill()
                worker.join()


@contextmanager
def worker_deaths_named() -> Iterator[None]:
    """Turn the loader's word of a dead worker, which may come at any moment, into an error of ours."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise DataError(
            "expected data workers to live as long as the run, one was killed from outside, likely for want of memory; "
            "lower data.workers and go on with --resume"
        ) from None


class _Told(Dataset[Any]):
    """Hands an error of ours over as it is: the loader would wrap a traceback into its message."""

    def __init__(self, batches: _ByStep[Any]) -> None:
        self.batches = batches

    def __getitem__(self, step: int) -> Any:
        try:
            return self.batches[step]
        except KvlpError as error:
            return error


def _as_it_is(item: Any) -> Any:
    return item


def _begin(_: int) -> None:
    """Signals to the whole group are the main process's to answer: it finishes its step and writes its state."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _one_thread_of_tokenizers() -> Iterator[None]:
    """Threads of the tokenizers do not survive a fork; while the workers start, they are told to do without."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
