"""Whole jobs: pretrain with evaluation, control and page; the quickstart; and what they refuse."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from kvlp.cli import main
from kvlp.datasets.manifest import Manifest
from kvlp.errors import ConfigError, DataError, KvlpError
from kvlp.eval.intervals import auc_table
from kvlp.eval.results import read_results
from kvlp.training.recipe import EvaluationPart, load_recipe
from kvlp.workflows.compare import Comparison, encoder_tables, plan
from kvlp.workflows.pretrain import evaluation_rows, pretrain
from kvlp.workflows.quickstart import _Beside, quickstart

REPORTS = {1: "There is a left pleural effusion.", 0: "No pleural effusion. Heart size is normal."}


@pytest.fixture(scope="module")
def manifest_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 bright or dark squares: bright ones have an effusion; a cavity is labelled but never named."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    lines = ["id,image,text,patient_id,split,labels,source"]
    for i in range(48):
        sick = i % 2
        pixels = rng.normal(70 + 110 * sick, 12, size=(48, 48)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        labels = f"pleural_effusion={sick};lung_cavity={int(i % 4 == 0)}"
        lines.append(f"{i},{i}.png,{REPORTS[sick]},p{i},{'train' if i < 32 else 'test'},{labels},squares")
    path = folder / "manifest.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.slow
def test_pretrain_evaluates_compares_and_writes_one_page(manifest_path: Path, tmp_path: Path):
    out = tmp_path / "run"
    settings = ["stages.0.steps=3", "threads=1"]
    outcome = pretrain("smoke-cpu", data=manifest_path, out=out, overrides=settings, compare=["smoke-cpu"])
    rows = read_results(out / "results.jsonl")
    assert [r.to_dict() for r in rows] == [r.to_dict() for r in outcome.results]
    naming = {(r.target, r.task) for r in rows if r.metric == "auc" and r.setting in ("POS", "NEG", "PAIR")}
    assert {("pleural_effusion", "prompted classification"), ("lung_cavity", "zero-shot")} <= naming
    own = [r for r in rows if r.metric == "auc_difference" and r.target == "macro"]
    assert own
    assert all(r.value == 0 for r in own)  # compared with itself
    page = (out / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"""(?:src|href)\s*=\s*["']https?:""", page)
    assert "data:image/" not in page  # pictures of patients only when asked for
    assert "prompted classification" in page
    named = json.loads((out / "checkpoint" / "kvlp.json").read_text())["card"]["named_concepts"]
    assert "pleural_effusion" in named
    assert "lung_cavity" not in named


def test_the_rows_of_an_evaluation(manifest_path: Path):
    manifest = Manifest.load(manifest_path)
    assert len(evaluation_rows(manifest, EvaluationPart())) == 16
    assert len(evaluation_rows(manifest, EvaluationPart(split="train", source="squares"))) == 32
    assert len(evaluation_rows(manifest, EvaluationPart(source="elsewhere"))) == 0


def test_the_quickstart_leaves_other_folders_alone(tmp_path: Path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(ConfigError, match="no quickstart; choose another --out"):
        quickstart(tmp_path)
    assert (tmp_path / "precious.txt").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_quickstart_runs_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    steps = ("stages.0.steps=4", "stages.1.epochs=0", "stages.1.steps=8", "stages.2.steps=4", "threads=1")
    outcome = quickstart("q", images=240, overrides=steps)
    assert outcome.figure("POS", "seen") is not None
    assert outcome.figure("POS minus shuffled graph", "unseen") is not None
    queries = [r for r in outcome.results if r.target == "all queries"]
    assert {r.metric for r in queries} == {"precision_at_10", "lift_at_10"}
    page = outcome.page.read_text(encoding="utf-8")
    assert page.count("data:image/") > 100
    likes = page[page.index("like this image") :]
    assert int(re.search(r"(\d) of 8 are what was asked for", likes).group(1)) >= 1  # the image itself  # type: ignore[union-attr]
    again = quickstart(tmp_path / "q", images=240, overrides=steps, control=False)
    assert again.figure("POS", "seen").value == outcome.figure("POS", "seen").value  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_call_beside_answers_refuses_or_is_missed():
    with _Beside(os.path.basename, "a/b") as beside:
        assert beside.result() == "b"
    with _Beside(load_recipe, "nowhere") as beside, pytest.raises(KvlpError, match=r"nowhere"):  # type: ignore[arg-type]
        beside.result()
    with _Beside(os._exit, 9) as beside, pytest.raises(DataError, match="ended from outside"):
        beside.result()


def test_a_call_beside_ends_with_its_block():
    with pytest.raises(ConfigError, match="stop"), _Beside(time.sleep, 100) as beside:  # type: ignore[arg-type]
        raise ConfigError("stop")
    assert not beside.process.is_alive()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_recipes_are_compared_over_seeds_in_one_table(manifest_path: Path, tmp_path: Path):
    settings = ["stages.0.steps=3", "threads=1", "smoke-cpu:stages.0.lr=0.004"]
    out, others = tmp_path / "run", ["no-graph", "smoke-cpu"]
    outcome = pretrain("smoke-cpu", data=manifest_path, out=out, overrides=settings, compare=others, seeds=[0, 1])
    made = {str(p.parent.parent.relative_to(out)) for p in out.rglob("checkpoint/kvlp.json")}
    first = {".", "compare/no-graph", "compare/smoke-cpu-2"}
    assert made == first | {f"compare/seed-1/{name}" for name in ("smoke-cpu", "no-graph", "smoke-cpu-2")}
    rows = read_results(out / "comparison.jsonl")
    again = [r for r in rows if r.setting.endswith("minus smoke-cpu-2")]
    assert again
    assert all((r.value, r.low, r.high) == (0, 0, 0) for r in again)
    assert all("mean over 2 seeds" in r.method for r in rows)
    table = (out / "comparison.md").read_text()
    assert table.startswith("| classes | score | model | AUC | over seeds | smoke-cpu minus it |")
    assert table.count("\n") == 2 + 3 * 3 * 3  # three groups, scores and models
    assert outcome.tables["test"][0][0] == "classes"
    assert "Comparison" in (out / "report.html").read_text()


def test_runs_of_a_comparison(tmp_path: Path):
    settings = ["threads=1", "clip-baseline:stages.0.epochs=3"]
    runs = plan(["kad-phantom", "clip-baseline", "no-graph"], tmp_path, seeds=[5, 6], overrides=settings)
    assert [(run.recipe.name, run.recipe.seed) for run in runs] == [
        (name, seed) for seed in (5, 6) for name in ("kad-phantom", "clip-baseline", "no-graph")
    ]
    assert runs[0].folder == tmp_path
    assert runs[2].folder == tmp_path / "compare" / "no-graph"
    assert runs[3].folder == tmp_path / "compare" / "seed-6" / "kad-phantom"
    assert [run.recipe.stages[0].epochs for run in runs[:2]] == [0, 3]
    assert {run.recipe.threads for run in runs} == {1}
    assert runs[2].recipe.query_network == runs[0].recipe.query_network


def test_differences_of_macro_means_by_hand():
    rng = np.random.default_rng(0)
    labels = np.tile([[1.0, 0.0], [0.0, 1.0]], (20, 1))
    tables = {}
    for name, noise in (("good", 0.1), ("bad", 5.0)):
        scores = [labels + rng.normal(size=labels.shape) * noise for _ in range(2)]
        tables[name] = [auc_table(labels, s, names=["a", "b"], n=200, seed=3) for s in scores]
    comparison = Comparison({"all": ["a", "b"]})
    for name, (one, two) in tables.items():
        comparison.add(name, dict.fromkeys(("POS", "NEG", "PAIR"), one))
        comparison.add(name, dict.fromkeys(("POS", "NEG", "PAIR"), two))
    means = {name: np.mean([table.macro.value for table in both]) for name, both in tables.items()}
    lead = comparison.difference("good", "bad", "all", "POS")
    assert lead.value == pytest.approx(means["good"] - means["bad"])
    assert 0 < lead.low < lead.value < lead.high
    assert lead.p < 0.05
    assert comparison.figure("bad", "all", "POS")[0] == pytest.approx(means["bad"])
    back = comparison.difference("bad", "good", "all", "POS")
    assert (back.low, back.high) == (pytest.approx(-lead.high), pytest.approx(-lead.low))
    assert [row[1] for row in comparison.rows(["good"])] == ["score", *["POS"] * 2, *["NEG"] * 2, *["PAIR"] * 2]


def test_one_class_against_another_is_compared_by_its_own_score():
    labels = np.tile([[1.0], [0.0]], (20, 1))
    tables = {name: auc_table(labels, s, names=["a vs b"], n=50, seed=3) for name, s in (("m", labels), ("n", -labels))}
    comparison = Comparison({"all": ["a vs b"]})
    for name, table in tables.items():
        found = SimpleNamespace(main_setting="VERSUS", tables={("auc", "VERSUS"): table, ("auc", "POS"): None})
        comparison.add(name, encoder_tables(found))  # type: ignore[arg-type]
    head, mine, other = comparison.rows(["m"])
    assert head[:4] == ["classes", "score", "model", "AUC"]
    assert mine[:4] == ["all", "VERSUS", "m", "1.000"]
    assert other[:4] == ["all", "VERSUS", "n", "0.000"]
    assert other[-1].startswith("1.000")
    assert [(r.setting, r.value) for r in comparison.results(["m"])] == [("VERSUS of m minus n", 1.0)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["smoke-cpu", "no-graph"], "one recipe, got 2; add --compare to compare them"),
        (["--compare", "smoke-cpu", "no-graph", "--seeds", "0,x"], "expected whole numbers such as 0,1,2, got '0,x'"),
    ],
)
def test_what_the_command_line_cannot_mean_is_told(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as ended:
        main(["pretrain", *arguments, "--data", str(tmp_path / "m.csv"), "--out", str(tmp_path / "run")])
    assert ended.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()
