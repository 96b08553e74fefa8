"""F1 against a gold standard: values by hand, undefined classes, the intervals, and what disagreements say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import f1_score

from kvlp.errors import DataError
from kvlp.eval.label_agreement import agreement, disagreements, gold_column, present_labels
from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.knowledge.labels import ReportLabeler


def table(n: int = 200, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    gold = rng.random((n, 3)) < (0.3, 0.05, 0.0)
    return gold, gold ^ (rng.random((n, 3)) < 0.1)


def test_by_hand() -> None:
    gold = np.array([[1], [1], [1], [0], [0]], dtype=bool)
    read = np.array([[1], [1], [0], [1], [0]], dtype=bool)
    row = agreement(gold, read, ["a"])[0]
    assert (row.tp, row.fp, row.fn, row.n_positive) == (2, 1, 1, 3)
    assert row.f1 == pytest.approx(4 / 6)
    assert (row.precision, row.recall) == (pytest.approx(2 / 3), pytest.approx(2 / 3))


def test_equals_scikit_learn() -> None:
    gold, read = table()
    rows = {r.name: r for r in agreement(gold, read, ["a", "b", "c"], least_positives=1)}
    assert rows["micro"].f1 == pytest.approx(f1_score(gold, read, average="micro"), abs=1e-12)
    assert rows["macro"].f1 == pytest.approx(f1_score(gold[:, :2], read[:, :2], average="macro"), abs=1e-7)
    assert rows["macro"].n_positive == 2


def test_a_class_without_positives_is_undefined_and_counts_in_micro_only() -> None:
    gold, read = table()
    row = agreement(gold, read, ["a", "b", "c"])[2]
    assert math.isnan(row.f1)
    assert row.fp == read[:, 2].sum() > 0


def test_the_interval_is_that_of_a_loop_over_samples() -> None:
    gold, read = table()
    row = agreement(gold, read, ["a", "b", "c"], n=300, seed=5)[0]
    rng = np.random.default_rng(5)
    values = []
    for start in (0, 256):
        for draw in rng.integers(0, 200, size=(min(256, 300 - start), 200)):
            values.append(f1_score(gold[draw, 0], read[draw, 0]))
    assert (row.low, row.high) == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])), abs=1e-6)
    assert row.low < row.f1 < row.high


def test_grouped_reports_are_drawn_together() -> None:
    gold, read = table()
    twice = [np.repeat(a, 4, axis=0) for a in (gold, read)]
    groups = [str(i) for i in np.repeat(np.arange(200), 4)]
    alone = agreement(*twice, ["a", "b", "c"])[0]
    together = agreement(*twice, ["a", "b", "c"], groups=groups)[0]
    assert together.high - together.low > 1.5 * (alone.high - alone.low)


def test_shapes_must_fit() -> None:
    gold, read = table()
    with pytest.raises(DataError, match="must both be"):
        agreement(gold, read, ["a"])


def test_gold_cells() -> None:
    assert gold_column(["1", "0", "", " 1.0", "-1"], "g").tolist() == [True, False, False, True, False]
    with pytest.raises(DataError, match="gold column 'g', row 2: expected 1 or 0, got 6 other characters"):
        gold_column(["1", "maybe?"], "g")


def test_disagreements_say_what_was_read_without_text() -> None:
    labeler = ReportLabeler(KnowledgeGraph.load("chest"), {"Effusion": ["pleural effusion"]}, uncertain="graded")
    texts = [
        "Left effusion.",
        "No effusion.",
        "Possible effusion.",
        "AP view.",
        "Effusion.",
        "Clear costophrenic angles.",
    ]
    gold = np.array([[0], [1], [1], [1], [1], [1]], dtype=bool)
    mentions = [labeler.linker(text) for text in texts]
    read = present_labels(labeler.map, mentions)
    assert read[:, 0].tolist() == [True, False, False, False, True, False]
    cases = list(disagreements(list("abcdef"), gold, labeler.map, mentions))
    assert [(c.report, c.kind, c.phenomenon, c.start, c.end) for c in cases] == [
        ("a", "false positive", "present", 5, 13),
        ("b", "miss", "absent", 3, 11),
        ("c", "miss", "possible", 9, 17),
        ("d", "miss", "not mentioned", -1, -1),
        ("f", "miss", "absent", 0, 25),
    ]
