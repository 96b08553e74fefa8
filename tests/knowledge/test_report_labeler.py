"""ReportLabeler and class lists: what a class means, what becomes of doubts, what never labels."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import kvlp
from kvlp.errors import ConfigError, KnowledgeError
from kvlp.knowledge.classes import class_lists, load_classes
from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.knowledge.labels import LabelMap, ReportLabeler, Uncertain
from kvlp.knowledge.linking import EntityLinker


@pytest.fixture(scope="module")
def graph() -> KnowledgeGraph:
    return KnowledgeGraph.load("chest")


@pytest.fixture(scope="module")
def linker(graph: KnowledgeGraph) -> EntityLinker:
    return EntityLinker(graph)


@pytest.fixture(scope="module")
def nih(graph: KnowledgeGraph, linker: EntityLinker) -> ReportLabeler:
    return ReportLabeler(graph, "nih14", linker=linker)


def said(labeler: ReportLabeler, text: str) -> dict[str, float]:
    return {name: value for name, value in labeler(text).items() if not math.isnan(value)}


def test_the_bundled_lists_have_fourteen_classes_in_the_graph(graph: KnowledgeGraph) -> None:
    assert class_lists() == ["chexpert14", "nih14"]
    for name in class_lists():
        assert len(load_classes(name).concepts) == len(LabelMap(graph, name).classes) == 14
    assert next(iter(load_classes("nih14").concepts)) == "Atelectasis"
    assert "not" in load_classes("nih14").zero  # its 0 is not absence, and the list says so


def test_the_public_name() -> None:
    assert kvlp.ReportLabeler is ReportLabeler


def test_labels_of_a_report(nih: ReportLabeler) -> None:
    text = "Small left effusion. No pneumothorax. Possible pneumonia. Calcified nodule in the left apex."
    assert said(nih, text) == {"Effusion": 1.0, "Pneumothorax": 0.0, "Pneumonia": -1.0, "Nodule": 1.0}


def test_a_kind_makes_its_class_present_and_its_denial_does_not_deny_the_class(nih: ReportLabeler) -> None:
    assert said(nih, "Hydropneumothorax on the left.")["Pneumothorax"] == 1.0
    assert "Pneumothorax" not in said(nih, "No tension pneumothorax.")
    assert "Effusion" not in said(nih, "No pericardial effusion.")  # only the first concept of a class denies it
    assert said(nih, "Pericardial effusion.")["Effusion"] == 1.0


def test_present_outweighs_uncertain_outweighs_absent(nih: ReportLabeler) -> None:
    assert said(nih, "No right effusion. Small left effusion.")["Effusion"] == 1.0
    assert said(nih, "No right effusion. Possible left effusion.")["Effusion"] == -1.0
    assert said(nih, "Possible left effusion. There is a right effusion.")["Effusion"] == 1.0


def test_the_indication_and_history_never_label(nih: ReportLabeler) -> None:
    assert said(nih, "INDICATION: Pneumonia, rule out effusion. FINDINGS: No pneumothorax.") == {"Pneumothorax": 0.0}
    assert "Pneumonia" not in said(nih, "FINDINGS: Family history of pneumonia.")
    assert "Pneumonia" not in said(nih, "FINDINGS: History of pneumonia.")


@pytest.mark.parametrize(
    ("uncertain", "expected"),
    [
        ("keep", {"Atelectasis": -1.0, "Effusion": -1.0, "Cardiomegaly": -1.0, "Edema": -1.0, "Pneumonia": -1.0}),
        ("ones", {"Atelectasis": 1.0, "Effusion": 1.0, "Cardiomegaly": 1.0, "Edema": 1.0, "Pneumonia": 1.0}),
        ("zeros", {"Atelectasis": 0.0, "Effusion": 0.0, "Cardiomegaly": 0.0, "Edema": 0.0, "Pneumonia": 0.0}),
        ("ignore", {}),
        ("graded", {"Atelectasis": 1.0, "Effusion": 0.0, "Cardiomegaly": 1.0, "Edema": 1.0, "Pneumonia": 0.0}),
    ],
)
def test_what_becomes_of_a_doubt(
    graph: KnowledgeGraph, linker: EntityLinker, uncertain: Uncertain, expected: dict[str, float]
) -> None:
    text = (
        "Basal atelectasis or scarring. No large pleural effusion. Borderline cardiomegaly. Probable edema."
        " Opacity that may represent pneumonia."
    )
    got = said(ReportLabeler(graph, "nih14", uncertain=uncertain, linker=linker), text)
    assert {name: got[name] for name in expected if name in got} == expected


def test_the_weakest_doubt_about_one_mention_counts(graph: KnowledgeGraph, linker: EntityLinker) -> None:
    graded = ReportLabeler(graph, "nih14", uncertain="graded", linker=linker)
    assert said(graded, "Atelectasis versus scarring.")["Atelectasis"] == 1.0
    assert said(graded, "Opacity that may represent atelectasis versus scarring.")["Atelectasis"] == 0.0


def test_no_finding(graph: KnowledgeGraph, linker: EntityLinker) -> None:
    labeler = ReportLabeler(graph, "chexpert14", linker=linker)
    assert said(labeler, "No pneumothorax. No effusion.")["No Finding"] == 1.0
    assert said(labeler, "No pneumothorax. Small effusion.")["No Finding"] == 0.0
    assert said(labeler, "No pneumothorax. Possible effusion.")["No Finding"] == -1.0
    assert "No Finding" not in said(labeler, "AP view.")


def test_classes_of_ones_own(graph: KnowledgeGraph, linker: EntityLinker, tmp_path: Path) -> None:
    own = ReportLabeler(graph, {"Air": ["pneumothorax", "pneumoperitoneum"]}, linker=linker)
    assert own("Free air under the diaphragm.") == {"Air": 1.0}
    file = tmp_path / "own.yaml"
    file.write_text("name: own\nclasses:\n  - {name: Air, concepts: [pneumothorax]}\n", encoding="utf-8")
    assert ReportLabeler(graph, str(file), linker=linker)("No pneumothorax.") == {"Air": 0.0}


def test_many(nih: ReportLabeler) -> None:
    texts = ["No pneumothorax.", "", "Small effusion."]
    assert [row["Effusion"] for row in nih.label_many(texts)][2] == 1.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"classes: [", "not readable as YAML"),
        (b"\xff\xfe", "not readable as YAML in UTF-8"),
        (b"classes: []", "expected the keys name, zero and classes"),
        (b"classes: [{name: x}]", "class 1: expected"),
        (b"classes: [{name: x, concepts: [a]}, {name: x, concepts: [a]}]", "the name 'x' is used twice"),
    ],
)
def test_bad_lists_get_one_clear_error(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "list.yaml"
    file.write_bytes(content)
    with pytest.raises(KnowledgeError, match=message):
        load_classes(file)


def test_unknown_names_are_answered_with_near_ones(graph: KnowledgeGraph) -> None:
    with pytest.raises(KnowledgeError, match=r"no class list 'nih15'.*the nearest is 'nih14'"):
        LabelMap(graph, "nih15")
    with pytest.raises(KnowledgeError, match="no concept 'pneumotorax'"):
        LabelMap(graph, ["pneumotorax"])
    with pytest.raises(ConfigError, match="uncertain is 'maybe'; expected one of keep, ones"):
        LabelMap(graph, "nih14", uncertain="maybe")  # type: ignore[arg-type]
