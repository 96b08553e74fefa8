"""`kvlp eval` as a user types it; the model is planted, so no torch is loaded."""

import json
import sys
from types import ModuleType

import pytest

from kvlp.cli import main
from kvlp.eval.results import read_results


@pytest.fixture
def world(fakes, tmp_path, monkeypatch):
    """A manifest with train and test patients, and a `kvlp.load` that returns the planted model."""
    from dataclasses import replace

    from kvlp.datasets.manifest import Manifest

    folder = tmp_path / "data"
    rows = list(fakes.write_manifest(folder, patients=60))
    rows = [replace(r, split="train" if i < 60 else "test") for i, r in enumerate(rows)]
    Manifest(rows, folder).save(folder / "manifest.csv")
    checkpoints = ModuleType("kvlp.checkpoints")
    checkpoints.load = lambda name, device="cpu": fakes.Model()
    monkeypatch.setitem(sys.modules, "kvlp.checkpoints", checkpoints)
    return folder


def run(*args):
    try:
        main([str(a) for a in args])
    except SystemExit as done:
        return done.code or 0
    return 0


def test_eval_writes_rows_and_a_page(world, tmp_path, capsys):
    out = tmp_path / "out"
    args = ["eval", "ckpt", "--data", world / "manifest.csv", "--out", out, "--graph", "none", "--resamples", 40]
    assert run(*args, "--controls", "train", "--seed", 5, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    rows = read_results(out / "results.jsonl")
    assert [row.to_dict() for row in rows] == document["rows"]
    assert document["images"] == 60
    macro = [r for r in rows if r.metric == "auc" and r.target == "macro" and r.setting == "POS"]
    assert {r.group for r in macro} == {"named in training", "all"}
    assert {r.provenance.seed for r in rows} == {5}
    assert {r.provenance.split for r in rows} == {"test"}
    assert any(r.setting == "source only" for r in rows)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "border only" in page
    assert "data:image/" not in page


def test_thresholds_from_a_split_and_groups_of_patients(world, tmp_path, capsys):
    from dataclasses import replace

    from kvlp.datasets.manifest import Manifest

    rows = Manifest.load(world / "manifest.csv")
    sexed = [replace(r, extra={"sex": "FM"[int(r.id.split("-")[0]) % 2]}) for r in rows]
    Manifest(sexed, world).save(world / "sexed.csv")
    out = tmp_path / "out"
    args = ["eval", "ckpt", "--data", world / "sexed.csv", "--out", out, "--graph", "none", "--resamples", 20]
    assert run(*args, "--validation", "train") == 0
    said = capsys.readouterr().out
    assert len(said.splitlines()) < 60  # subgroups and thresholds stand in the rows, not on the terminal
    rows = read_results(out / "results.jsonl")
    chosen = {r.method for r in rows if r.metric == "threshold"}
    assert len(chosen) == 1
    assert chosen.pop().startswith("youden on train (60 images, ")
    assert {r.group for r in rows if r.metric == "subgroup_auc"} >= {"sex: female", "sex: male"}


def test_eval_in_words_with_pictures_queries_and_a_contrast(world, tmp_path, capsys):
    out = tmp_path / "out"
    args = ["eval", "ckpt", "--data", world / "manifest.csv", "--out", out, "--graph", "none", "--resamples", 20]
    extra = ["--classes", "cardiomegaly vs pleural effusion, bulla", "--query", "bulla=bulla", "--with-images"]
    assert run(*args, *extra) == 0
    said = capsys.readouterr().out
    assert "cardiomegaly vs pleural effusion" in said
    assert "precision_at_10" in said
    assert "report.html" in said
    assert "data:image/" in (out / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("extra", "status", "message"),
    [
        (["--split", "dve"], 1, "no record has split 'dve'"),
        (["--classes", "cardiomegalie"], 1, "class 'cardiomegalie'"),
        (["--query", "no target"], 2, "WORDS=CLASS"),
        (["--style", "fancy"], 2, "ensemble"),
        (["--controls", "test"], 1, "patients stand in both"),
        (["--validation", "test"], 1, "both the validation and the scored rows"),
    ],
)
def test_wrong_use_is_one_line(world, tmp_path, capsys, extra, status, message):
    args = ["eval", "ckpt", "--data", world / "manifest.csv", "--out", tmp_path / "o", "--graph", "none"]
    assert run(*args, "--resamples", 5, *extra) == status
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "o" / "report.html").exists()


def test_a_missing_or_broken_manifest_is_one_line(world, tmp_path, capsys):
    assert run("eval", "ckpt", "--data", tmp_path / "gone.csv", "--out", tmp_path / "o") == 1
    (tmp_path / "bad.csv").write_bytes(b"\xff\xfe\x00\x00")
    assert run("eval", "ckpt", "--data", tmp_path / "bad.csv", "--out", tmp_path / "o") == 1
    assert len(capsys.readouterr().err.strip().splitlines()) == 2
