"""HPO, Disease Ontology and Uberon as published: counts against the raw lines, and one graph of all three."""

import gzip
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.knowledge.merge import Merged, merge
from kvlp.knowledge.sources.obo import read_obo
from kvlp.knowledge.sources.report import SourceReport
from kvlp.knowledge.sources.xrefs import read_newer_cuis

FILES = {
    "hpo": "hp_2016-04-01.obo.gz",
    "do": "doid_full_2015_no_xrefs.obo.gz",
    "uberon": "uberon_efo-slim.obo",
    "symp": "symp.obo",
}
XREFS = "doid_full_2015_xrefs.tsv.gz"


@dataclass
class Raw:
    """What the lines of an OBO file say, found without an OBO reader."""

    obsolete: int = 0
    names: dict[str, str] = field(default_factory=dict)
    definitions: int = 0
    exact: dict[str, set[str]] = field(default_factory=dict)
    edges: set[tuple[str, str, str]] = field(default_factory=set)
    cuis: dict[str, set[str]] = field(default_factory=dict)


def _lines(path: Path) -> list[str]:
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return text.decode("utf-8").splitlines()


def raw(path: Path) -> Raw:
    """Count in the manner of grep: block by block, a line at a time."""
    found = Raw()
    for block in "\n".join(_lines(path)).split("\n\n"):
        lines = block.strip("\n").split("\n")
        if lines[0] != "[Term]":
            continue
        if "is_obsolete: true" in lines:
            found.obsolete += 1
            continue
        term = next(line[4:] for line in lines if line.startswith("id: "))
        name = next(line[6:] for line in lines if line.startswith("name: "))
        name = found.names[term] = re.sub(r" \{[^{}]*\}$", "", name)
        found.definitions += any(line.startswith("def: ") for line in lines)
        for line in lines:
            exact = re.match(r'synonym: "(.*)" EXACT', line)
            if exact and exact[1].replace("\\", "").lower() != name.replace("\\", "").lower():
                found.exact.setdefault(term, set()).add(" ".join(exact[1].split()))
            if line.startswith("is_a: "):
                found.edges.add((term, "is_a", line.split()[1]))
            if line.startswith("relationship: "):
                found.edges.add((term, line.split()[1], line.split()[2]))
            cui = re.match(r"xref: UMLS(?:_CUI)?:(C\d{7})\b", line)
            if cui:
                found.cuis.setdefault(term, set()).add(cui[1])
    for term, cui in read_newer_cuis():
        if term in found.names:
            found.cuis.setdefault(term, set()).add(cui.removeprefix("UMLS:"))
    return found


def _folder(kvlp_data: Path) -> Path:
    pytest.importorskip("obonet")
    folder = kvlp_data / "ontology"
    if not all((folder / name).is_file() for name in (*FILES.values(), XREFS)):
        pytest.skip("no ontology files in the folder of real data")
    return folder


def _raw(folder: Path, name: str) -> Raw:
    found = raw(folder / FILES[name])
    if name == "do":
        for line in _lines(folder / XREFS):
            cells = line.split("\t")
            if len(cells) == 4 and cells[2] == "UMLS" and re.fullmatch(r"C\d{7}", cells[3]) and cells[0] in found.names:
                found.cuis.setdefault(cells[0], set()).add(cells[3])
    return found


def _read(folder: Path, name: str, report: SourceReport) -> KnowledgeGraph:
    return read_obo([folder / FILES[name]], name=name, xrefs=folder / XREFS if name == "do" else None, report=report)


def _compare(graph: KnowledgeGraph, report: SourceReport, lines: Raw) -> None:
    assert {c.id: c.name for c in graph} == {
        key: " ".join(name.replace("\\", "").split()) for key, name in lines.names.items()
    }
    assert report.count("obsolete") == lines.obsolete
    assert sum(bool(c.definition) for c in graph) == lines.definitions
    assert {c.id: len(c.synonyms) for c in graph if c.synonyms} == {t: len(s) for t, s in lines.exact.items()}
    inside = {e for e in lines.edges if e[2] in lines.names}
    assert {(r.head, r.type, r.tail) for r in graph.relations} == inside
    assert set(report.named.get("dangling", ())) == {" ".join(e) for e in lines.edges - inside}
    cuis = {c.id: {i[5:] for i in c.source_ids if i.startswith("UMLS:")} for c in graph}
    assert {key: found for key, found in cuis.items() if found} == lines.cuis


@pytest.mark.parametrize("name", ["uberon", "symp"])
def test_small_ontologies_say_what_their_lines_say(kvlp_data: Path, name: str) -> None:
    folder, report = _folder(kvlp_data), SourceReport()
    _compare(_read(folder, name, report), report, _raw(folder, name))


@dataclass(frozen=True)
class Three:
    graphs: dict[str, KnowledgeGraph]
    reports: dict[str, SourceReport]
    raws: dict[str, Raw]
    merged: Merged


@pytest.fixture(scope="module")
def three(kvlp_data: Path) -> Three:
    folder = _folder(kvlp_data)
    reports = {name: SourceReport() for name in ("hpo", "do", "uberon")}
    graphs = {name: _read(folder, name, reports[name]) for name in reports}
    raws = {name: _raw(folder, name) for name in reports}
    return Three(graphs, reports, raws, merge(list(graphs.values()), report=SourceReport()))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hpo", "do"])
def test_large_ontologies_say_what_their_lines_say(three: Three, name: str) -> None:
    _compare(three.graphs[name], three.reports[name], three.raws[name])


@pytest.mark.slow
def test_the_merged_graph_holds_every_term_and_every_relation(three: Three) -> None:
    graph, report = three.merged.graph, three.merged.report
    home = {o.text: o.concept for o in three.merged.origins if o.part == "id"}
    terms = {term for lines in three.raws.values() for term in lines.names}
    assert set(home) == terms
    assert set(home.values()) == {c.id for c in graph}
    assert report.count("cycle") == report.count("renamed") == 0
    stated = {e for lines in three.raws.values() for e in lines.edges if e[2] in lines.names}
    moved = {(home[h], kind, home[t]) for h, kind, t in stated}
    assert {(r.head, r.type, r.tail) for r in graph.relations} == {e for e in moved if e[0] != e[2]}
    assert not [p for p in graph.validate() if p.severity == "error"]


@pytest.mark.slow
def test_terms_that_share_a_cui_are_one_or_named(three: Three) -> None:
    """The number of united terms, by a second way: connected terms, less what one ontology tells apart."""
    home = {o.text: o.concept for o in three.merged.origins if o.part == "id"}
    holders: dict[str, dict[str, set[str]]] = {}
    for name, lines in three.raws.items():
        for term, cuis in lines.cuis.items():
            for cui in cuis:
                holders.setdefault(cui, {}).setdefault(name, set()).add(term)
    shared = {cui: held for cui, held in holders.items() if len(held) > 1}
    assert len(shared) > 400
    conflicts = {term for pair in three.merged.report.named["conflict"] for term in pair.split(" and ")}
    for cui, held in shared.items():
        terms = [term for group in held.values() for term in group]
        assert len({home[term] for term in terms}) == 1 or conflicts & set(terms), cui
    for members in _clusters(home).values():
        assert len({term.split(":")[0] for term in members}) == len(members)
    assert len(home) - len(three.merged.graph) == sum(len(m) - 1 for m in _clusters(home).values())


def _clusters(home: dict[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for term, concept in home.items():
        found.setdefault(concept, []).append(term)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cuis", "term", "name", "parents"),
    [
        (("C0032326", "C1963215"), "HP:0002107", "Pneumothorax", ["Abnormality of the lung"]),
        (("C0032227", "C1253943"), "HP:0002202", "Pleural effusion", ["Edema", "Abnormality of the pleura"]),
        (("C0018800",), "HP:0001640", "Cardiomegaly", ["Abnormal heart morphology"]),
    ],
)
def test_findings_stand_under_their_cuis_with_their_parents(
    three: Three, cuis: tuple[str, ...], term: str, name: str, parents: list[str]
) -> None:
    graph = three.merged.graph
    for cui in cuis:
        assert graph.concept(cui).id == term
    assert graph[term].name == name
    assert [graph[p].name for p in graph.parents(term)] == parents


@pytest.mark.slow
def test_the_chest_graph_joins_what_it_knows_of_both(three: Three) -> None:
    chest = KnowledgeGraph.load("chest")
    merged = merge([*three.graphs.values(), chest], report=SourceReport())
    pneumothorax = merged.graph.concept("C0032326")
    assert {"HP:0002107", "DOID:1673", "UMLS:C0032326"} <= set(pneumothorax.source_ids)
    assert {"pleural disease", "Abnormality of the lung"} <= {
        merged.graph[p].name for p in merged.graph.parents(pneumothorax.id)
    }
    assert {o.graph for o in merged.origins if o.concept == pneumothorax.id} == {"hpo", "do", "chest"}
