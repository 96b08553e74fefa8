"""`kvlp data` from the outside: exit status, JSON, and one line for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kvlp.cli import main
from kvlp.datasets.manifest import Manifest
from kvlp.datasets.shards import ShardReader


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main([str(a) for a in args])
    captured = capsys.readouterr()
    return int(caught.value.code or 0), captured.out, captured.err


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64] / 64
    lungs = sum(np.exp(-(((x - c) / 0.13) ** 2) - ((y - 0.45) / 0.27) ** 2) for c in (0.28, 0.72))
    rows = ["id,image,text,patient_id"]
    for number in range(10):
        grey = np.clip(200 - 150 * lungs + rng.normal(0, 2, (64, 64)), 0, 255).astype(np.uint8)
        Image.fromarray(grey).save(tmp_path / f"{number}.png")
        rows.append(f"00{number},{number}.png,Text {number}.,p{number // 2}")
    (tmp_path / "m.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


@pytest.mark.slow
def test_check_split_and_shards(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "data", "check", folder / "m.csv")
    assert (code, out) == (0, "10 rows: 0 errors, 0 warnings\n")
    split = ("data", "split", folder / "m.csv", "--out", folder / "s.csv", "--fractions", "train=.6,dev=.4", "--json")
    code, out, _ = run(capsys, *split)
    assert code == 0
    assert json.loads(out)["splits"] == {"train": 6, "dev": 4}
    assert Manifest.load(folder / "s.csv")[7].id == "007"
    shards = (
        "data",
        "shards",
        folder / "s.csv",
        "--out",
        folder / "sh",
        "--split",
        "train",
        "--max-samples",
        4,
        "--json",
    )
    code, out, _ = run(capsys, *shards)
    assert code == 0
    assert json.loads(out) == {"out": str(folder / "sh"), "shards": 2, "samples": 6, "skipped": 0}
    assert ShardReader(folder / "sh").verify() == []
    code, _, err = run(capsys, *shards)
    assert code == 1
    assert "holds shards already" in err


def test_check_names_rows_and_exits_with_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "3.png").write_bytes((folder / "3.png").read_bytes()[:90])
    (folder / "5.png").unlink()
    code, out, _ = run(capsys, "data", "check", folder / "m.csv", "--json")
    report = json.loads(out)
    assert code == 1
    assert not report["ok"]
    assert [(p["row"], p["kind"]) for p in report["problems"]] == [(4, "corrupt_image"), (6, "missing_image")]
    assert report["counts"] == {"corrupt_image": 1, "missing_image": 1}
    code, out, _ = run(capsys, "data", "check", folder / "m.csv")
    assert code == 1
    assert "row 4: error: corrupt_image: " in out
    allowed = ("--allow", "corrupt_image", "--allow", "missing_image")
    assert run(capsys, "data", "check", folder / "m.csv", *allowed)[0] == 0


def test_import_a_folder_and_check_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "data", "import", "folder", folder, "--out", folder / "o", "--json")
    assert code == 0
    assert json.loads(out)["records"] == 10
    assert run(capsys, "data", "check", folder / "o" / "manifest.csv")[0] == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("check", "{}/none.csv"), "cannot be opened"),
        (("check", "{}"), "expected a file ending in .csv, .jsonl, .parquet"),
        (("check", "{}/0.png"), "ending in .csv"),
        (("import", "nothing", "{}", "--out", "{}/o"), "no reader is called 'nothing'"),
        (("import", "folder", "--out", "{}/o"), "needs a source"),
        (("split", "{}/m.csv", "--out", "/elsewhere/s.csv"), "where the image paths start from"),
        (("split", "{}/m.csv", "--out", "{}/s.csv", "--fractions", "a=b"), "expected NAME=SHARE"),
        (("shards", "{}/m.csv", "--out", "{}/x", "--split", "test"), "no record has split 'test'"),
    ],
)
def test_what_is_wrong_takes_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], args: tuple[str, ...], message: str
) -> None:
    code, _, err = run(capsys, "data", *(a.replace("{}", str(folder)) for a in args))
    assert code == 1
    assert message in err
    assert err.startswith("kvlp: error: ")
    assert err.count("\n") == 1


def test_help_and_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("import", "check", "split", "shards"):
        assert run(capsys, "data", verb, "--help")[0] == 0
    assert run(capsys, "data", "check")[0] == 2
