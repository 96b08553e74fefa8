"""One progress line with rate and time left, rewritten in place on a terminal, printed now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kvlp.training.run import Progress

__all__ = ["progress_line"]


@contextmanager
def progress_line(*, quiet: bool = False) -> Iterator[Callable[[Progress], None]]:
    """Yield a function that shows a Progress on standard error: one line a phase, kept when the phase is done."""
    terminal = sys.stderr.isatty()
    shown: dict[str, Any] = {"phase": "", "at": 0.0, "line": ""}

    def show(progress: Progress) -> None:
        now = time.monotonic()
        new_phase = progress.phase != shown["phase"]
        finished = progress.done >= progress.total
        if not (new_phase or finished) and now - shown["at"] < (0.2 if terminal else 10.0):
            return
        if new_phase and terminal and shown["line"]:
            sys.stderr.write("\n")
        note = f"  {progress.note}" if progress.note else ""
        line = f"{progress.phase}: {progress.done}/{progress.total}  {_rate(progress)}{note}"
        sys.stderr.write(f"\r\x1b[K{line}" if terminal else f"{line}\n")
        sys.stderr.flush()
        shown.update(phase=progress.phase, at=now, line=line)

    yield (lambda _: None) if quiet else show
    if terminal and shown["line"] and not quiet:
        sys.stderr.write("\n")


def _rate(progress: Progress) -> str:
    left = round(progress.left)
    return f"{progress.rate:.1f}/s, {left // 60}:{left % 60:02d} left"
