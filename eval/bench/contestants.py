"""Contestants in processes of their own: each has its own interpreter, memory and start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from kvlp.errors import KvlpError
from kvlp.eval.bench.measure import BenchOptions

__all__ = ["Contestant", "contestants"]

_WORKER = Path(__file__).with_name("link_worker.py")


class Contestant:
    """A worker process that is ready to read; see `link_worker.py` for what it does.

    Args:
        name: one of the worker's contestants.
        process: the worker.
        errors: where it writes its errors.

    Attributes:
        ready: what it said when it was ready: ready_s, rss_mb.

    Raises:
        KvlpError: it could not start; the message holds the last line that it wrote.
    """

    def __init__(self, name: str, process: subprocess.Popen[str], errors: IO[str]) -> None:
        self.name = name
        self._process, self._errors = process, errors
        self.ready = self._answer()

    def ask(self, command: str) -> dict[str, Any]:
        """Send a command and wait for the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        self._errors.seek(0)
        last = self._errors.read().strip().splitlines()[-1:]
        raise KvlpError(f"{self.name}: {last[0] if last else 'ended without a word'}")


@contextmanager
def contestants(
    jobs: Mapping[str, Mapping[str, Any]], interpreters: Mapping[str, str], options: BenchOptions
) -> Iterator[list[Contestant]]:
    """Start contestants, each with its job; peers that cannot start are left out, with a line that says why.

    Args:
        jobs: contestant -> its job.
        interpreters: contestant -> the Python that has it; default: this one.
        options: receives the lines.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kvlp-bench-")))
        running = []
        for number, (name, job) in enumerate(jobs.items()):
            file = folder / f"{number}.json"
            file.write_text(json.dumps(job), encoding="utf-8")
            errors = stack.enter_context((folder / f"{number}.err").open("w+", encoding="utf-8"))
            process = stack.enter_context(_process(interpreters.get(name, sys.executable), (name, str(file)), errors))
            try:
                running.append(Contestant(name, process, errors))
            except KvlpError as error:
                if name.startswith("kvlp"):
                    raise
                options.say(f"left out: {error}")
                continue
            ready = running[-1].ready
            options.say(f"{name}: ready in {ready['ready_s']:.2f} s, {ready['rss_mb']:.0f} MB")
        yield running


@contextmanager
def _process(python: str, arguments: Iterable[str], errors: IO[str]) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    process = subprocess.Popen(
        [python, "-P", str(_WORKER), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env=environment,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()  # closes the pipes
