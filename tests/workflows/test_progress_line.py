"""The progress line tells what is known: a count, a rate and the time left, or only that something is under way."""

from __future__ import annotations

import pytest

from kvlp.cli.progress import progress_line
from kvlp.training.run import Progress


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        (Progress("train", 30, 120, 2.5, 36.0, "loss 1.2"), "train: 30/120  2.5/s, 0:36 left  loss 1.2"),
        (Progress("train", 1, 300, 0.5, 598.0), "train: 1/300  0.5/s, 9:58 left"),
        (Progress("embed", 256, 3080, 0.0, 0.0), "embed: 256/3080"),
        (Progress("evaluate", 0, 1, 0.0, 0.0), "evaluate: ..."),
        (Progress("evaluate", 1, 1, 0.0, 0.0), "evaluate: done"),
    ],
)
def test_a_line_says_what_is_known(progress: Progress, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with progress_line() as show:
        show(progress)
    assert capsys.readouterr().err == line + "\n"


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_line(quiet=True) as show:
        show(Progress("train", 1, 2, 1.0, 1.0))
    assert capsys.readouterr().err == ""
