"""Curves for TensorBoard: one point a step, also of a run that was cut and gone on with."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from kvlp.datasets.manifest import Manifest
from kvlp.errors import MissingExtraError
from kvlp.training.curves import FOLDER, Curves
from kvlp.training.recipe import load_recipe
from kvlp.training.run import Progress, run_recipe


def row(stage: int, step: int, loss: float) -> dict[str, Any]:
    return {
        "stage": stage, "name": "align", "step": step, "loss": loss, "parts": {"clip": loss, "clip.accuracy": 0.5},
        "lr": 1e-3, "logit_scale": 14.0, "grad_norm": 1.0, "skipped": False, "data_s": 0.1, "step_s": 0.2,
    }  # fmt: skip


def points(out: Path) -> dict[str, list[tuple[int, float]]]:
    """Every scalar in the folder's event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(out / FOLDER), size_guidance={"scalars": 0})
    found.Reload()
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_steps_are_counted_through_the_stages_and_begin_anew_from_the_files(tmp_path: Path):
    pytest.importorskip("tensorboard")
    rows = [row(0, 1, 3.0), row(0, 2, 2.0), row(1, 1, 1.5)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "validation.jsonl").write_text(json.dumps({"stage": 1, "name": "align", "step": 1, "seen POS": 0.75}))
    for _ in range(2):  # as if the run had been cut
        curves = Curves(tmp_path)
        curves.step(row(1, 2, 1.25))
        curves.validation({"stage": 1, "name": "align", "step": 2, "seen POS": 0.875})
        curves.close()
    found = points(tmp_path)
    assert found["loss"] == [(1, 3.0), (2, 2.0), (3, 1.5), (4, 1.25)]
    assert found["loss/clip.accuracy"] == [(step, 0.5) for step in range(1, 5)]
    assert found["held-out/seen_POS"] == [(3, 0.75), (4, 0.875)]
    assert {"lr", "logit_scale", "grad_norm", "skipped", "seconds/waiting", "seconds/computing"} <= set(found)


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'kvlp\[tensorboard\]'"):
        Curves(tmp_path)


class Crash(Exception):
    """Stands for the end of the process."""


@pytest.mark.slow
def test_a_cut_run_has_one_point_a_step(noise_manifest: Callable[[Sequence[str]], Manifest], tmp_path: Path):
    pytest.importorskip("tensorboard")
    manifest = noise_manifest(("Left pleural effusion.", "Pneumothorax.", "The heart is enlarged.", "No effusion."))
    recipe = load_recipe("smoke-cpu", ["threads=1", "tensorboard=true", "save_every=3", "stages.0.batch_size=8"])

    def cut(p: Progress) -> None:
        if p.phase.startswith("train") and p.done == 5:
            raise Crash

    with pytest.raises(Crash):
        run_recipe(recipe, manifest, tmp_path / "run", progress=cut)
    assert [step for step, _ in points(tmp_path / "run")["loss"]] == [1, 2, 3, 4, 5]
    run_recipe(recipe, manifest, tmp_path / "run", resume=True)
    told = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert points(tmp_path / "run")["loss"] == [(i, pytest.approx(r["loss"])) for i, r in enumerate(told, 1)]
