"""Real reports with human indexing (Indiana University): micro-F1 of our labels against it.

The table in the docs is written by `kvlp link score` (docs/reading.md tells the command). The gold follows MeSH
indexing, which counts probable findings, alternatives ("atelectasis versus scarring") and borderline heart size as
there, other doubt as not there; which grades of doubt count as present was settled by counting on train.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kvlp.datasets.report_labels import read_reports
from kvlp.eval.label_agreement import Agreement, agreement, gold_column, present_labels
from kvlp.knowledge.classes import load_classes
from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.knowledge.labels import ReportLabeler, Uncertain

#: the gold has no report with a hernia
CLASSES = {name: concepts for name, concepts in load_classes("nih14").concepts.items() if name != "Hernia"}


def figures(kvlp_data: Path, split: str, uncertain: Uncertain) -> dict[str, Agreement]:
    file = kvlp_data / "reports" / "iu_xray_reports.csv"
    if not file.is_file():
        pytest.skip(f"no {file.name} in the folder of real data")
    reports = read_reports(file, ["findings", "impression"])
    chosen = [n for n, row in enumerate(reports.table.rows) if row["split"] == split]
    gold = np.stack([gold_column([reports.table.rows[n][f"gold_{c}"] for n in chosen], c) for c in CLASSES], axis=1)
    labeler = ReportLabeler(KnowledgeGraph.load("chest"), CLASSES, uncertain=uncertain)
    read = present_labels(labeler.map, [labeler.linker(reports.texts[n]) for n in chosen])
    return {row.name: row for row in agreement(gold, read, list(CLASSES), n=200)}


@pytest.mark.parametrize(("split", "floor"), [("dev", 0.92), pytest.param("train", 0.945, marks=pytest.mark.slow)])
def test_labels_agree_with_human_indexing(kvlp_data: Path, split: str, floor: float) -> None:
    rows = figures(kvlp_data, split, "graded")
    print({name: (round(row.f1, 3), row.n_positive) for name, row in rows.items()})
    assert rows["micro"].f1 >= floor
    assert rows["macro"].f1 >= 0.85


@pytest.mark.slow
def test_grading_doubt_is_what_helps(kvlp_data: Path) -> None:
    graded, zeros, ones = (figures(kvlp_data, "train", u)["micro"] for u in ("graded", "zeros", "ones"))
    assert graded.low > zeros.high > ones.f1
