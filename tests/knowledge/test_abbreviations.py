"""Abbreviations that a text defines, and that they outrank what the graph says of them."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvlp.errors import ConfigError, MissingExtraError
from kvlp.knowledge.graph import Concept, KnowledgeGraph
from kvlp.knowledge.linking import EntityLinker, abbreviations
from kvlp.knowledge.linking.abbreviations import (
    abbreviation_edits,
    find_abbreviations,
    finder,
    scispacy_abbreviations,
)

CONCEPTS = [
    Concept("embolism", "pulmonary embolism", ("PE",), semantic_types=("disease",)),
    Concept("effusion", "pleural effusion", ("effusion",), semantic_types=("finding",)),
    Concept("pectus", "pectus excavatum", (), semantic_types=("finding",)),
    Concept("copd", "chronic obstructive pulmonary disease", ("COPD",), semantic_types=("disease",)),
    Concept("tube", "endotracheal tube", (), semantic_types=("device",)),
    Concept("pneumothorax", "pneumothorax", ("PTX",), semantic_types=("finding",)),
]
DEFINED = [
    ("Chronic obstructive pulmonary disease (COPD) is present.", "COPD", "Chronic obstructive pulmonary disease"),
    ("No pleural effusion (PE).", "PE", "pleural effusion"),
    ("Known positive end-expiratory pressure (PEEP)", "PEEP", "positive end-expiratory pressure"),
    ("A central venous catheter (CVC) ends high.", "CVC", "central venous catheter"),
    ("Moderate pneumothorax (PTX).", "PTX", "pneumothorax"),
    ("Acute respiratory distress syndrome (ARDS).", "ARDS", "Acute respiratory distress syndrome"),
]
NOT_DEFINED = [
    "Heart (normal size).",
    "Effusion (L).",
    "Nodule (5 mm).",
    "Chest (PA and lateral).",
    "Opacity (see above)",
    "()",
]


@pytest.fixture(scope="module")
def graph() -> KnowledgeGraph:
    return KnowledgeGraph(CONCEPTS, [], name="small")


@pytest.fixture(scope="module")
def linker(graph: KnowledgeGraph) -> EntityLinker:
    return EntityLinker(graph)


def said(linker: EntityLinker, text: str) -> list[tuple[str, str, str]]:
    for m in (mentions := linker(text)):
        assert text[m.start : m.end] == m.surface
    return [(m.concept, m.surface, m.assertion.value) for m in mentions]


@pytest.mark.parametrize("find", [find_abbreviations, pytest.param(scispacy_abbreviations, marks=pytest.mark.slow)])
def test_definitions(find: Callable[[str], list[abbreviations.Abbreviation]]) -> None:
    if find is scispacy_abbreviations:
        pytest.importorskip("scispacy")
    for text, short, long in DEFINED:
        (found,) = find(text)
        assert (found.short, found.long) == (short, long)
        assert text[found.start : found.end] == f"{long} ({short})"
    for text in NOT_DEFINED:
        assert find(text) == []


def test_the_short_form_may_come_first() -> None:
    (found,) = find_abbreviations("The ETT (endotracheal tube) ends high.")
    assert (found.short, found.long, found.start, found.end, found.long_start) == ("ETT", "endotracheal tube", 4, 27, 9)


def test_two_letters_do_not_stand_for_three_words() -> None:
    assert find_abbreviations("Erect portable chest X-ray (PA)") == []
    (found,) = find_abbreviations("Shortness of breath (SOB)")
    assert found.long == "Shortness of breath"


def test_a_long_form_does_not_reach_into_the_sentence_before() -> None:
    assert find_abbreviations("Pleural effusion. Enlarged (PE)") == []


def test_a_definition_outranks_the_graph(linker: EntityLinker) -> None:
    assert said(linker, "No PE.") == [("embolism", "PE", "absent")]
    assert said(linker, "Pectus excavatum (PE). No other cause; PE as before.") == [
        ("pectus", "Pectus excavatum", "present"),
        ("pectus", "PE", "present"),
    ]
    assert said(linker, "Postural edema (PE). PE again.") == []  # not a concept of the graph: nothing is claimed


def test_rules_reach_defined_abbreviations(linker: EntityLinker) -> None:
    text = (
        "FINDINGS: Endotracheal tube (ETT), pleural effusion (PLE).\nIMPRESSION: The ETT is unchanged. No PLE or PTX."
    )
    assert said(linker, text)[2:] == [
        ("tube", "ETT", "present"),
        ("effusion", "PLE", "absent"),
        ("pneumothorax", "PTX", "absent"),
    ]
    assert said(linker, "The pleural effusion (PLE) has resolved.") == [("effusion", "pleural effusion", "absent")]


def test_plural_and_score(linker: EntityLinker) -> None:
    *_, last = linker("Pleural effusions, that is pleural effusion (PLE). Two PLEs.")
    assert (last.concept, last.surface, last.score) == ("effusion", "PLEs", 0.95)


@given(st.lists(st.sampled_from([*" _./&'-(\n", "PE", "PEs", "PE's", "ETT", "E", "P", "a"]), max_size=12).map("".join))
@example(" _PE (-PE a-PE PE's. _ETT")
def test_short_forms_are_whole_words(text: str) -> None:
    definition = "pleural effusion (PE) ETT (endotracheal tube) "
    found = [(e.start, e.text) for e in abbreviation_edits(definition + text) if e.start >= len(definition)]
    words = re.finditer(r"[^\W_][\w./&'-]*", definition + text)
    forms = {
        "PE": "pleural effusion",
        "PEs": "pleural effusion",
        "PE's": "pleural effusion",
        "ETT": "endotracheal tube",
    }
    said = [(w.start(), forms.get(w[0].rstrip("./&-"))) for w in words if w.start() >= len(definition)]
    assert found == [(start, form) for start, form in said if form]


@pytest.mark.slow
def test_scispacy_in_the_linker(graph: KnowledgeGraph, linker: EntityLinker) -> None:
    pytest.importorskip("scispacy")
    text = "Pectus excavatum (PE) is known. No change of PE."
    assert EntityLinker(graph, abbreviations="scispacy")(text) == linker(text)
    # without a finder the graph reads it, unless words around it speak for another meaning (ambiguity.py)
    assert said(EntityLinker(graph, abbreviations="none"), "No PE.")[-1][0] == "embolism"


def test_wrong_names_and_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="no finder of abbreviations 'spacy'; expected own, scispacy or none"):
        finder("spacy")
    abbreviations._pipeline.cache_clear()
    monkeypatch.setitem(sys.modules, "scispacy", None)
    with pytest.raises(MissingExtraError, match=r"kvlp\[knowledge\]"):
        finder("scispacy")


def test_time_is_linear_in_definitions(linker: EntityLinker) -> None:
    def seconds(n: int) -> float:
        text = " ".join(f"pleural effusion (P{k}E)." for k in range(n))
        start = time.process_time()
        find_abbreviations(text)
        abbreviations.abbreviation_edits(text)
        return time.process_time() - start

    seconds(200)
    assert seconds(4000) < 40 * max(seconds(400), 0.01)
