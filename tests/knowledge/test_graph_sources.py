"""OBO sources: small files written here, the real ontologies where they are. (UMLS tables: test_umls.py.)"""

import gzip
import logging
from pathlib import Path

import pytest

from kvlp.errors import KnowledgeError
from kvlp.knowledge.graph import KnowledgeGraph, Relation
from kvlp.knowledge.sources.obo import read_obo
from kvlp.knowledge.sources.report import SourceReport

OBO = """format-version: 1.2
data-version: made/up
ontology: tiny

[Term]
id: T:1
name: disease of lung
def: "A \\"bad\\" thing." [ref:1]
synonym: "lung disease" EXACT []
synonym: "Disease of lung" EXACT []
synonym: "chest disease" BROAD []
xref: UMLS_CUI:C0024115
alt_id: T:9

[Term]
id: T:2
name: pneumonia
xref: UMLS:C0032285 "Pneumonia"
is_a: T:1 ! disease of lung
is_a: T:77 ! nowhere
relationship: part_of T:1

[Term]
id: T:3
name: obsolete thing
is_obsolete: true
"""


@pytest.fixture
def obo_file(tmp_path: Path) -> Path:
    pytest.importorskip("obonet")
    path = tmp_path / "tiny.obo"
    path.write_text(OBO)
    return path


def test_obo_terms_become_concepts(obo_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="kvlp"):
        graph = KnowledgeGraph.from_obo(obo_file)
    assert [c.id for c in graph] == ["T:1", "T:2"]
    lung = graph["T:1"]
    assert (lung.name, lung.synonyms, lung.definition) == ("disease of lung", ("lung disease",), 'A "bad" thing.')
    assert lung.source_ids == ("T:1", "T:9", "UMLS:C0024115")
    assert graph.concept("C0032285").id == graph.concept("PNEUMONIA").id == "T:2"
    assert {(r.head, r.type, r.tail) for r in graph.relations} == {("T:2", "is_a", "T:1"), ("T:2", "part_of", "T:1")}
    assert (graph.name, graph.version) == ("tiny", "made/up")
    assert "1 relations left out whose other end is in no file: T:2 is_a T:77" in caplog.text
    assert "1 obsolete terms left out: T:3" in caplog.text


def test_several_obo_files_and_gzip(obo_file: Path, tmp_path: Path) -> None:
    more = tmp_path / "more.obo.gz"
    with gzip.open(more, "wt") as file:
        file.write(
            "format-version: 1.2\nontology: more\n\n[Term]\nid: T:77\nname: far\n\n[Term]\nid: T:2\nname: other\n"
        )
    graph = KnowledgeGraph.from_obo(obo_file, more, name="both")
    assert graph.name == "both"
    assert graph["T:2"].name == "pneumonia"
    assert Relation("T:2", "is_a", "T:77", "tiny made/up") in graph.relations


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no term with a name"),
        (b"hello\n", "not readable as OBO|no term with a name"),
        (b"\xff\xfe\n", "not UTF-8"),
        (OBO.encode("utf-16"), "line 1: holds NUL bytes"),
        (
            OBO.replace("disease", "maladie à").encode("latin-1"),
            r"not UTF-8 \(byte \d+\); save the file as UTF-8 \(line 7",
        ),
        (OBO.encode()[:400], "the last line does not end, so the file may be cut off"),
        (OBO.replace("name: pneumonia", "name pneumonia").encode(), "near line 17: not readable as OBO"),
        (OBO.replace("relationship: part_of T:1", "relationship: part_of").encode(), "not readable as OBO"),
        (
            b"format-version: 1.2\n\n[Term]\nid: a\nname: x\nis_a: b\n\n[Term]\nid: b\nname: y\nis_a: a\n",
            "is_a goes in a circle: a is_a b is_a a",
        ),
    ],
)
def test_bad_obo_files(obo_file: Path, content: bytes, message: str) -> None:
    obo_file.write_bytes(content)
    with pytest.raises(KnowledgeError, match=message) as caught:
        KnowledgeGraph.from_obo(obo_file)
    assert str(obo_file) in str(caught.value)


def test_truncated_gzip_and_missing_file(obo_file: Path) -> None:
    short = obo_file.with_name("short.obo.gz")
    short.write_bytes(gzip.compress(OBO.encode() * 50)[:-20])
    with pytest.raises(KnowledgeError, match=r"not readable as a gzip file \(EOFError\); is it cut off or damaged"):
        KnowledgeGraph.from_obo(short)
    short.write_bytes(b"not gzip")
    with pytest.raises(KnowledgeError, match="not readable as a gzip file"):
        KnowledgeGraph.from_obo(short)
    with pytest.raises(KnowledgeError, match="no such file; expected an OBO file"):
        KnowledgeGraph.from_obo(obo_file.parent / "nothing.obo")
    with pytest.raises(KnowledgeError, match="no such file; expected an OBO file"):
        KnowledgeGraph.from_obo(obo_file.parent)
    with pytest.raises(KnowledgeError, match="at least one"):
        KnowledgeGraph.from_obo()


def test_real_symptom_ontology_counts(kvlp_data: Path) -> None:
    pytest.importorskip("obonet")
    path = kvlp_data / "ontology" / "symp.obo"
    if not path.is_file():
        pytest.skip("no symp.obo in the folder of real data")
    blocks = [b for b in path.read_text().split("\n\n") if b.startswith("[Term]") and "is_obsolete: true" not in b]
    graph = KnowledgeGraph.from_obo(path)
    assert len(graph) == len(blocks)
    stated = sum(line.startswith("is_a: ") for b in blocks for line in b.splitlines())
    assert stated - 5 <= sum(r.type == "is_a" for r in graph.relations) <= stated
    assert "T" not in graph
    assert graph.concept("dyspnea").source_ids[0].startswith("SYMP:")


def test_synonym_scopes_and_other_vocabularies(obo_file: Path) -> None:
    text = OBO.replace('synonym: "chest disease" BROAD []', 'synonym: "chest disease" BROAD []\nsynonym: "none" []')
    obo_file.write_text(
        text.replace("xref: UMLS_CUI:C0024115", "xref: UMLS_CUI:C0024115\nxref: MSH:D1\nxref: UMLS:C12")
    )
    report = SourceReport()
    graph = read_obo([obo_file], synonym_scopes=("exact", "broad"), vocabularies=("UMLS", "MESH"), report=report)
    assert graph["T:1"].synonyms == ("lung disease", "chest disease")
    assert graph["T:1"].source_ids == ("T:1", "T:9", "UMLS:C0024115", "MESH:D1")
    assert report.named == {"obsolete": ["T:3"], "odd_cui": ["T:1 UMLS:C12"], "dangling": ["T:2 is_a T:77"]}
    assert read_obo([obo_file], synonym_scopes=("RELATED",))["T:1"].synonyms == ("none",)
    with pytest.raises(
        KnowledgeError, match=r"unknown synonym scope 'EXCAT': expected EXACT, .*; did you mean EXACT\?"
    ):
        read_obo([obo_file], synonym_scopes=("EXCAT",))


def test_a_table_of_cross_references(obo_file: Path, tmp_path: Path) -> None:
    table = tmp_path / "xrefs.tsv"
    table.write_text("doid_code\tdoid_name\tresource\tresource_id\nT:2\tx\tUMLS\tC0000002\nT:8\tx\tUMLS\tC0000003\n")
    report = SourceReport()
    graph = read_obo([obo_file], xrefs=table, report=report)
    assert graph["T:2"].source_ids == ("T:2", "UMLS:C0032285", "UMLS:C0000002")
    assert report.named["unknown_xref"] == ["T:8"]
    table.write_text("term,source_id\nT:2,UMLS_CUI:C0000002\n")
    assert "UMLS:C0000002" in read_obo([obo_file], xrefs=table)["T:2"].source_ids
    table.write_text("term,resuorce,resource_id\nT:2,UMLS,C1\n")
    with pytest.raises(KnowledgeError, match=r"unknown column 'resuorce'; did you mean 'resource'\?"):
        read_obo([obo_file], xrefs=table)
    table.write_text("term,resource\nT:2,UMLS\n")
    with pytest.raises(KnowledgeError, match="line 2: expected a source_id, or a resource and its resource_id"):
        read_obo([obo_file], xrefs=table)


def test_terms_of_known_ontologies_have_types_and_newer_cuis(obo_file: Path) -> None:
    obo_file.write_text(
        "format-version: 1.2\ndefault-namespace: human_phenotype\n\n[Term]\nid: HP:0002202\nname: Effusion\n"
    )
    graph = KnowledgeGraph.from_obo(obo_file)
    assert graph["HP:0002202"].semantic_types == ("finding", "human_phenotype")
    assert graph.concept("C0032227").id == "HP:0002202"
