"""Files that survive a crash: atomic writes, one writer at a time, names that are kept private."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kvlp.errors import ArchiveError

__all__ = ["PRIVATE", "TEMPORARY", "write_atomic", "writer_lock"]

PRIVATE = 0o600  #: embeddings identify patients: nobody but the owner reads the files
TEMPORARY = ".tmp-"  #: stands in the name of every file that is not finished


def write_atomic(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, so that after a crash it holds either the old content or the new, never a part.

    Raises:
        OSError: the disk is full or fails; the old content still stands.
    """
    temporary = path.with_name(f"{path.name}{TEMPORARY}{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE)
        try:
            _write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    _sync_folder(path.parent)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def writer_lock(folder: Path, timeout: float) -> Iterator[None]:
    """Hold the folder's only right to write; the kernel gives it back when the process ends, however it ends.

    Raises:
        ArchiveError: another process held it for all of `timeout` seconds; the message names its pid.
    """
    descriptor = os.open(folder / "writer.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    try:
        _wait_for(descriptor, folder, timeout)
        os.ftruncate(descriptor, 0)
        with suppress(OSError):  # a full disk: only the pid in another writer's message is lost
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _wait_for(descriptor: int, folder: Path, timeout: float) -> None:
    end = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= end:
                pid = os.pread(descriptor, 20, 0).decode("ascii", "replace") or "unknown"
                raise ArchiveError(
                    f"{folder} is being written by process {pid}; waited {timeout:g} s. Try again when it has ended"
                ) from None
        time.sleep(0.02)
