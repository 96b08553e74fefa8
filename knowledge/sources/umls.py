"""UMLS release tables (Rich Release Format): English names, definitions, semantic types and relations.

UMLS content is never part of kvlp: a user brings their own licensed release, and the graph says so in its licence.
Rows end with "|" and quotes have no meaning, so lines are split, not parsed as CSV.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kvlp.errors import KnowledgeError
from kvlp.knowledge.graph import Concept, KnowledgeGraph, Relation
from kvlp.knowledge.surfaces import fold

__all__ = ["read_rrf", "read_umls"]

_LOG = logging.getLogger(__name__)
#: table -> number of columns (NLM, UMLS Reference Manual, chapter 3)
_COLUMNS = {"MRCONSO.RRF": 18, "MRREL.RRF": 16, "MRSTY.RRF": 6, "MRDEF.RRF": 8}
_LICENCE = "UMLS Metathesaurus licence: not to be redistributed"
#: SUPPRESS values of obsolete or suppressible rows
_SUPPRESSED = frozenset({"O", "E", "Y"})
#: REL values that say nothing typed: siblings, qualifiers, synonymy, not related
_SAME_LEVEL = frozenset({"SIB", "AQ", "QB", "SY", "XR", "DEL"})


@dataclass(slots=True)
class _Entry:
    name: str = ""
    rank: int = 9
    surfaces: dict[str, str] = field(default_factory=dict)
    codes: dict[str, None] = field(default_factory=dict)
    types: dict[str, None] = field(default_factory=dict)
    definition: str = ""


def read_umls(folder: Path) -> KnowledgeGraph:
    """Read a folder of RRF tables into a graph whose concept ids are CUIs.

    MRREL's row says that concept 2 has the relation to concept 1; RELA is the type where given, else REL in lower case.
    CHD and PAR without RELA become is_a, in one direction. Relations to concepts that are not in MRCONSO, self loops
    and is_a relations that close a circle are left out and counted in the log.

    Raises:
        KnowledgeError: MRCONSO.RRF is missing, or a table has a wrong number of columns or is not UTF-8.
    """
    if not (folder / "MRCONSO.RRF").is_file():
        raise KnowledgeError(f"{folder}: expected a UMLS folder with MRCONSO.RRF; got none")
    entries = _names(folder)
    for row in _optional(folder / "MRSTY.RRF"):
        if row[0] in entries:
            entries[row[0]].types[row[3]] = None
    for row in _optional(folder / "MRDEF.RRF"):
        if row[0] in entries and not entries[row[0]].definition and row[6] not in _SUPPRESSED:
            entries[row[0]].definition = row[5]
    concepts = [_concept(cui, entry) for cui, entry in entries.items()]
    relations = _relations(folder, entries)
    return KnowledgeGraph(concepts, relations, name=folder.name, licence=_LICENCE)


def read_rrf(path: Path) -> Iterator[list[str]]:
    """Yield the rows of an RRF table, each with the number of columns that the table must have.

    Raises:
        KnowledgeError: a row of another length (a truncated file) or bytes that are not UTF-8; names the line.
    """
    expected = _COLUMNS[path.name]
    number = 0
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, 1):
                cells = line.rstrip("\r\n").split("|")
                if len(cells) != expected + 1 or cells[-1]:
                    raise KnowledgeError(
                        f"{path} line {number}: expected {expected} columns, each ended by '|', got {len(cells) - 1};"
                        " is the file cut off?"
                    )
                yield cells[:-1]
    except UnicodeDecodeError:
        raise KnowledgeError(f"{path} after line {number}: not UTF-8; RRF tables are UTF-8") from None


def _optional(path: Path) -> Iterator[list[str]]:
    if path.is_file():
        yield from read_rrf(path)


def _names(folder: Path) -> dict[str, _Entry]:
    entries: dict[str, _Entry] = {}
    for row in read_rrf(folder / "MRCONSO.RRF"):
        cui, language, status, form, preferred, text = row[0], row[1], row[2], row[4], row[6], row[14]
        if language != "ENG" or row[16] in _SUPPRESSED or not text.strip():
            continue
        entry = entries.setdefault(cui, _Entry())
        entry.surfaces.setdefault(fold(text), text)
        if row[11] != "MTH":
            entry.codes[f"{row[11]}:{row[13]}"] = None
        # the name that UMLS itself prefers: preferred term, preferred form, preferred atom
        rank = (status != "P") * 4 + (form != "PF") * 2 + (preferred != "Y")
        if rank < entry.rank:
            entry.name, entry.rank = text, rank
    return entries


def _concept(cui: str, entry: _Entry) -> Concept:
    own = fold(entry.name)
    return Concept(
        id=cui,
        name=entry.name,
        synonyms=tuple(text for key, text in entry.surfaces.items() if key != own),
        definition=entry.definition,
        semantic_types=tuple(entry.types),
        source_ids=(f"UMLS:{cui}", *entry.codes),
    )


def _relations(folder: Path, entries: dict[str, _Entry]) -> list[Relation]:
    found: dict[Relation, None] = {}
    lost = 0
    for row in _optional(folder / "MRREL.RRF"):
        cui1, rel, cui2, rela, source = row[0], row[3], row[4], row[7], row[10]
        if cui1 not in entries or cui2 not in entries or cui1 == cui2:
            lost += 1
        elif row[14] not in _SUPPRESSED:
            found.update(dict.fromkeys(_relation(cui1, rel, cui2, rela, source)))
    kept = _without_circles(list(found))
    if lost or len(kept) < len(found):
        _LOG.warning("left out %d relations without two concepts, %d in is_a circles", lost, len(found) - len(kept))
    return kept


def _relation(cui1: str, rel: str, cui2: str, rela: str, source: str) -> list[Relation]:
    """A row reads from right to left: "C1 PAR C2" means that C2 is the parent of C1, "C1 CHD C2 isa" that C2 isa C1."""
    if rela == "isa" or (rel == "CHD" and not rela):
        return [Relation(cui2, "is_a", cui1, source)]
    if rela == "inverse_isa" or (rel == "PAR" and not rela):
        return [Relation(cui1, "is_a", cui2, source)]
    return [Relation(cui2, rela, cui1, source)] if rela and rel not in _SAME_LEVEL else []


def _without_circles(relations: list[Relation]) -> list[Relation]:
    """Leave out is_a between concepts that are above each other: merged sources disagree there."""
    import networkx as nx

    hierarchy = nx.DiGraph((r.head, r.tail) for r in relations if r.type == "is_a")
    circle = {i: n for n, part in enumerate(nx.strongly_connected_components(hierarchy)) for i in part}
    return [r for r in relations if r.type != "is_a" or circle[r.head] != circle[r.tail]]
