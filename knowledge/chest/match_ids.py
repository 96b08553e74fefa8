"""Fill ids.csv: ids of the chest graph's concepts in open ontologies, found by name, with their provenance.

    python -m kvlp.knowledge.chest.match_ids FOLDER_WITH_OBO_FILES

A concept gets the id of a term, and the UMLS ids which the term itself cross-references, if one of its surfaces equals
the term's name or exact synonym. Matches that a person found wrong stand in rejected_ids.csv and are left out. Only
identifiers and the matched name are taken: definitions in the graph are our own words.
"""

from __future__ import annotations

import csv
import gzip
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kvlp.errors import KnowledgeError
from kvlp.knowledge.graph import Concept, KnowledgeGraph
from kvlp.knowledge.sources.xrefs import read_newer_cuis
from kvlp.knowledge.surfaces import fold

__all__ = ["Match", "Source", "match_ids", "write_ids"]

_HERE = Path(__file__).parent
_SHOWN = frozenset({"finding", "disease", "symptom", "procedure"})
_ANATOMY = frozenset({"anatomy"})


@dataclass(frozen=True, slots=True)
class Source:
    """Files of an ontology: its name, licence, semantic types, and its release where the files do not state it."""

    files: tuple[str, ...]
    ontology: str
    licence: str
    types: frozenset[str] = _SHOWN
    xrefs: str = ""
    release: str = "not stated in the file"


#: in the order of trust: a concept keeps the ids of each
SOURCES = (
    Source(("hp_2016-04-01.obo.gz",), "Human Phenotype Ontology", "HPO licence (free use with source and version)"),
    Source(
        tuple(
            f"doid_{part}.obo"
            for part in ("NCIthesaurus", "DO_RAD_slim", "DO_infectious_disease_slim", "DO_rare_slim", "DO_cancer_slim")
        ),
        "Human Disease Ontology",
        "CC0-1.0",
    ),
    Source(
        ("doid_full_2015_no_xrefs.obo.gz",),
        "Human Disease Ontology (2015)",
        "CC-BY-3.0",
        xrefs="doid_full_2015_xrefs.tsv.gz",
        release="2015",
    ),
    Source(("symp.obo",), "Symptom Ontology", "CC0-1.0"),
    Source(("uberon_efo-slim.obo",), "Uberon", "CC-BY-3.0", _ANATOMY),
)
COLUMNS = ("concept", "source_id", "matched_name", "ontology", "release", "licence")


@dataclass(frozen=True, slots=True)
class Match:
    """One row of ids.csv."""

    concept: str
    source_id: str
    matched_name: str
    ontology: str
    release: str
    licence: str


def match_ids(graph: KnowledgeGraph, folder: Path, rejected: Iterable[tuple[str, str]] = ()) -> list[Match]:
    """Match all concepts against the ontology files in `folder`; the order is that of the graph.

    Raises:
        KnowledgeError: a file is missing or damaged.
    """
    refused = set(rejected)
    found: dict[tuple[str, str], Match] = {}
    for source in SOURCES:
        for match in _match_source(graph, source, folder):
            wrong = (match.concept, match.source_id) in refused or (match.concept, "*") in refused
            if not wrong:
                found.setdefault((match.concept, match.source_id), match)
    order = {concept.id: i for i, concept in enumerate(graph.concepts)}
    return sorted(found.values(), key=lambda m: (order[m.concept], not m.source_id.startswith("UMLS:")))


def write_ids(matches: Iterable[Match], path: Path) -> None:
    """Write ids.csv."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([getattr(m, c) for c in COLUMNS] for m in matches)


def _match_source(graph: KnowledgeGraph, source: Source, folder: Path) -> Iterator[Match]:
    terms = KnowledgeGraph.from_obo(*(folder / f for f in source.files), name=source.ontology)
    xrefs = _umls_xrefs(folder / source.xrefs) if source.xrefs else {}
    names, synonyms = _index(terms)
    release = terms.version.split(";")[0] or source.release
    for concept in graph.concepts:
        if not source.types & set(concept.semantic_types):
            continue
        hit = _best(concept, names, synonyms)
        if hit is None:
            continue
        term, surface = hit
        umls = [i for i in terms[term].source_ids if i.startswith("UMLS:")] + xrefs.get(term, [])
        for source_id in (*umls, term):
            stated = read_newer_cuis().get((term, source_id), release)
            yield Match(concept.id, source_id, surface, source.ontology, stated, source.licence)


def _index(terms: KnowledgeGraph) -> tuple[dict[str, tuple[str, str]], dict[str, tuple[str, str]]]:
    names = {fold(t.name): (t.id, t.name) for t in reversed(terms.concepts)}
    synonyms = {fold(s): (t.id, s) for t in reversed(terms.concepts) for s in t.synonyms}
    return names, synonyms


def _best(
    concept: Concept, names: dict[str, tuple[str, str]], synonyms: dict[str, tuple[str, str]]
) -> tuple[str, str] | None:
    """The concept's name decides before its synonyms; a term's name before its synonyms.

    A synonym of one word ("mass", "edema") says too little of what it means outside a chest report.
    """
    for surface in (concept.name, *(s for s in concept.synonyms if " " in s or "-" in s)):
        for index in (names, synonyms):
            hit = index.get(fold(surface))
            if hit is not None:
                return hit
    return None


def _umls_xrefs(path: Path) -> dict[str, list[str]]:
    if not path.is_file():
        raise KnowledgeError(f"{path}: expected the table of cross references")
    found: dict[str, list[str]] = {}
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if row["resource"] == "UMLS":
                found.setdefault(row["doid_code"], []).append(f"UMLS:{row['resource_id']}")
    return found


def _rejected() -> list[tuple[str, str]]:
    path = _HERE / "rejected_ids.csv"
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [(row["concept"], row["source_id"]) for row in csv.DictReader(file)]


def _main(args: Sequence[str]) -> int:
    if len(args) != 1:
        sys.stderr.write("usage: python -m kvlp.knowledge.chest.match_ids FOLDER_WITH_OBO_FILES\n")
        return 2
    matches = match_ids(KnowledgeGraph.load("chest"), Path(args[0]), _rejected())
    write_ids(matches, _HERE / "ids.csv")
    sys.stderr.write(f"{len(matches)} ids of {len({m.concept for m in matches})} concepts\n")
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
