"""EntityLinker: spans, inflections, hyphens, abbreviations, longest match, hand-checked triggers, speed class."""

from __future__ import annotations

import json
import pickle
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvlp.errors import DataError
from kvlp.knowledge.graph import Concept, KnowledgeGraph
from kvlp.knowledge.linking import EntityLinker, Mention
from kvlp.typing import Assertion

CONCEPTS = [
    Concept("pleural_effusion", "pleural effusion", ("effusion",), semantic_types=("finding",)),
    Concept("pneumothorax", "pneumothorax", ("ptx",), semantic_types=("finding",)),
    Concept("pneumoperitoneum", "pneumoperitoneum", ("free air",), semantic_types=("finding",)),
    Concept("mass", "mass", (), semantic_types=("finding",)),
    Concept("opacity", "opacity", (), semantic_types=("finding",)),
    Concept("airspace", "air-space disease", (), semantic_types=("finding",)),
    Concept("edema", "pulmonary edema", ("edema",), semantic_types=("finding",), number="mass"),
    Concept("bulla", "bulla", (), semantic_types=("finding",)),
    Concept("pe", "pulmonary embolism", ("PE",), semantic_types=("disease",)),
    Concept("it", "iliotibial band", ("IT",), semantic_types=("anatomy",)),
    Concept("port", "port-a-cath", (), semantic_types=("device",)),
    Concept("cardiomegaly", "cardiomegaly", ("enlarged heart",), semantic_types=("finding",), number="mass"),
    Concept("heart", "heart", (), semantic_types=("anatomy",)),
    Concept("fluid", "fluid in the pleural space", (), semantic_types=("finding",)),
    Concept("left_lung", "left lung", (), semantic_types=("anatomy",)),
]


@pytest.fixture(scope="module")
def graph() -> KnowledgeGraph:
    return KnowledgeGraph(CONCEPTS, [], name="small")


@pytest.fixture(scope="module")
def linker(graph: KnowledgeGraph) -> EntityLinker:
    return EntityLinker(graph, language=None)  # random texts look like any language


def found(linker: EntityLinker, text: str) -> list[tuple[str, str]]:
    return [(m.concept, m.surface) for m in linker(text)]


@pytest.mark.parametrize(
    ("text", "concept", "surface"),
    [
        ("Pleural effusions.", "pleural_effusion", "Pleural effusions"),
        ("two masses", "mass", "masses"),
        ("patchy opacities", "opacity", "opacities"),
        ("several bullae", "bulla", "bullae"),
        ("AIRSPACE DISEASE", "airspace", "AIRSPACE DISEASE"),
        ("air space disease", "airspace", "air space disease"),
        ("pleural-effusion", "pleural_effusion", "pleural-effusion"),
        ("pleural\u2010effusion", "pleural_effusion", "pleural\u2010effusion"),
        ("pleural  \n effusion", "pleural_effusion", "pleural  \n effusion"),
        ("pneumo-thorax", "pneumothorax", "pneumo-thorax"),
        ("pneumo\u00adthorax", "pneumothorax", "pneumo\u00adthorax"),
        ("pulmonary oedema", "edema", "pulmonary oedema"),
        ("portacath", "port", "portacath"),
        ("Port-A-Cath", "port", "Port-A-Cath"),
        ("left PTX", "pneumothorax", "PTX"),
        ("fluids in the pleural space", "fluid", "fluids in the pleural space"),
        ("e\u0301ffusion effusion", "pleural_effusion", "e\u0301ffusion"),
    ],
)
def test_variants_and_offsets(linker: EntityLinker, text: str, concept: str, surface: str) -> None:
    first = linker(text)[0]
    assert (first.concept, first.surface) == (concept, surface)
    assert text[first.start : first.end] == surface


def test_whole_words_only(linker: EntityLinker) -> None:
    assert found(linker, "massive hydropneumothorax, biomass, effusional") == []


def test_longest_match_wins(linker: EntityLinker) -> None:
    assert found(linker, "enlarged heart") == [("cardiomegaly", "enlarged heart")]
    assert found(linker, "pleural effusion") == [("pleural_effusion", "pleural effusion")]


def test_a_phrase_does_not_reach_over_punctuation(linker: EntityLinker) -> None:
    assert found(linker, "pleural, effusion") == [("pleural_effusion", "effusion")]
    assert found(linker, "Enlarged. Heart.") == [("heart", "Heart")]


def test_short_abbreviations_count_in_capitals_only(linker: EntityLinker) -> None:
    assert found(linker, "No PE.") == [("pe", "PE")]
    assert found(linker, "pe it") == []
    assert found(linker, "IT band") == [("it", "IT")]
    assert found(linker, "IT IS CLEAR") == []


def test_hand_checked_spans_of_triggers(linker: EntityLinker) -> None:
    text = "INDICATION: PTX. FINDINGS: No  effusion, ptx or edema; the mass cannot be excluded."
    rows = [(m.concept, m.start, m.end, m.assertion, m.trigger, m.trigger_start, m.section) for m in linker(text)]
    assert rows == [
        ("pneumothorax", 12, 15, Assertion.PRESENT, None, None, "indication"),
        ("pleural_effusion", 31, 39, Assertion.ABSENT, "No", 27, "findings"),
        ("pneumothorax", 41, 44, Assertion.ABSENT, "No", 27, "findings"),
        ("edema", 48, 53, Assertion.ABSENT, "No", 27, "findings"),
        ("mass", 59, 63, Assertion.UNCERTAIN, "cannot be excluded", 64, "findings"),
    ]


def test_hand_checked_spans_of_statements(linker: EntityLinker) -> None:
    (normal, *_) = linker("Heart size is normal.")
    assert (normal.concept, normal.start, normal.end) == ("cardiomegaly", 0, 10)
    assert (normal.assertion, normal.trigger, normal.trigger_start, normal.trigger_end) == ("absent", "normal", 14, 20)
    (large, *_) = linker("The heart is mildly enlarged.")
    assert (large.concept, large.surface, large.assertion) == ("cardiomegaly", "heart is mildly enlarged", "present")
    (not_normal, *_) = linker("Heart size is not normal.")
    assert (not_normal.concept, not_normal.assertion, not_normal.trigger) == ("cardiomegaly", "present", "not")


def test_statements_of_concepts_that_the_graph_lacks_are_left_out() -> None:
    graph = KnowledgeGraph([c for c in CONCEPTS if c.id != "cardiomegaly"], [], name="small")
    assert found(EntityLinker(graph), "Heart size is normal.") == [("heart", "Heart")]


def test_anatomy_is_never_denied(linker: EntityLinker) -> None:
    mentions = {m.concept: m.assertion for m in linker("No effusion in the left lung.")}
    assert mentions == {"pleural_effusion": Assertion.ABSENT, "left_lung": Assertion.PRESENT}


def test_types_limit_what_is_found(graph: KnowledgeGraph) -> None:
    linker = EntityLinker(graph, types=["anatomy"])
    assert found(linker, "The heart is normal, effusion in the left lung.") == [
        ("heart", "heart"),
        ("left_lung", "left lung"),
    ]


def test_scores(linker: EntityLinker) -> None:
    exact, inflected = linker("effusion, masses")
    assert (exact.score, inflected.score) == (1.0, 0.95)
    twins = KnowledgeGraph([Concept("a", "thing"), Concept("b", "other", ("thing",))], [], name="twins")
    assert [(m.concept, m.score) for m in EntityLinker(twins)("thing")] == [("a", 0.5)]


def test_mentions_go_to_json(linker: EntityLinker) -> None:
    row = json.loads(json.dumps(linker("No ptx.")[0].to_dict()))
    assert row == {
        "concept": "pneumothorax", "surface": "ptx", "start": 3, "end": 6, "assertion": "absent", "trigger": "No",
        "trigger_start": 0, "trigger_end": 2, "section": "other", "score": 1.0, "doubt": "",
        "side": "", "location": [], "severity": "", "change": "", "status": "current", "cues": [],
    }  # fmt: skip


def test_pickled_linker_says_the_same(linker: EntityLinker) -> None:
    text = "Small effusion, no ptx. The heart is enlarged."
    assert pickle.loads(pickle.dumps(linker))(text) == linker(text)


def test_link_many_is_link_one_by_one(linker: EntityLinker) -> None:
    texts = ["No effusion.", "", "mass", "nothing here"]
    assert linker.link_many(texts) == [linker(t) for t in texts]


def test_not_text_is_refused_by_name(linker: EntityLinker) -> None:
    with pytest.raises(DataError, match="expected report text as str, got bytes"):
        linker(b"effusion")  # type: ignore[arg-type]


WORDS = [
    *(
        "no",
        "effusion",
        "mass",
        "heart",
        "is",
        "enlarged",
        "possible",
        "or",
        ",",
        ".",
        ":",
        "?",
        "\n",
        "  ",
        "-",
        "ﬁ",
        "é",
    ),
    *("\u00ad", "not", "versus", "but", "(", "İ", "𝐀", "FINDINGS:", "ptx", ";", "normal", "and", "has resolved"),
]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join) | st.text(max_size=60))
def test_spans_lie_inside_any_text_and_answers_repeat(linker: EntityLinker, text: str) -> None:
    mentions = linker(text)
    assert mentions == linker(text)
    for m in mentions:
        assert 0 <= m.start < m.end <= len(text)
        assert text[m.start : m.end] == m.surface
        if m.trigger is not None:
            assert m.trigger_start is not None
            assert text[m.trigger_start : m.trigger_end] == m.trigger


UNITS = ["No effusion or mass. ", "no effusion, ", "heart size and ", "a\u00ad  b ", "? ", "x"]


@pytest.mark.parametrize("unit", UNITS)
def test_time_grows_with_length_only(linker: EntityLinker, unit: str) -> None:
    def seconds(n: int) -> float:
        text = unit * n
        linker.forget()
        start = time.process_time()
        linker(text)
        return time.process_time() - start

    seconds(100)
    short, long = min(seconds(250) for _ in range(2)), seconds(2000)
    assert long < 8 * 4 * max(short, 0.002)  # quadratic time would be 64 times


def test_chest_graph_is_ready_fast_and_reads_a_report() -> None:
    chest = KnowledgeGraph.load("chest")
    linker = EntityLinker(chest)
    start = time.process_time()
    EntityLinker(chest)
    assert time.process_time() - start < 2.0  # 0.2 s on an idle core
    mentions: list[Mention] = linker("FINDINGS: Small left effusion. No pneumothorax. IMPRESSION: Effusion.")
    effusions = [m for m in mentions if m.concept == "pleural_effusion"]
    assert [m.section for m in effusions] == ["findings", "impression"]
    assert {m.concept for m in mentions if m.assertion is Assertion.ABSENT} == {"pneumothorax"}
