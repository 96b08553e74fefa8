"""The benchmark of training: the same tensors for all, a figure for each contestant, and wrong settings named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kvlp.errors import ConfigError
from kvlp.eval.bench import BenchOptions, run_bench


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"towers": "x"}, "no setting 'towers'; it has steps, patients, loaded, threads, only"),
        ({"only": "speed"}, "only=speed: expected some of steps,memory,loading"),
        ({"steps": "-1"}, "steps=-1: expected a count such as 3"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, str], message: str):
    with pytest.raises(ConfigError, match=message):
        run_bench("train", BenchOptions(settings=settings))


@pytest.mark.slow
def test_open_clips_step_and_ours_move_the_same_towers(tmp_path: Path):
    from kvlp.datasets.phantom.generate import generate_phantom
    from kvlp.eval.bench.train_steps import prepare_work
    from kvlp.eval.bench.train_worker import contestant

    manifest = generate_phantom(tmp_path / "data", patients=20, size=64, fractions={"train": 1.0})
    overrides = ["model.image_size=48", "stages.1.batch_size=8", "threads=1", "knowledge.min_patients=2"]
    work = prepare_work("kad-phantom", manifest, tmp_path / "run", steps=2, overrides=overrides)
    assert work.images == sum(len(micro[0]["row"]) for micro, _ in work.steps)
    assert {tuple(micro[0]["text"].shape)[1] for micro, _ in work.steps} == {48}
    before = {name: value.clone() for name, value in work.prepared.model.state_dict().items()}
    for name in ("clip", "align", "open_clip"):
        contestant(name, work)()
    assert all(torch.equal(value, before[n]) for n, value in work.prepared.model.state_dict().items())  # copies train


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves its file open
def test_every_part_gives_its_figures():
    settings = {"steps": "1", "threads": "1", "patients": "30", "loaded": "8"}
    measures = run_bench("train", BenchOptions(repeats=1, settings=settings))
    subjects = {(m.name.split(",")[0], m.subject, m.unit) for m in measures}
    for ours in ("kvlp, clip", "kvlp, KAD stage 2"):
        assert ("steps", f"{ours} / open_clip", "ratio") in subjects
        assert ("peak memory", f"{ours} / open_clip", "ratio") in subjects
    assert ("loading", "kvlp, later epochs / webdataset + Pillow", "ratio") in subjects
    assert all(m.value > 0 for m in measures)
