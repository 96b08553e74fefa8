"""Labels from mentions: precedence, flow along is_a, normal statements, silent sections, No Finding."""

from __future__ import annotations

import math

import pytest

from kvlp.errors import KnowledgeError
from kvlp.knowledge.graph import Concept, KnowledgeGraph, Relation
from kvlp.knowledge.labels import LabelMap, labels_from_mentions
from kvlp.knowledge.linking import EntityLinker, Mention
from kvlp.typing import Assertion

P, A, U = Assertion.PRESENT, Assertion.ABSENT, Assertion.UNCERTAIN


@pytest.fixture(scope="module")
def graph() -> KnowledgeGraph:
    finding = ("finding",)
    concepts = [
        Concept("opacity", "lung opacity", semantic_types=finding),
        Concept("consolidation", "consolidation", semantic_types=finding),
        Concept("pneumonia", "pneumonia", semantic_types=("disease",)),
        Concept("effusion", "pleural effusion", source_ids=("UMLS:C0032227",), semantic_types=finding),
        Concept("clear", "clear lungs", semantic_types=("normal",)),
    ]
    relations = [
        Relation("consolidation", "is_a", "opacity"),
        Relation("pneumonia", "is_a", "consolidation"),
        Relation("clear", "rules_out", "opacity"),
    ]
    return KnowledgeGraph(concepts, relations, name="labels")


def mention(concept: str, assertion: Assertion, section: str = "findings") -> Mention:
    return Mention(concept, concept, 0, 1, assertion, section=section)


def labels(graph: KnowledgeGraph, *mentions: Mention, classes: tuple[str, ...]) -> list[float | None]:
    got = labels_from_mentions(mentions, classes, graph)
    return [None if math.isnan(got[c]) else got[c] for c in classes]


ALL = ("opacity", "consolidation", "pneumonia", "effusion")


def test_nothing_said_is_nan(graph: KnowledgeGraph) -> None:
    assert labels(graph, classes=ALL) == [None, None, None, None]


def test_presence_flows_up(graph: KnowledgeGraph) -> None:
    assert labels(graph, mention("consolidation", P), classes=ALL) == [1.0, 1.0, None, None]


def test_doubt_flows_up(graph: KnowledgeGraph) -> None:
    assert labels(graph, mention("consolidation", U), classes=ALL) == [-1.0, -1.0, None, None]


def test_absence_flows_down_only(graph: KnowledgeGraph) -> None:
    assert labels(graph, mention("consolidation", A), classes=ALL) == [None, 0.0, 0.0, None]
    assert labels(graph, mention("opacity", A), classes=ALL) == [0.0, 0.0, 0.0, None]


@pytest.mark.parametrize(
    ("said", "label"), [((A, U, P), 1.0), ((P, A), 1.0), ((A, U), -1.0), ((U, A), -1.0), ((A, A), 0.0)]
)
def test_present_over_uncertain_over_absent(graph: KnowledgeGraph, said: tuple[Assertion, ...], label: float) -> None:
    assert labels(graph, *(mention("effusion", a) for a in said), classes=("effusion",)) == [label]


def test_a_normal_statement_rules_out(graph: KnowledgeGraph) -> None:
    assert labels(graph, mention("clear", P), classes=ALL) == [0.0, 0.0, 0.0, None]
    assert labels(graph, mention("clear", A), classes=ALL) == [None, None, None, None]
    assert labels(graph, mention("clear", P), mention("pneumonia", P), classes=ALL) == [1.0, 1.0, 1.0, None]


@pytest.mark.parametrize("section", ["indication", "comparison", "technique"])
def test_silent_sections_never_label(graph: KnowledgeGraph, section: str) -> None:
    assert labels(graph, mention("effusion", P, section), classes=ALL) == [None] * 4


@pytest.mark.parametrize("section", ["findings", "impression", "other"])
def test_speaking_sections_label(graph: KnowledgeGraph, section: str) -> None:
    assert labels(graph, mention("effusion", P, section), classes=("effusion",)) == [1.0]


def test_no_finding(graph: KnowledgeGraph) -> None:
    one = ("No Finding",)
    assert labels(graph, classes=one) == [None]
    assert labels(graph, mention("effusion", A), classes=one) == [1.0]
    assert labels(graph, mention("clear", P), classes=one) == [1.0]
    assert labels(graph, mention("clear", P), mention("effusion", U), classes=one) == [-1.0]
    assert labels(graph, mention("clear", P), mention("effusion", P), classes=one) == [0.0]


def test_classes_by_source_id_and_surface_keep_their_names(graph: KnowledgeGraph) -> None:
    got = labels_from_mentions([mention("effusion", P)], ["C0032227", "Pleural-Effusion"], graph)
    assert got == {"C0032227": 1.0, "Pleural-Effusion": 1.0}


def test_unknown_class_is_named_with_near_names(graph: KnowledgeGraph) -> None:
    with pytest.raises(KnowledgeError, match=r"consolidaton.*did you mean consolidation"):
        LabelMap(graph, ["consolidaton"])


def test_a_report_in_full() -> None:
    chest = KnowledgeGraph.load("chest")
    text = (
        "INDICATION: Rule out pneumothorax. FINDINGS: The heart size is normal. Small left pleural effusion. "
        "No pneumothorax. Basal opacity may represent atelectasis."
    )
    classes = ["cardiomegaly", "pleural_effusion", "pneumothorax", "atelectasis", "rib_fracture"]
    got = labels_from_mentions(EntityLinker(chest)(text), classes, chest)
    assert [got[c] for c in classes[:4]] == [0.0, 1.0, 0.0, -1.0]
    assert math.isnan(got["rib_fracture"])
