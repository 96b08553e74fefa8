"""The bundled chest graph: large enough, sound, and fit for recognising what was never named."""

import csv
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from kvlp.datasets.phantom.lists import ALL_UNSEEN, DEVICES, SEEN
from kvlp.knowledge import graph as graph_module
from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.knowledge.linking import EntityLinker
from kvlp.knowledge.sources.xrefs import read_newer_cuis

FOLDER = Path(graph_module.__file__).parent / "chest"
NIH14 = [
    *("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax"),
    *("Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia"),
]
CHEXPERT = [
    *("Enlarged Cardiomediastinum", "Lung Opacity", "Lung Lesion", "Pleural Effusion", "Fracture", "Support Devices"),
]


@pytest.fixture(scope="module")
def chest() -> KnowledgeGraph:
    return KnowledgeGraph.load("chest")


@pytest.fixture(scope="module")
def linker(chest: KnowledgeGraph) -> EntityLinker:
    return EntityLinker(chest)


def test_size(chest: KnowledgeGraph) -> None:
    kinds = Counter(t for c in chest for t in c.semantic_types)
    assert len(chest) >= 200
    assert sum(len(c.surfaces) for c in chest) >= 600
    assert len(chest.relations) >= 400
    assert {"finding", "disease", "anatomy", "device", "descriptor", "normal"} <= set(kinds)
    assert len({r.type for r in chest.relations}) >= 8


def test_build_check(chest: KnowledgeGraph) -> None:
    assert chest.validate() == []
    assert chest.licence
    assert chest.version


def test_phantom_concepts_are_findings_and_devices(chest: KnowledgeGraph) -> None:
    for concept_id in (*SEEN, *ALL_UNSEEN):
        assert "finding" in chest[concept_id].semantic_types, concept_id
        assert len(chest[concept_id].descriptions) >= 5, concept_id
    for concept_id in DEVICES:
        assert chest[concept_id].semantic_types == ("device",)
        assert len(chest[concept_id].descriptions) >= 3


def test_every_finding_is_defined_and_described(chest: KnowledgeGraph) -> None:
    for concept in chest:
        if "finding" in concept.semantic_types:
            assert len(concept.definition.split()) >= 5, concept.id
            assert len(concept.descriptions) >= 3, concept.id
            assert len(set(concept.descriptions)) == len(concept.descriptions), concept.id
        if "disease" in concept.semantic_types:
            assert concept.definition, concept.id


def test_descriptions_are_noun_phrases(chest: KnowledgeGraph) -> None:
    for concept in chest:
        for text in concept.descriptions:
            assert text == text.strip().rstrip("."), text
            assert not text.lower().startswith(("a ", "an ", "the ", "there ", "no ")), text
            assert 2 <= len(text.split()) <= 16, text


def test_a_reader_does_not_find_the_finding_in_its_description(chest: KnowledgeGraph, linker: EntityLinker) -> None:
    for concept in chest:
        family = {concept.id} | chest.descendants(concept.id)
        for text in concept.descriptions:
            named = {m.concept for m in linker(text)}
            assert not named & family, text
            assert not named & set(ALL_UNSEEN), text


def test_is_a_stays_within_a_type(chest: KnowledgeGraph) -> None:
    for r in chest.relations:
        if r.type == "is_a":
            shared = set(chest[r.head].semantic_types) & set(chest[r.tail].semantic_types)
            # an acute abnormality may be a finding or a diagnosis
            assert shared, r


def test_rules_out_leads_from_normal_statements_to_abnormalities(chest: KnowledgeGraph) -> None:
    rules = [r for r in chest.relations if r.type == "rules_out"]
    assert {r.head for r in rules} >= {"lungs_clear", "normal_heart_size", "normal_chest", "clear_pleural_spaces"}
    for r in rules:
        assert chest[r.head].semantic_types == ("normal",)
        assert {"finding", "disease"} & set(chest[r.tail].semantic_types)
    assert "cardiomegaly" in {r.tail for r in chest.neighbours("normal_heart_size", "rules_out")}


def test_unseen_findings_do_not_stand_above_seen_ones(chest: KnowledgeGraph) -> None:
    for concept_id in ALL_UNSEEN:
        assert not chest.descendants(concept_id) & set(SEEN), concept_id


@pytest.mark.parametrize("name", [*NIH14, *CHEXPERT])
def test_public_class_names_are_found(chest: KnowledgeGraph, name: str) -> None:
    assert chest.concept(name)


@pytest.mark.parametrize(
    ("surface", "concept"),
    [
        ("heart enlarged", "cardiomegaly"),
        ("Enlarged cardiac silhouette", "cardiomegaly"),
        ("blunted costophrenic angle", "pleural_effusion"),
        ("bibasilar atelectasis", "basilar_atelectasis"),
        ("ETT", "endotracheal_tube"),
        ("PICC", "picc"),
        ("Port-A-Cath", "port_catheter"),
        ("NG tube", "nasogastric_tube"),
        ("free air under the diaphragm", "pneumoperitoneum"),
        ("COPD", "copd"),
        ("lungs are clear", "lungs_clear"),
        ("normal mediastinal contour", "normal_mediastinum"),
        ("C0018800", "cardiomegaly"),
        ("HP:0002107", "pneumothorax"),
        ("UBERON:0002048", "lung"),
    ],
)
def test_words_of_reports_and_ids(chest: KnowledgeGraph, surface: str, concept: str) -> None:
    assert chest.concept(surface).id == concept


def test_labels_flow_as_readers_expect(chest: KnowledgeGraph) -> None:
    assert {"consolidation", "atelectasis", "lung_nodule", "pulmonary_edema"} <= chest.descendants("lung_opacity")
    assert "pneumothorax" in chest.ancestors("hydropneumothorax")
    assert "lung_cavity" in chest.ancestors("lung_abscess")
    assert "lung_nodule" not in chest.ancestors("calcified_granuloma")
    assert {"picc", "port_catheter"} <= chest.descendants("central_venous_catheter")


def test_ids_carry_their_provenance(chest: KnowledgeGraph) -> None:
    with (FOLDER / "ids.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= 300
    for row in rows:
        assert all(row[c] for c in ("concept", "source_id", "matched_name", "ontology", "release", "licence")), row
        assert re.fullmatch(r"UMLS:C\d{7}|(HP|DOID|SYMP|UBERON):\d{7}|DOID:\d+", row["source_id"]), row
    owners: dict[str, set[str]] = {}
    for row in rows:
        owners.setdefault(row["source_id"], set()).add(row["concept"])
    assert [i for i, who in owners.items() if len(who) > 1] == []


def test_ids_are_those_of_the_ontologies(chest: KnowledgeGraph, kvlp_data: Path) -> None:
    folder = kvlp_data / "ontology"
    if not (folder / "hp_2016-04-01.obo.gz").is_file():
        pytest.skip("no HPO file in the folder of real data")
    import gzip

    stated: dict[str, set[str]] = {}
    term = ""
    with gzip.open(folder / "hp_2016-04-01.obo.gz", "rt", encoding="utf-8") as file:
        for line in file:
            if line.startswith("id: "):
                term = line[4:].strip()
            elif line.startswith("xref: UMLS:"):
                stated.setdefault(term, set()).add(line.split()[1])
    with (FOLDER / "ids.csv").open(encoding="utf-8", newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["ontology"] == "Human Phenotype Ontology"]
    terms = {(r["concept"], r["source_id"]) for r in rows if r["source_id"].startswith("HP:")}
    for row in rows:
        if row["source_id"].startswith("UMLS:"):
            own = [t for c, t in terms if c == row["concept"]]
            if row["release"] != "releases/2016-04-01":
                assert any(read_newer_cuis().get((t, row["source_id"])) == row["release"] for t in own), row
                continue
            assert any(row["source_id"] in stated.get(t, set()) for t in own), row


def test_chest_loads_fast() -> None:
    KnowledgeGraph.load("chest")
    best = min(_timed() for _ in range(5))
    assert best < 0.15


def _timed() -> float:
    start = time.process_time()
    KnowledgeGraph.load("chest")
    return time.process_time() - start


def test_first_load_in_a_fresh_process_is_fast_too() -> None:
    code = (
        "import time; from kvlp.knowledge.graph import KnowledgeGraph; start = time.process_time();"
        "KnowledgeGraph.load('chest'); print(time.process_time() - start)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.15
