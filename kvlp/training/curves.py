"""Curves of a run for TensorBoard, while it goes on."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kvlp.errors import MissingExtraError
from kvlp.training.run_folder import METRICS, VALIDATION

__all__ = ["FOLDER", "Curves"]

#: Where the curves lie in the run folder.
FOLDER = "tensorboard"
#: Points are on disk after so many seconds.
FLUSH_S = 10


class Curves:
    """Writes the numbers of metrics.jsonl and validation.jsonl as TensorBoard scalars, over the steps of all stages.

    The folder is written anew from these two files each time a run begins or goes on, so that steps which are taken
    again have one point.

    Raises:
        MissingExtraError: tensorboard is not installed.
    """

    def __init__(self, out: Path) -> None:
        self.require()
        from torch.utils.tensorboard import SummaryWriter

        logging.getLogger("tensorboard").setLevel(logging.ERROR)
        shutil.rmtree(out / FOLDER, ignore_errors=True)
        self._writer: Any = SummaryWriter(str(out / FOLDER), flush_secs=FLUSH_S)
        self._taken = 0
        self._before: dict[int, int] = {}  # stage -> steps of the stages before it
        for name, add in ((METRICS, self.step), (VALIDATION, self.validation)):
            path = out / name
            for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
                add(json.loads(line))

    @staticmethod
    def require() -> None:
        """See that tensorboard is there.

        Raises:
            MissingExtraError: it is not.
        """
        try:
            import tensorboard  # noqa: F401
        except ImportError:
            raise MissingExtraError("tensorboard", "tensorboard") from None

    def step(self, row: Mapping[str, Any]) -> None:
        """Add a row of metrics.jsonl."""
        self._before.setdefault(row["stage"], self._taken)
        self._taken += 1
        scalars = {"loss": row["loss"], **{f"loss/{name}": value for name, value in row["parts"].items()}}
        scalars |= {name: row[name] for name in ("lr", "logit_scale", "grad_norm", "skipped")}
        scalars |= {"seconds/waiting": row["data_s"], "seconds/computing": row["step_s"]}
        self._add(scalars, row)

    def validation(self, row: Mapping[str, Any]) -> None:
        """Add a row of validation.jsonl."""
        figures = {name: value for name, value in row.items() if name not in ("stage", "name", "step")}
        self._add({f"held-out/{name.replace(' ', '_')}": value for name, value in figures.items()}, row)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()

    def _add(self, scalars: Mapping[str, float], row: Mapping[str, Any]) -> None:
        step = self._before.get(row["stage"], 0) + row["step"]
        for tag, value in scalars.items():
            self._writer.add_scalar(tag, float(value), step)
