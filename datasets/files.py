"""Read untrusted files within limits, and write files so that a crash leaves the old version or the new one, whole."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from kvlp.errors import DataError
from kvlp.typing import PathLike

__all__ = ["atomic_file", "atomic_write", "read_bytes", "read_text"]


def read_bytes(path: PathLike, *, max_bytes: int, error: type[DataError] = DataError) -> bytes:
    """Return a regular file's bytes; refuse folders, pipes, empty files and files above `max_bytes` by name.

    Raises: `error` with one line that says what was expected and what came.
    """
    path = Path(path)
    try:
        # O_NONBLOCK: opening a pipe must not hang before we have seen that it is one
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or str(problem)
        raise error(f"{path}: cannot be opened: {reason}") from problem
    try:
        info = os.fstat(handle)
        if not stat.S_ISREG(info.st_mode):
            kind = "a folder" if stat.S_ISDIR(info.st_mode) else "not a regular file"
            raise error(f"{path}: expected a file, got {kind}")
        if info.st_size == 0:
            raise error(f"{path}: the file is empty")
        if info.st_size > max_bytes:
            raise error(f"{path}: {info.st_size} bytes, above the limit of {max_bytes}")
        with os.fdopen(handle, "rb", closefd=False) as file:
            return file.read(max_bytes + 1)
    finally:
        os.close(handle)


def read_text(path: PathLike, *, max_bytes: int, error: type[DataError] = DataError) -> str:
    """Return a UTF-8 text file's content without its byte order mark; line ends stay as they are.

    Raises: `error` naming the line that is not UTF-8 or holds a NUL byte.
    """
    data = read_bytes(path, max_bytes=max_bytes, error=error)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise error(f"{path}: expected UTF-8 text, got UTF-16; save it as UTF-8")
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise error(f"{path}: line {line}: holds a NUL byte; expected UTF-8 text")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        byte = data[problem.start]
        raise error(
            f"{path}: line {line}: byte 0x{byte:02X} is not UTF-8 (Latin-1?); "
            "convert it: iconv -f latin1 -t utf-8 OLD > NEW"
        ) from problem


@contextmanager
def atomic_file(path: PathLike) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`; on a clean exit flush it to disk and rename it over `path`.

    After any failure the old file is untouched and the temporary one is gone.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def atomic_write(path: PathLike, data: bytes) -> None:
    """Write `data` to `path` in one step (see `atomic_file`)."""
    with atomic_file(path) as file:
        file.write(data)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
