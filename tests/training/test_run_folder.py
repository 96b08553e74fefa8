"""Whether a run may be gone on with: what changes its outcome may not change, anything else may."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kvlp.datasets.manifest import Manifest
from kvlp.errors import ConfigError
from kvlp.training.recipe import load_recipe
from kvlp.training.run_folder import open_run_folder, rows_up_to

RECIPE = "smoke-cpu"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    path = tmp_path_factory.mktemp("data") / "manifest.csv"
    path.write_text("id,image,text,patient_id,split\n1,1.png,No effusion.,p1,train\n", encoding="utf-8")
    return Manifest.load(path)


@pytest.fixture
def run(manifest: Manifest, tmp_path: Path) -> Path:
    open_run_folder(load_recipe(RECIPE), manifest, tmp_path / "run", resume=False)
    return tmp_path / "run"


@pytest.mark.parametrize("setting", ["data.workers=2", "threads=3", "save_every=7", "evaluation=[]", "name=other"])
def test_what_does_not_change_the_outcome_may_change(setting: str, run: Path, manifest: Manifest):
    before = (run / "run.json").read_bytes()
    open_run_folder(load_recipe(RECIPE, [setting]), manifest, run, resume=True)
    assert (run / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("seed=1", "seed"),
        ("data.augment=false", "data.augment"),
        ("stages.0.losses.knowledge.pairs=8", "stages.0.losses.knowledge.pairs"),
        ("precision=bf16", "precision"),
        ("stages.0.losses.entity=null", "stages.0.losses.entity"),
    ],
)
def test_what_changes_the_outcome_is_refused_by_its_key(setting: str, key: str, run: Path, manifest: Manifest):
    with pytest.raises(ConfigError, match=f"of another recipe or of other data: {key} differs; set it as it was"):
        open_run_folder(load_recipe(RECIPE, [setting]), manifest, run, resume=True)


def test_a_run_of_an_older_version_is_gone_on_with(run: Path, manifest: Manifest):
    """Keys that came since have their defaults in it; one that is gone, or an unreadable file, is refused."""
    told = json.loads((run / "run.json").read_text())
    del told["recipe"]["data"]["workers"], told["recipe"]["stages"][0]["head_lr"]
    (run / "run.json").write_text(json.dumps(told))
    open_run_folder(load_recipe(RECIPE), manifest, run, resume=True)
    told["recipe"]["gone"] = 1
    for content in (json.dumps(told), "{", "[]"):
        (run / "run.json").write_text(content)
        with pytest.raises(ConfigError, match=r"this version of kvlp can go on with, got one that it cannot read"):
            open_run_folder(load_recipe(RECIPE), manifest, run, resume=True)


def test_other_data_is_refused(run: Path, manifest: Manifest, tmp_path: Path):
    path = tmp_path / "other.csv"
    path.write_text("id,image,text,patient_id,split\n2,2.png,No effusion.,p1,train\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="of other data: the manifest's rows differ"):
        open_run_folder(load_recipe(RECIPE), Manifest.load(path), run, resume=True)


def test_rows_of_steps_after_the_state_are_dropped_and_half_a_row_too(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    rows = [json.dumps({"stage": stage, "step": step}) for stage in (0, 1) for step in (1, 2, 3)]
    path.write_text("\n".join(rows) + '\n{"stage": 1, "st', encoding="utf-8")
    rows_up_to(path, 1, 2)
    assert path.read_text() == "".join(row + "\n" for row in rows[:5])
    rows_up_to(tmp_path / "none.jsonl", 1, 2)
