"""A graph as a folder of CSV files that a person can edit.

concepts.csv      id, name, types, number, synonyms, definition      (lists in a cell are separated by ";";
                                                                     a ";" inside is written as "\\;")
descriptions.csv  concept, description                               (optional; one description a row)
relations.csv     head, type, tail, source                           (source is optional)
ids.csv           concept, source_id, ...                            (optional; further columns are provenance)
graph.json        name, version, licence                             (optional)

Files are UTF-8 with a header row. What is wrong is named with its file and line.
"""

from __future__ import annotations

import json
from pathlib import Path

from kvlp.errors import KnowledgeError
from kvlp.knowledge.graph import Concept, KnowledgeGraph, Relation
from kvlp.knowledge.sources.tables import Columns, join_list, read_rows, split_list, write_rows
from kvlp.knowledge.surfaces import near

__all__ = ["read_folder", "write_folder"]

_CONCEPTS = Columns(("id", "name"), ("types", "number", "synonyms", "definition"))
_DESCRIPTIONS = Columns(("concept", "description"))
_RELATIONS = Columns(("head", "type", "tail"), ("source",))
_IDS = Columns(("concept", "source_id"), ("matched_name", "ontology", "release", "licence"))
_NEEDS = "a graph folder with concepts.csv and relations.csv"


def read_folder(folder: Path, *, check: bool = True) -> KnowledgeGraph:
    """Read a graph from a CSV folder.

    Args:
        folder: holds at least concepts.csv and relations.csv.
        check: refuse relations with unknown ends and is_a cycles.

    Raises:
        KnowledgeError: a file is missing, not UTF-8, truncated or has wrong columns, or the graph is unsound.
    """
    if not folder.is_dir():
        raise KnowledgeError(f"{folder}: expected a folder with concepts.csv and relations.csv")
    about = _about(folder)
    rows = read_rows(folder / "concepts.csv", _CONCEPTS, _NEEDS)
    known = {row["id"] for _, row in rows}
    descriptions = _grouped(folder / "descriptions.csv", _DESCRIPTIONS, known)
    source_ids = _grouped(folder / "ids.csv", _IDS, known)
    concepts = [_concept(row, descriptions, source_ids) for _, row in rows]
    relations = [
        Relation(row["head"], row["type"], row["tail"], row.get("source", ""))
        for _, row in read_rows(folder / "relations.csv", _RELATIONS, _NEEDS)
    ]
    graph = KnowledgeGraph(concepts, relations, **about)
    if check:
        from kvlp.knowledge.validate import require_sound

        require_sound(graph, str(folder))
    return graph


def write_folder(graph: KnowledgeGraph, folder: Path) -> Path:
    """Write a graph as a CSV folder (the export that people edit); return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {"name": graph.name, "version": graph.version, "licence": graph.licence}
    (folder / "graph.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    concepts = (
        [c.id, c.name, join_list(c.semantic_types), c.number, join_list(c.synonyms), c.definition]
        for c in graph.concepts
    )
    write_rows(folder / "concepts.csv", ["id", "name", "types", "number", "synonyms", "definition"], concepts)
    described = ([c.id, d] for c in graph.concepts for d in c.descriptions)
    write_rows(folder / "descriptions.csv", ["concept", "description"], described)
    write_rows(folder / "ids.csv", ["concept", "source_id"], ([c.id, s] for c in graph.concepts for s in c.source_ids))
    relations = ([r.head, r.type, r.tail, r.source] for r in graph.relations)
    write_rows(folder / "relations.csv", ["head", "type", "tail", "source"], relations)
    return folder


def _about(folder: Path) -> dict[str, str]:
    about = {"name": folder.name, "version": "", "licence": ""}
    path = folder / "graph.json"
    if not path.is_file():
        return about
    try:
        found = json.loads(path.read_bytes().decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise KnowledgeError(f"{path}: not readable as JSON ({error.__class__.__name__}); is it cut off?") from None
    if not isinstance(found, dict) or not all(isinstance(found.get(k, ""), str) for k in about):
        raise KnowledgeError(f"{path}: expected an object with the texts name, version and licence")
    return {k: found.get(k, v) for k, v in about.items()}


def _grouped(path: Path, columns: Columns, known: set[str]) -> dict[str, list[str]]:
    column = columns.required[1]
    groups: dict[str, list[str]] = {}
    if not path.exists():
        return groups
    for number, row in read_rows(path, columns):
        if row["concept"] not in known:
            close = near(row["concept"], known, n=1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            raise KnowledgeError(f"{path} line {number}: concept '{row['concept']}' is not in concepts.csv{hint}")
        groups.setdefault(row["concept"], []).append(row[column])
    return groups


def _concept(row: dict[str, str], descriptions: dict[str, list[str]], source_ids: dict[str, list[str]]) -> Concept:
    return Concept(
        id=row["id"],
        name=row["name"],
        synonyms=split_list(row.get("synonyms", "")),
        definition=row.get("definition", ""),
        descriptions=tuple(descriptions.get(row["id"], ())),
        semantic_types=split_list(row.get("types", "")),
        source_ids=tuple(source_ids.get(row["id"], ())),
        number=row.get("number", "") or "count",
    )
