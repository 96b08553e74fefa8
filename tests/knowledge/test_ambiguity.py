"""Ambiguous surfaces: cue words, sections, neighbours, types and names decide; the rest shares its score."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvlp.errors import KnowledgeError
from kvlp.knowledge.graph import Concept, KnowledgeGraph, Relation
from kvlp.knowledge.linking import EntityLinker
from kvlp.knowledge.linking.ambiguity import Sense, add_listed, resolve
from kvlp.knowledge.linking.lexicon import Entry
from kvlp.knowledge.linking.mention import Mention
from kvlp.typing import Assertion


def said(linker: EntityLinker, text: str, surface: str) -> list[tuple[str, str]]:
    return [(m.concept, m.assertion.value) for m in linker(text) if m.surface == surface]


# ---- listed surfaces -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chest() -> EntityLinker:
    return EntityLinker(KnowledgeGraph.load("chest"))


@pytest.mark.parametrize(
    ("text", "surface", "meant"),
    [
        ("INDICATION: Rule out PE.", "PE", ("pulmonary_embolism", "uncertain")),
        ("No PE on the CT angiogram.", "PE", ("pulmonary_embolism", "absent")),
        ("Small right PE with blunting of the costophrenic sulcus.", "PE", ("pleural_effusion", "present")),
        ("Mild PE, the sternum is displaced.", "PE", ("pectus_excavatum", "present")),
        ("INDICATION: Cough and fever, PNA?", "PNA", ("pneumonia", "uncertain")),
        ("INDICATION: Treated for CAP.", "CAP", ("pneumonia", "present")),
        ("The tip is in the RA, below the cavoatrial junction.", "RA", ("right_atrium", "present")),
        ("No mediastinal LAD.", "LAD", ("lymphadenopathy", "absent")),
        ("No LAD stent or calcification.", "LAD", ("coronary_artery", "present")),  # anatomy: nothing is denied of it
        ("Bilateral patchy ASD.", "ASD", ("airspace_disease", "present")),
        ("ASD closure device.", "ASD", ("septal_defect", "present")),
        ("PCP in a patient with HIV.", "PCP", ("pneumocystis_pneumonia", "present")),
        ("INDICATION: CP.", "CP", ("chest_pain", "present")),
        ("Enlarged main PA.", "PA", ("pulmonary_artery", "present")),
        ("Lung ca.", "ca", ("lung_cancer", "present")),
        ("A mass in the lung.", "mass", ("lung_mass", "present")),
    ],
)
def test_cues_and_sections_decide(chest: EntityLinker, text: str, surface: str, meant: tuple[str, str]) -> None:
    assert said(chest, text, surface) == [meant]


@pytest.mark.parametrize(
    ("text", "surface"),
    [
        ("Sats of 92 percent on RA.", "RA"),
        ("RA.", "RA"),  # nothing speaks for a meaning
        ("The CAP of the needle.", "CAP"),
        ("PA and lateral views.", "PA"),
        ("Discussed with PCP by phone.", "PCP"),
        ("Breast ca.", "ca"),
        ("Body mass index of 40.", "mass"),
        ("as before", "as"),
    ],
)
def test_what_the_graph_does_not_have_is_not_claimed(chest: EntityLinker, text: str, surface: str) -> None:
    assert said(chest, text, surface) == []


def test_what_nothing_decides_is_the_default_with_a_shared_score(chest: EntityLinker) -> None:
    (mention,) = chest("PE.")
    assert (mention.concept, round(mention.score, 3)) == ("pulmonary_embolism", 0.333)
    (decided,) = [m for m in chest("No DVT or PE.") if m.surface == "PE"]
    assert decided.score == 0.9


def test_a_definition_in_the_text_comes_first(chest: EntityLinker) -> None:
    assert said(chest, "Pectus excavatum (PE). CT angiogram. PE.", "PE") == [("pectus_excavatum", "present")]


def test_rows_without_a_meaning_in_the_graph_are_left_out() -> None:
    graph = KnowledgeGraph([Concept("fracture", "fracture", semantic_types=("finding",))], [], name="bones")
    assert EntityLinker(graph)._lexicon.senses == {}
    assert EntityLinker(graph)("PE, RA, LAD and a fracture")[0].concept == "fracture"


def test_a_broken_list_is_refused(tmp_path: Path) -> None:
    for text, words in (
        ("surfaces: [{surface: X}]", "exactly the keys surface, senses"),
        ("surfaces: [{surface: X, senses: [{cues: [a]}]}]", "needs the key means"),
        ("surfaces: [{surface: X, senses: [{means: [a], cues: [no]}]}]", "quotes around yes, no"),
        ("surfaces: [{surface: X, senses: [{means: [a], sections: [foot]}]}]", "unknown section"),
        ("rows: []", "expected the parts surfaces"),
    ):
        file = tmp_path / f"{abs(hash(text))}.yaml"
        file.write_text(text, encoding="utf-8")
        with pytest.raises(KnowledgeError, match=words):
            add_listed({}, {}, Entry, file)


# ---- surfaces that concepts of a graph share -------------------------------------------------------------------------

SHARED = [
    Concept("gene", "ARC protein", ("fluff",), semantic_types=("Gene or Genome",)),
    Concept("haze", "hazy patch", ("fluff",), semantic_types=("Finding",)),
    Concept("stone", "gallstone", ("pebble",), semantic_types=("Disease or Syndrome",)),
    Concept("calculus", "kidney stone", ("pebble",), semantic_types=("Disease or Syndrome",)),
    Concept("kidney", "kidney", (), semantic_types=("anatomy",)),
    Concept("bladder", "gallbladder", (), semantic_types=("anatomy",)),
    Concept("scan", "plain film", ("shot",), semantic_types=("Diagnostic Procedure",)),
    Concept("wound", "gunshot wound", ("shot",), semantic_types=("Injury or Poisoning",)),
    Concept("lobe", "lappet", (), semantic_types=("Finding",)),
    Concept("flap", "skin flap", ("lappet",), semantic_types=("Finding",)),
]
LINKED = [Relation("stone", "located_in", "bladder"), Relation("calculus", "located_in", "kidney")]


@pytest.fixture(scope="module")
def shared() -> EntityLinker:
    return EntityLinker(KnowledgeGraph(SHARED, LINKED, name="shared"), attributes=False)


@pytest.mark.parametrize(
    ("text", "concept", "score"),
    [
        ("No fluff.", "haze", 0.9),  # a finding, not a gene
        ("Pebble near the kidney.", "calculus", 0.9),  # its neighbour is mentioned
        ("The gallbladder is large. Another sentence. A pebble.", "stone", 0.9),
        ("A pebble.", "calculus", 0.5),  # nothing decides: shared
        ("Pebble between gallbladder and kidney.", "calculus", 0.5),
        ("TECHNIQUE: One shot.", "scan", 0.9),
        ("FINDINGS: One shot.", "wound", 0.9),
        ("A lappet.", "lobe", 0.5),  # a name comes before a synonym, but does not decide
    ],
)
def test_types_neighbours_and_names(shared: EntityLinker, text: str, concept: str, score: float) -> None:
    (mention,) = [m for m in shared(text) if m.surface.lower() in ("fluff", "pebble", "shot", "lappet")]
    assert (mention.concept, mention.score) == (concept, score)


def test_a_sense_of_anatomy_is_not_denied() -> None:
    senses = {"x": (Sense("bone", asserted=False, cues=("marrow",)), Sense("lesion", asserted=True))}
    mention = Mention("lesion", "X", 3, 4, Assertion.ABSENT, "No", 0, 2, "findings", 0.5)
    (same,) = resolve("No X.", [mention], senses, {"lesion"})[:1] or [None]
    assert same is None  # nothing decides, and there is no default
    (bone,) = resolve("No X in marrow.", [mention], senses, {"lesion"})
    assert (bone.concept, bone.assertion, bone.trigger, bone.trigger_start) == ("bone", Assertion.PRESENT, None, None)


def test_senses_are_saved(shared: EntityLinker, tmp_path: Path) -> None:
    again = EntityLinker.load(shared.save(tmp_path / "linker"))
    assert again._lexicon.senses == shared._lexicon.senses
    text = "Pebble near the kidney. TECHNIQUE: One shot."
    assert again(text) == shared(text)
