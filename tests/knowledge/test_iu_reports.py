"""Real reports with human indexing (Indiana University): micro-F1 of our reading, with how doubt is counted.

Run with `-s` to see the table. The gold labels follow MeSH indexing, which counts alternatives ("atelectasis versus
scarring") and borderline heart size as there and other doubt as not there; the nodules it counts are called nodules.
"""

from __future__ import annotations

import csv
import time
from collections import Counter
from pathlib import Path

import pytest

from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.knowledge.labels import SILENT_SECTIONS
from kvlp.knowledge.linking import EntityLinker, Mention
from kvlp.typing import Assertion

#: gold column -> concepts of the chest graph (kinds of them count too)
GOLD = {
    "Atelectasis": ("atelectasis",),
    "Cardiomegaly": ("cardiomegaly",),
    "Effusion": ("pleural_effusion", "pericardial_effusion"),
    "Infiltration": ("infiltrate",),
    "Mass": ("lung_mass", "mediastinal_mass"),
    "Nodule": ("lung_nodule", "calcified_granuloma"),
    "Pneumonia": ("pneumonia",),
    "Pneumothorax": ("pneumothorax",),
    "Consolidation": ("consolidation",),
    "Edema": ("pulmonary_edema",),
    "Emphysema": ("emphysema",),
    "Fibrosis": ("pulmonary_fibrosis",),
    "Pleural_Thickening": ("pleural_thickening",),
}
ALTERNATIVES = {"versus", "vs", "or", "and/or", "or possibly"}
MAPPINGS = ("doubt is absence", "doubt is presence", "alternatives and borderline are presence")


def counts(mention: Mention, column: str, mapping: str) -> bool:
    """Whether a mention makes its finding positive under a mapping of doubt."""
    if column == "Nodule" and "nodule" not in mention.surface.lower():
        return False
    if mention.assertion is not Assertion.UNCERTAIN:
        return mention.assertion is Assertion.PRESENT
    trigger = (mention.trigger or "").lower()
    alternative = trigger in ALTERNATIVES or trigger.startswith("borderline")
    return {MAPPINGS[0]: False, MAPPINGS[1]: True, MAPPINGS[2]: alternative}[mapping]


def f1(c: Counter[str]) -> float:
    return 2 * c["tp"] / max(1, 2 * c["tp"] + c["fp"] + c["fn"])


def score(
    rows: list[dict[str, str]], read: list[list[Mention]], kinds: dict[str, set[str]], mapping: str
) -> dict[str, Counter[str]]:
    table: dict[str, Counter[str]] = {column: Counter() for column in GOLD}
    for row, mentions in zip(rows, read, strict=True):
        speaking = [m for m in mentions if m.section not in SILENT_SECTIONS]
        for column in GOLD:
            said = any(m.concept in kinds[column] and counts(m, column, mapping) for m in speaking)
            gold = row[f"gold_{column}"] == "1"
            table[column][("tp" if gold else "fp") if said else ("fn" if gold else "tn")] += 1
    return table


@pytest.mark.parametrize(("split", "floor"), [("dev", 0.87), pytest.param("train", 0.89, marks=pytest.mark.slow)])
def test_micro_f1_on_real_reports(kvlp_data: Path, split: str, floor: float) -> None:
    file = kvlp_data / "reports" / "iu_xray_reports.csv"
    if not file.is_file():
        pytest.skip(f"no {file.name} in the folder of real data")
    with file.open(encoding="utf-8", newline="") as lines:
        rows = [r for r in csv.DictReader(lines) if r["split"] == split]
    graph = KnowledgeGraph.load("chest")
    kinds = {k: set(v).union(*(graph.descendants(c) for c in v)) for k, v in GOLD.items()}
    texts = [f"FINDINGS: {r['findings']}\nIMPRESSION: {r['impression']}" for r in rows]
    linker = EntityLinker(graph)
    start = time.process_time()
    read = linker.link_many(texts)
    print(f"\n{split}: {len(rows)} reports, {len(texts) / (time.process_time() - start):.0f} reports/s on one core")
    best = 0.0
    for mapping in MAPPINGS:
        table = score(rows, read, kinds, mapping)
        micro = f1(sum(table.values(), Counter()))
        best = max(best, micro)
        print(f"  micro-F1 {micro:.3f}  ({mapping})")
    for column, c in table.items():
        print(f"    {column:<20} F1 {f1(c):.3f}  tp {c['tp']} fp {c['fp']} fn {c['fn']}")
    assert best >= floor
