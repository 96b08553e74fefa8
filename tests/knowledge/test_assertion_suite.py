"""The assertion suites: sentences whose authors had not seen the rules, read as labels of a report.

Before any rule was changed for it, 792 of the 879 claims of the first suite were read right (529 of 612 sentences), of
the second, written after that, 603 of 671 (309 of 367), and of the third 348 of 367 (206 of 219). What is still misread
stands in `MISREAD`, by the sentence's beginning, so that nothing is left out in silence. `kvlp bench assertions` shows
suites beside other readers.
"""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml

from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.knowledge.labels import labels_from_mentions, speaks
from kvlp.knowledge.linking import EntityLinker

SUITES = {"assertion_suite": 600, "assertion_suite_2": 350, "assertion_heldout": 200}
NAMES = {1.0: "present", 0.0: "absent", -1.0: "uncertain"}
MISREAD: dict[str, set[str]] = {
    "assertion_suite": {
        "No radiographic signs, direct or indirect, of a pneumothorax.",  # an aside between "signs" and "of"
        "Pleural effusion on the right, which was the question, is not demonstrated.",  # an aside with a verb
        "No pleural effusion, except for a trace on the left.",  # the exception does not name what it is
        "Absence of a rib fracture cannot be assumed.",  # a denial that is itself in doubt behind it
        "Normal appearance of the heart and lungs.",  # one predicate, two subjects of different findings
        "The heart, normal in size on the prior film, is now enlarged.",  # two predicates at two times
        "One of the two right chest tubes has been removed.",  # a part of several
        "History of right pneumothorax; none is seen today.",  # the denial speaks of now, the mention of then
        "Previous film showed a left pneumothorax. This has resolved.",  # "this" points to another sentence
        "Is there a pneumothorax? None is seen.",  # the answer stands in another sentence
        "Left atrial and left ventricular enlargement.",  # a shared head behind two words
        "Pleural thickening and calcification along the left hemidiaphragm.",  # a shared first word
        "HISTORY: Fall. FINDINGS: No pneumothorax. IMPRESSION: Possible fracture of the left clavicle.",  # no surface
    },
    "assertion_suite_2": {
        "Hilar fullness of vascular origin versus adenopathy.",  # what is versus what: the origin, not the fullness
        "Nothing on this study rules out pulmonary embolism.",  # the subject denies the verb
        "The pulmonary vasculature is within normal limits, as is the thoracic aorta.",  # "as is"
        "The hila, mediastinum and pleural spaces are unremarkable.",  # a normal statement of a list's first member
        "The heart, which was enlarged in May, is now normal in size.",  # two predicates at two times
        "The left subclavian line has been replaced by a right PICC.",  # to the graph a PICC is such a line too
        "After consolidation chemotherapy the lungs are clear.",  # another "consolidation"
        "There are changes of emphysema, chiefly in the upper zones, with pulmonary scarring",  # "two years ago"
        "LINES: NONE. LUNGS: CLEAR. HEART: NORMAL.",  # "heart: normal" is no surface of a normal heart size
    },
    "assertion_heldout": {
        "Elevated hemidiaphragm on the right, due to eventration, phrenic palsy or",  # a cause that the graph lacks
        "Multifocal opacities: multifocal pneumonia or, less likely,",  # "or" before a comma
        "After aspiration of 800 mL from the right pleural space",  # another "aspiration"
    },
}


@pytest.fixture(scope="module")
def graph() -> KnowledgeGraph:
    return KnowledgeGraph.load("chest")


@pytest.fixture(scope="module")
def linker(graph: KnowledgeGraph) -> EntityLinker:
    return EntityLinker(graph)


def load(name: str) -> list[list]:
    table = yaml.safe_load(Path(__file__).with_name(f"{name}.yaml").read_text(encoding="utf-8"))
    return [row for rows in table.values() for row in rows]


def read(linker: EntityLinker, graph: KnowledgeGraph, text: str, expected: dict[str, str]) -> dict[str, str]:
    mentions = linker(text)
    labels = labels_from_mentions(mentions, list(expected), graph)
    named = {m.concept for m in mentions if speaks(m)}
    got = {c: "none" if math.isnan(value) else NAMES[value] for c, value in labels.items()}
    # "none" is about the words, not about what a normal statement implies
    unnamed = {c: "named" if c in named else "none" for c, value in expected.items() if value == "none"}
    return {**got, **unnamed}


@pytest.mark.parametrize(("name", "least"), SUITES.items())
def test_the_suite_is_well_formed(graph: KnowledgeGraph, name: str, least: int) -> None:
    rows = load(name)
    assert len(rows) >= least
    assert len({text for text, _ in rows}) == len(rows)
    assert {value for _, expected in rows for value in expected.values()} == {*NAMES.values(), "none"}
    assert [c for _, expected in rows for c in expected if c not in graph] == []


@pytest.mark.parametrize("name", list(MISREAD))
def test_the_suite_is_read_right_but_for_what_is_listed(linker: EntityLinker, graph: KnowledgeGraph, name: str) -> None:
    rows = load(name)
    got = {text: read(linker, graph, text, expected) for text, expected in rows}
    misread = {text for text, expected in rows if got[text] != expected}
    known = {text for text in got if any(text.startswith(start) for start in MISREAD[name])}
    assert misread == known, {text: got[text] for text in misread ^ known}
    assert len(known) == len(MISREAD[name])
    assert 1 - len(misread) / len(rows) >= 0.97
