"""`kvlp zeroshot --fit`, `--calibration`, `--ensemble` and `--explain`, end to end on drawn radiographs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kvlp.cli import main
from kvlp.datasets.manifest import Manifest
from kvlp.datasets.phantom import generate_phantom

CLASSES = ["cardiomegaly", "pleural effusion"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of phantoms, all in one split that is not called dev."""
    folder = tmp_path_factory.mktemp("drawn")
    generate_phantom(folder, patients=24, seed=3, size=96, jobs=1, fractions={"dev": 0.9, "test": 0.1})
    return folder / "manifest.csv"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return int(exit_.value.code or 0), captured.out, captured.err


def call(drawn: Path, *more: object) -> list[object]:
    path = Manifest.load(drawn).path_of(Manifest.load(drawn)[0])
    return ["zeroshot", "phantom-tiny", path, "--classes", ",".join(CLASSES), "--no-synonyms", *more]


def test_fit_save_and_use_again(drawn: Path, tmp_path: Path, capsys: Any) -> None:
    saved = tmp_path / "c.json"
    code, out, err = run(
        capsys, *call(drawn, "--fit", drawn, "--threshold", "sensitivity 0.9", "--save", saved, "--json")
    )
    assert code == 0, err
    fitted = json.loads(out)
    assert fitted["calibrated"] is True
    assert all(0 < row["threshold"] < 1 and row["calibrated"] for row in fitted["classes"])
    image = fitted["images"][0]
    for row in fitted["classes"]:
        assert image["said"][row["name"]] == int(image["scores"][row["name"]] >= row["threshold"])
    assert f"calibration written to {saved}" in err
    held = json.loads(saved.read_text())
    assert held["threshold"] == "sensitivity 0.9"
    assert 0 < held["classes"]["cardiomegaly"]["n_patients"] < 24
    code, out, _ = run(capsys, *call(drawn, "--calibration", saved, "--json"))
    assert code == 0
    assert json.loads(out) == fitted
    code, out, _ = run(capsys, *call(drawn, "--calibration", saved))
    assert "as calibrated on validation images" in out
    code, _, err = run(capsys, "zeroshot", "phantom-tiny", "--classes", CLASSES[0], "--fit", drawn, "--save", saved)
    assert code == 0, "fitting needs no image"


def test_a_class_without_labels_is_told_in_one_line(drawn: Path, capsys: Any) -> None:
    code, out, err = run(
        capsys, "zeroshot", "phantom-tiny", drawn.parent / "images", "--classes", "cardiomegaly,dextrocardia",
        "--fit", drawn, "--fit-split", "test", "--method", "temperature", "--csv",
    )  # fmt: skip
    assert code == 0, err
    assert out.splitlines()[0] == "path,cardiomegaly,dextrocardia,flag"
    assert any("'dextrocardia' has no validation image labelled" in line for line in err.splitlines())
    assert "Traceback" not in err


def test_explanations_are_written(drawn: Path, tmp_path: Path, capsys: Any) -> None:
    code, _, err = run(capsys, *call(drawn, "--explain", tmp_path / "why", "--heat", "features"))
    assert code == 0, err
    rows = json.loads((tmp_path / "why" / "explanations.json").read_text())
    assert [row["class"] for row in rows] == CLASSES
    for row in rows:
        with Image.open(tmp_path / "why" / row["picture"]) as picture:
            pixels = np.asarray(picture)
        assert pixels.shape[1] == 720
        half = pixels[:360].astype(int)
        assert (half[:, :340].max(axis=-1) == half[:, :340].min(axis=-1)).all(), "the image as it is, grey"
        assert (half[:, 380:, 0] - half[:, 380:, 2]).max() > 60, "beside it the map in colour"
        assert row["heat"]["method"] == "features"
        assert len(row["prompts"]["present"]["best"]) == 3
    assert str(tmp_path / "why") in err


def test_an_ensemble(drawn: Path, tiny_folder: Path, capsys: Any) -> None:
    code, out, err = run(capsys, *call(drawn, "--ensemble", tiny_folder, "--json"))
    assert code == 0, err
    both = json.loads(out)
    assert "phantom-tiny + " in both["model"]
    assert len(both["model_hash"]) == 64
    assert not both["calibrated"]
    assert both["images"][0]["said"] is None


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--save", "c.json"], 2, "nothing to save without --fit"),
        (["--fit", "a.csv", "--calibration", "b.json"], 2, "one of --fit and --calibration"),
        (["--heat", "cam"], 2, "'occlusion', 'features' or 'attention'"),
        (["--calibration", "none.json"], 1, "not readable as a calibration"),
        (["--fit", "none.csv"], 1, "none.csv"),
    ],
)
def test_wrong_calls(drawn: Path, capsys: Any, arguments: list[str], code: int, message: str) -> None:
    got, _, err = run(capsys, *call(drawn, *arguments))
    assert got == code
    assert message in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("wrong", "words"), [(["--threshold", "best"], "rule 'best'"), (["--method", "best"], "calibration is 'best'")]
)
def test_wrong_ways_to_fit(drawn: Path, capsys: Any, wrong: list[str], words: str) -> None:
    code, _, err = run(capsys, *call(drawn, "--fit", drawn, *wrong))
    assert (code, len(err.splitlines())) == (1, 1)
    assert words in err
