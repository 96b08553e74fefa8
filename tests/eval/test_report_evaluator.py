"""Evaluator and compare_systems: what is pooled, intervals, groups, paired tests, refusals, and the command."""

from __future__ import annotations

import contextlib
import csv
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kvlp.cli import main
from kvlp.errors import ConfigError, DataError, ShapeError
from kvlp.eval.reports import Evaluator, compare_systems
from kvlp.eval.reports.metric import Column, mean_column


def length(refs: Sequence[str], hyps: Sequence[str]) -> list[Column]:
    """The length of the hypothesis; an empty one is undefined."""
    return [mean_column("length", "characters", [len(h) or math.nan for h in hyps])]


def ratio(refs: Sequence[str], hyps: Sequence[str]) -> list[Column]:
    """Characters of all hypotheses over those of all references: no mean of reports."""
    parts = np.array([[len(h), len(r)] for r, h in zip(refs, hyps)], dtype=np.float64)
    return [
        Column("ratio", "characters over characters", parts[:, 0] / parts[:, 1], parts, lambda s: s[:, 0] / s[:, 1])
    ]


def test_overall_is_pooled_and_undefined_rows_are_left_out() -> None:
    scores = Evaluator([length, ratio])(refs=["aa", "aaaaaa", "aa"], hyps=["aaaa", "aaa", ""])
    assert scores.overall["length"].value == pytest.approx(3.5)
    assert (scores.overall["length"].n, scores.overall["ratio"].n) == (2, 3)
    assert scores.overall["ratio"].value == pytest.approx(7 / 10)  # not (2 + 0.5 + 0) / 3
    assert scores.per_report["ratio"] == pytest.approx([2.0, 0.5, 0.0])
    row = scores.rows()[1]
    assert (row["metric"], row["n"], row["definition"]) == ("ratio", 3, "characters over characters")
    assert row["method"] == "percentile bootstrap of reports"


def texts(n: int, seed: int, extra: int = 0) -> list[str]:
    return ["x" * (int(k) + extra) for k in np.random.default_rng(seed).integers(1, 20, n)]


def test_the_interval_is_that_of_a_slow_bootstrap_and_covers_the_value() -> None:
    hyps = texts(200, 1)
    interval = Evaluator([length], n=2000, seed=3)(refs=hyps, hyps=hyps).overall["length"]
    lengths = np.array([len(h) for h in hyps])
    rng = np.random.default_rng(8)
    slow = np.quantile([lengths[rng.integers(0, 200, 200)].mean() for _ in range(2000)], [0.025, 0.975])
    assert (interval.low, interval.high) == (pytest.approx(slow[0], abs=0.1), pytest.approx(slow[1], abs=0.1))
    assert interval.low < interval.value < interval.high


def test_reports_of_one_patient_are_drawn_together() -> None:
    hyps = [t for t in texts(40, 1) for _ in range(5)]
    alone = Evaluator([length])(refs=hyps, hyps=hyps).overall["length"]
    grouped = Evaluator([length])(refs=hyps, hyps=hyps, groups=np.repeat(np.arange(40), 5)).overall["length"]
    assert (grouped.high - grouped.low) > 1.7 * (alone.high - alone.low)
    assert (grouped.n, grouped.n_groups, grouped.method) == (200, 40, "percentile bootstrap of patients")


def test_a_single_report_has_no_interval() -> None:
    interval = Evaluator([length])(refs=["a"], hyps=["ab"]).overall["length"]
    assert interval.value == 2
    assert math.isnan(interval.low)
    assert interval.notes == ("no interval: a single report or patient",)


def test_a_system_against_itself_is_no_different() -> None:
    hyps = texts(50, 1)
    (row,) = compare_systems(hyps, hyps, hyps, [length], n=200)
    assert (row.difference.value, row.difference.low, row.difference.high) == (0, 0, 0)
    assert (row.p_permutation, row.p_holm, row.difference.p) == (1.0, 1.0, 1.0)


def test_a_longer_system_is_found_longer_and_the_sign_is_a_minus_b() -> None:
    refs, a, b = texts(60, 1), texts(60, 1, extra=2), texts(60, 1)
    rows = compare_systems(refs, a, b, [length, ratio], n=999)
    for row in rows:
        assert row.p_permutation == pytest.approx(1 / 1000)
        assert row.p_holm == pytest.approx(2 / 1000)  # Holm: the smaller of two counts twice
        assert row.difference.low > 0
    assert rows[0].difference.value == pytest.approx(2.0)
    back = compare_systems(refs, b, a, [length, ratio], n=999)
    assert [r.difference.value for r in back] == pytest.approx([-r.difference.value for r in rows])
    assert json.loads(json.dumps(rows[0].row()))["difference"]["value"] == pytest.approx(2.0)


def test_permutation_p_values_are_uniform_where_systems_do_not_differ() -> None:
    ps = [
        compare_systems(["a"] * 30, texts(30, s), texts(30, s + 1000), [length], n=99)[0].p_permutation
        for s in range(120)
    ]
    assert 0.02 <= np.mean(np.asarray(ps) <= 0.05) <= 0.11
    assert np.mean(ps) == pytest.approx(0.5, abs=0.08)


def test_swaps_keep_a_patient_together() -> None:
    """With two patients there are four swaps, two of them as large: no p-value may fall below a half."""
    refs, groups = ["a"] * 40, [0] * 20 + [1] * 20
    (row,) = compare_systems(refs, ["xx"] * 40, ["x"] * 40, [length], groups=groups, n=999)
    assert row.p_permutation > 0.4


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: Evaluator([length])(refs=["a"], hyps=[]), ShapeError, "got 1 refs and 0 hyps"),
        (lambda: Evaluator([length])(refs=[], hyps=[]), DataError, "at least one pair"),
        (lambda: Evaluator([length])(refs="a", hyps="b"), DataError, "expected a list of report texts, got one str"),
        (lambda: Evaluator([length])(refs=["a"], hyps=[None]), DataError, r"hyps\[0\]: .* got NoneType"),
        (lambda: Evaluator([length, length])(refs=["a"], hyps=["a"]), ConfigError, "two metrics have a column"),
        (lambda: Evaluator([]), ConfigError, "at least one metric"),
        (lambda: Evaluator("bleu-4"), ConfigError, "expected a list"),
        (lambda: Evaluator([length], n=0), ConfigError, "n is 0"),
    ],
)  # fmt: skip
def test_refusals(call: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = [
        ("No pneumothorax. Small left effusion.", "Small left effusion. No pneumothorax.", "Pneumothorax.", "p1"),
        ("Mild cardiomegaly.", "Mild cardiomegaly.", "No cardiomegaly.", "p2"),
        ("The lungs are clear.", "Clear lungs.", "Right pneumonia.", "p2"),
    ]
    path = tmp_path / "reports.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("findings", "ours", "theirs", "patient"), *rows])
    return path


def test_a_flipped_negation_moves_the_clinical_metrics_and_hardly_the_words() -> None:
    ref = (
        "The heart is mildly enlarged. There is a small left pleural effusion with adjacent atelectasis. "
        "There is no pneumothorax. The trachea is midline. Degenerative change of the thoracic spine is unchanged."
    )
    flipped = ref.replace("no pneumothorax", "a pneumothorax")
    names = ["bleu-1", "rouge-l", "chexpert-f1", "concept-graph-f1"]
    score = {n: v[0] for n, v in Evaluator(names, n=10)(refs=[ref], hyps=[flipped]).per_report.items()}
    assert score["bleu-1"] == pytest.approx(31 / 32, abs=0.01)
    assert score["rouge-l"] == pytest.approx(31 / 32, abs=0.01)
    assert score["chexpert-f1-micro"] == pytest.approx(8 / 9)  # 4 classes found, one made up
    assert score["concept-graph-f1"] < 0.88


def run(capsys: Any, *argv: str) -> str:
    with contextlib.suppress(SystemExit):
        main(["reports", *map(str, argv)])
    return str(capsys.readouterr().out)


def test_the_command_scores_and_compares(table: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "scores.csv"
    what = ("--metrics", "bleu-1,concept-graph-f1", "--groups", "patient")
    rows = json.loads(
        run(capsys, "score", table, "--refs", "findings", "--hyps", "ours", "--out", out, "--json", *what)
    )
    assert {r["metric"]: r["value"] for r in rows}["concept-graph-f1"] == pytest.approx(1.0)
    assert rows[0]["n_groups"] == 2
    written = list(csv.DictReader(out.read_text(encoding="utf-8").splitlines()))
    assert [r["concept-graph-f1"] for r in written] == ["1", "1", "1"]
    assert list(written[0])[:2] == ["row", "bleu-1"]
    shown = run(
        capsys, "score", table, "--refs", "findings", "--hyps", "ours", "--against", "theirs", "--metrics", "rouge-l"
    )
    assert shown.splitlines()[1].split()[:2] == ["rouge-l", "0.644"]


def test_the_command_plants_errors(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "planted.json"
    shown = run(capsys, "planted", "phantom", "--pairs", "5", "--metrics", "concept-graph-f1", "--out", out)
    assert "phantom, verbatim: right in share of pairs" in shown
    found = json.loads(out.read_text(encoding="utf-8"))["sources"]["phantom"]
    every = {r["kind"]: r for r in found["paraphrase"] if r["metric"] == "concept-graph-f1"}
    assert list(every) == ["all", "negation", "side", "severity", "omission", "insertion"]
    assert every["all"]["n"] == 5
    assert every["all"]["share"] >= 0.8
    assert found["rate"]["concept-graph-f1"] > 0
