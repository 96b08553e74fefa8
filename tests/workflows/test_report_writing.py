"""Reports written and scored: the baselines are what they say, figures and files are there."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import kvlp.workflows.report_writing as writing
from kvlp.datasets.manifest import Manifest
from kvlp.errors import ConfigError, DataError

EFFUSION, PNEUMOTHORAX, NORMAL = (
    "There is a left pleural effusion.",
    "Large right pneumothorax.",
    "Heart size is normal.",
)


class Stub:
    """Stands for a model: an image's vector is told by its grey value; it writes what it is told to."""

    def __init__(self, texts: list[str]) -> None:
        self.texts, self.asked = texts, {}

    @property
    def decoder(self) -> Stub:
        return self

    def generate(self, images: list[Any], **asked: Any) -> list[str]:
        self.asked = asked
        return self.texts[: len(images)]

    def encode_image(self, images: list[Any]) -> np.ndarray:
        angles = np.array([float(image.mean()) / 255 * np.pi / 2 for image in images])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """Three training reports of the commonest kind are of two wordings; test images lie near one of each kind."""
    train = [(10, EFFUSION), (15, "Left pleural effusion."), (20, EFFUSION), (120, PNEUMOTHORAX), (240, NORMAL)]
    test = [(118, PNEUMOTHORAX), (12, EFFUSION), (250, NORMAL)]
    lines = ["id,image,text,patient_id,split"]
    for i, (grey, text) in enumerate([*train, *test]):
        Image.fromarray(np.full((8, 8), grey, dtype=np.uint8)).save(tmp_path / f"{i}.png")
        lines.append(f'r{i},{i}.png,"{text}",p{i},{"train" if i < len(train) else "test"}')
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Manifest.load(tmp_path / "manifest.csv")


@pytest.mark.slow
def test_written_reports_stand_beside_the_commonest_and_the_nearest(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[str]] = {}
    stub = Stub([PNEUMOTHORAX, "", NORMAL])
    monkeypatch.setattr(writing, "load", lambda _: stub)
    compare = writing.Evaluator.compare_systems

    def spied(self: Any, refs: Any, a: Any, b: Any, groups: Any) -> Any:
        seen[b[0]] = list(b)
        return compare(self, refs, a, b, groups)

    monkeypatch.setattr(writing.Evaluator, "compare_systems", spied)
    written = writing.write_reports("model", manifest, tmp_path / "out", resamples=20, method="beam", beams=2)
    assert stub.asked == {"method": "beam", "beams": 2}
    assert list(seen.values()) == [[EFFUSION] * 3, [PNEUMOTHORAX, EFFUSION, NORMAL]]
    f1 = {name: next(r for r in rows if r.metric == "concept-graph-f1") for name, rows in written.comparisons.items()}
    assert f1["nearest"].b == 1.0
    assert 0 < f1["nearest"].a < 1  # one report of three is empty
    assert f1["commonest"].b < f1["commonest"].a
    assert written.notes == ("1 of 3 written reports are empty",)
    lines = [json.loads(line) for line in (tmp_path / "out" / "reports.jsonl").read_text().splitlines()]
    assert lines[0] == {"id": "r5", "reference": PNEUMOTHORAX, "generated": PNEUMOTHORAX}
    assert any(line.startswith("concept-graph-f1: written 0.") for line in written.lines())
    rows = [json.loads(line) for line in (tmp_path / "out" / "comparison.jsonl").read_text().splitlines()]
    assert {row["against"] for row in rows} == {"commonest", "nearest"}


def test_what_was_trained_on_and_splits_without_reports_are_refused(manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not trained on, got train"):
        writing.write_reports("model", manifest, tmp_path, split="train")
    bare = Manifest([r for r in manifest if r.split == "train"], manifest.root)
    silent = Manifest([r if r.split == "train" else type(r)(**{**vars_of(r), "text": ""}) for r in manifest], bare.root)
    with pytest.raises(DataError, match="rows of split 'test' with reports, got none"):
        writing.write_reports("model", silent, tmp_path)


def vars_of(record: Any) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_example_runs_in_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(__file__).parents[2] / "examples" / "write_reports.py"
    spec = importlib.util.spec_from_file_location("write_reports_example", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(["--out", str(tmp_path / "out"), "--smoke", "--method", "greedy", "--set", "threads=1"])
    assert "concept-graph-f1: written" in capsys.readouterr().out
    assert (tmp_path / "out" / "run" / "knowledge_store" / "reports.faiss").is_file()
