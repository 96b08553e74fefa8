"""A graph as a folder of CSV files that a person can edit.

concepts.csv      id, name, types, number, synonyms, definition      (lists in a cell are separated by ";")
descriptions.csv  concept, description                               (optional; one description a row)
relations.csv     head, type, tail, source                           (source is optional)
ids.csv           concept, source_id, ...                            (optional; further columns are provenance)
graph.json        name, version, licence                             (optional)

Files are UTF-8 with a header row. What is wrong is named with its file and line.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from kvlp.errors import KnowledgeError
from kvlp.knowledge.graph import Concept, KnowledgeGraph, Relation
from kvlp.knowledge.surfaces import near

__all__ = ["read_folder", "read_rows", "write_folder"]

_COLUMNS = {
    "concepts.csv": (("id", "name"), ("types", "number", "synonyms", "definition")),
    "descriptions.csv": (("concept", "description"), ()),
    "relations.csv": (("head", "type", "tail"), ("source",)),
    "ids.csv": (("concept", "source_id"), ("matched_name", "ontology", "release", "licence")),
}
Row = dict[str, str]


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
    rows = read_rows(folder / "concepts.csv")
    known = {row["id"] for _, row in rows}
    descriptions = _grouped(folder / "descriptions.csv", "description", known)
    source_ids = _grouped(folder / "ids.csv", "source_id", known)
    concepts = [_concept(row, descriptions, source_ids) for _, row in rows]
    relations = [
        Relation(row["head"], row["type"], row["tail"], row.get("source", ""))
        for _, row in read_rows(folder / "relations.csv")
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
        [c.id, c.name, _cell(c.semantic_types), c.number, _cell(c.synonyms), c.definition] for c in graph.concepts
    )
    _write(folder / "concepts.csv", ["id", "name", "types", "number", "synonyms", "definition"], concepts)
    described = ([c.id, d] for c in graph.concepts for d in c.descriptions)
    _write(folder / "descriptions.csv", ["concept", "description"], described)
    _write(folder / "ids.csv", ["concept", "source_id"], ([c.id, s] for c in graph.concepts for s in c.source_ids))
    relations = ([r.head, r.type, r.tail, r.source] for r in graph.relations)
    _write(folder / "relations.csv", ["head", "type", "tail", "source"], relations)
    return folder


def read_rows(path: Path) -> list[tuple[int, Row]]:
    """Read a CSV file with known columns: (line number, row) pairs with stripped cells.

    Raises:
        KnowledgeError: missing, not UTF-8, truncated, or wrong columns; names file and line.
    """
    required, optional = _COLUMNS[path.name]
    lines = _lines(path)
    header = next(lines, (0, []))[1]
    _check_header(path, header, required, optional)
    rows = []
    for number, cells in lines:
        if not cells:
            continue
        if len(cells) != len(header):
            raise KnowledgeError(f"{path} line {number}: expected {len(header)} cells, got {len(cells)}")
        row = dict(zip(header, (c.strip() for c in cells), strict=True))
        empty = next((c for c in required if not row[c]), None)
        if empty:
            raise KnowledgeError(f"{path} line {number}: column '{empty}' is empty")
        rows.append((number, row))
    return rows


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    if not path.is_file():
        raise KnowledgeError(f"{path}: no such file; a graph folder needs concepts.csv and relations.csv")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise KnowledgeError(f"{path}: not UTF-8 (byte {error.start}); save the file as UTF-8") from None
    if "\0" in text:
        raise KnowledgeError(f"{path}: holds NUL bytes, so it is not a CSV file")
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    try:
        for cells in reader:
            yield reader.line_num, cells
    except csv.Error as error:
        raise KnowledgeError(f"{path} line {reader.line_num}: not readable as CSV ({error}); is it cut off?") from None


def _check_header(path: Path, header: list[str], required: tuple[str, ...], optional: tuple[str, ...]) -> None:
    missing = [c for c in required if c not in header]
    if missing:
        raise KnowledgeError(f"{path}: expected the columns {', '.join(required)}; missing {', '.join(missing)}")
    if len(set(header)) != len(header):
        raise KnowledgeError(f"{path}: a column name is used twice")
    unknown = next((c for c in header if c not in (*required, *optional)), None)
    if unknown is not None:
        close = near(unknown, (*required, *optional), n=1)
        hint = f"; did you mean '{close[0]}'?" if close else f"; known are {', '.join((*required, *optional))}"
        raise KnowledgeError(f"{path}: unknown column '{unknown}'{hint}")


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


def _grouped(path: Path, column: str, known: set[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    if not path.exists():
        return groups
    for number, row in read_rows(path):
        if row["concept"] not in known:
            close = near(row["concept"], known, n=1)
            hint = f"; did you mean '{close[0]}'?" if close else ""
            raise KnowledgeError(f"{path} line {number}: concept '{row['concept']}' is not in concepts.csv{hint}")
        groups.setdefault(row["concept"], []).append(row[column])
    return groups


def _concept(row: Row, descriptions: dict[str, list[str]], source_ids: dict[str, list[str]]) -> Concept:
    return Concept(
        id=row["id"],
        name=row["name"],
        synonyms=_list(row.get("synonyms", "")),
        definition=row.get("definition", ""),
        descriptions=tuple(descriptions.get(row["id"], ())),
        semantic_types=_list(row.get("types", "")),
        source_ids=tuple(source_ids.get(row["id"], ())),
        number=row.get("number", "") or "count",
    )


def _list(cell: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in cell.split(";") if part.strip()))


def _cell(parts: Iterable[str]) -> str:
    return "; ".join(part.replace(";", ",") for part in parts)


def _write(path: Path, header: list[str], rows: Iterable[list[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
