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
        line = "  ".join(filter(None, (f"{progress.phase}: {_count(progress)}", _rate(progress), progress.note)))
        sys.stderr.write(f"\r\x1b[K{line}" if terminal else f"{line}\n")
        sys.stderr.flush()
        shown.update(phase=progress.phase, at=now, line=line)

    yield (lambda _: None) if quiet else show
    if terminal and shown["line"] and not quiet:
        sys.stderr.write("\n")


def _count(progress: Progress) -> str:
    """A phase of one piece is under way or done; counting it tells nothing."""
    if progress.total > 1:
        return f"{progress.done}/{progress.total}"
    return "done" if progress.done >= progress.total else "..."


def _rate(progress: Progress) -> str:
    """Nothing while the rate is not known."""
    if progress.rate <= 0:
        return ""
    left = round(progress.left)
    return f"{progress.rate:.1f}/s, {left // 60}:{left % 60:02d} left"
