"""A graph on disk: Arrow IPC tables and CSR arrays that are mapped into memory, not read.

graph.json        name, version, licence, content_hash, counts, format version
concepts.arrow    id, name, definition, number, types (list), source_ids (list)
surfaces.arrow    concept (row number, int32), kind ("synonym" or "description"), text
relations.arrow   head, tail (row numbers, int32), type, source
out_indptr.npy, out_relations.npy    relations.arrow rows by head (CSR); in_indptr.npy, in_relations.npy by tail
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kvlp.errors import KnowledgeError
from kvlp.knowledge.graph import Concept, KnowledgeGraph, Relation

if TYPE_CHECKING:
    import pyarrow as pa

    from kvlp.typing import IntArray

__all__ = ["FORMAT", "adjacency", "load_folder", "save_folder"]

#: version of the folder layout; a reader refuses what it does not know
FORMAT = 1
_TABLES = {
    "concepts.arrow": ("id", "name", "definition", "number", "types", "source_ids"),
    "surfaces.arrow": ("concept", "kind", "text"),
    "relations.arrow": ("head", "type", "tail", "source"),
}
_ARRAYS = ("out_indptr.npy", "out_relations.npy", "in_indptr.npy", "in_relations.npy")


def save_folder(graph: KnowledgeGraph, folder: Path) -> Path:
    """Write a graph; return the folder. graph.json is written last, so that a torn write is not taken for a graph.

    Raises:
        KnowledgeError: the graph has dangling relations or cycles, or `folder` is a file.
    """
    from kvlp.knowledge.validate import require_sound

    _require_pyarrow()
    require_sound(graph, f"graph '{graph.name}' cannot be saved")
    if folder.exists() and not folder.is_dir():
        raise KnowledgeError(f"{folder}: expected a folder to write the graph to, found a file")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "graph.json").unlink(missing_ok=True)
    row = {c.id: i for i, c in enumerate(graph.concepts)}
    _write_table(folder / "concepts.arrow", _concept_columns(graph.concepts))
    _write_table(folder / "surfaces.arrow", _surface_columns(graph.concepts))
    _write_table(folder / "relations.arrow", _relation_columns(graph.relations, row))
    for name, array in zip(_ARRAYS, _csr(graph, row), strict=True):
        np.save(folder / name, array, allow_pickle=False)
    header = {
        "format": FORMAT,
        "name": graph.name,
        "version": graph.version,
        "licence": graph.licence,
        "content_hash": graph.content_hash,
        "counts": {
            "concepts": len(graph),
            "surfaces": sum(len(c.surfaces) for c in graph.concepts),
            "relations": len(graph.relations),
        },
    }
    (folder / "graph.json").write_text(json.dumps(header, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return folder


def load_folder(folder: Path, *, check: bool = True) -> KnowledgeGraph:
    """Open a folder written by `save_folder`.

    Args:
        folder: the graph's folder.
        check: compare the content with its hash and refuse an unsound graph.

    Raises:
        KnowledgeError: a file is missing, truncated or altered; the message names it.
    """
    header = _header(folder)
    _require_pyarrow()
    tables = {name: _read_table(folder / name) for name in _TABLES}
    for name in _ARRAYS:
        _read_array(folder / name)
    graph = _assemble(folder, header, tables)
    if check:
        from kvlp.knowledge.validate import require_sound

        if graph.content_hash != header.get("content_hash"):
            raise KnowledgeError(
                f"{folder}: the content does not fit its hash in graph.json; the folder was altered or cut off,"
                " build it again with `kvlp kg build`"
            )
        require_sound(graph, str(folder))
    return graph


def adjacency(folder: Path, direction: str = "out") -> tuple[IntArray, IntArray]:
    """Map a saved graph's adjacency into memory.

    Returns:
        indptr (int64, concepts + 1) and rows of relations.arrow (int32): the relations at concept i are
        `rows[indptr[i]:indptr[i + 1]]`; "out" by head, "in" by tail.
    """
    return _read_array(folder / f"{direction}_indptr.npy"), _read_array(folder / f"{direction}_relations.npy")


def _require_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:  # also raised by a pyarrow that does not fit the installed NumPy
        raise KnowledgeError(f"graph folders need pyarrow: {error}; a folder of CSV files does without") from None


def _concept_columns(concepts: Sequence[Concept]) -> dict[str, Any]:
    import pyarrow as pa

    texts = pa.list_(pa.string())
    return {
        "id": pa.array([c.id for c in concepts], pa.string()),
        "name": pa.array([c.name for c in concepts], pa.string()),
        "definition": pa.array([c.definition for c in concepts], pa.string()),
        "number": pa.array([c.number for c in concepts], pa.string()),
        "types": pa.array([c.semantic_types for c in concepts], texts),
        "source_ids": pa.array([c.source_ids for c in concepts], texts),
    }


def _surface_columns(concepts: Sequence[Concept]) -> dict[str, Any]:
    import pyarrow as pa

    rows = [(i, "synonym", s) for i, c in enumerate(concepts) for s in c.synonyms]
    rows += [(i, "description", d) for i, c in enumerate(concepts) for d in c.descriptions]
    return {
        "concept": pa.array([r[0] for r in rows], pa.int32()),
        "kind": pa.array([r[1] for r in rows], pa.string()),
        "text": pa.array([r[2] for r in rows], pa.string()),
    }


def _relation_columns(relations: Sequence[Relation], row: dict[str, int]) -> dict[str, Any]:
    import pyarrow as pa

    return {
        "head": pa.array([row[r.head] for r in relations], pa.int32()),
        "type": pa.array([r.type for r in relations], pa.string()),
        "tail": pa.array([row[r.tail] for r in relations], pa.int32()),
        "source": pa.array([r.source for r in relations], pa.string()),
    }


def _csr(graph: KnowledgeGraph, row: dict[str, int]) -> list[IntArray]:
    arrays: list[IntArray] = []
    for ends in ([row[r.head] for r in graph.relations], [row[r.tail] for r in graph.relations]):
        counts = np.bincount(np.asarray(ends, dtype=np.int64), minlength=len(graph))
        arrays.append(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
        arrays.append(np.argsort(np.asarray(ends, dtype=np.int64), kind="stable").astype(np.int32))
    return arrays


def _write_table(path: Path, columns: dict[str, Any]) -> None:
    import pyarrow as pa

    table = pa.table(columns)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def _read_table(path: Path) -> pa.Table:
    import pyarrow as pa

    if not path.is_file():
        raise KnowledgeError(f"{path}: missing from the graph folder; build it again with `kvlp kg build`")
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise KnowledgeError(f"{path}: not a whole Arrow file ({type(error).__name__}); is it cut off?") from None
    missing = [c for c in _TABLES[path.name] if c not in table.column_names]
    if missing:
        raise KnowledgeError(f"{path}: expected the columns {', '.join(_TABLES[path.name])}; no {', '.join(missing)}")
    return table


def _read_array(path: Path) -> IntArray:
    if not path.is_file():
        raise KnowledgeError(f"{path}: missing from the graph folder; build it again with `kvlp kg build`")
    try:
        array: IntArray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise KnowledgeError(f"{path}: not a whole .npy file ({type(error).__name__}); is it cut off?") from None
    return array


def _header(folder: Path) -> dict[str, Any]:
    path = folder / "graph.json"
    if not path.is_file():
        raise KnowledgeError(f"{folder}: expected a graph folder with graph.json (or concepts.csv); found none")
    try:
        header = json.loads(path.read_bytes().decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise KnowledgeError(f"{path}: not readable as JSON ({type(error).__name__}); is it cut off?") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        got = header.get("format") if isinstance(header, dict) else None
        raise KnowledgeError(f"{path}: expected format {FORMAT}, got {got!r}; build the graph again with this version")
    return header


def _assemble(folder: Path, header: dict[str, Any], tables: dict[str, pa.Table]) -> KnowledgeGraph:
    columns = tables["concepts.arrow"].to_pydict()
    count = len(columns["id"])
    texts: dict[str, list[list[str]]] = {kind: [[] for _ in range(count)] for kind in ("synonym", "description")}
    for row in tables["surfaces.arrow"].to_pylist():
        if row["kind"] not in texts or not _within(row["concept"], count):
            raise KnowledgeError(f"{folder / 'surfaces.arrow'}: a surface belongs to no concept; build the graph again")
        texts[row["kind"]][row["concept"]].append(row["text"])
    concepts = [
        Concept(
            id=columns["id"][i],
            name=columns["name"][i],
            synonyms=tuple(texts["synonym"][i]),
            definition=columns["definition"][i],
            descriptions=tuple(texts["description"][i]),
            semantic_types=tuple(columns["types"][i]),
            source_ids=tuple(columns["source_ids"][i]),
            number=columns["number"][i],
        )
        for i in range(count)
    ]
    relations = []
    for row in tables["relations.arrow"].to_pylist():
        if not (_within(row["head"], count) and _within(row["tail"], count)):
            raise KnowledgeError(f"{folder / 'relations.arrow'}: a relation has a dangling end; build the graph again")
        relations.append(Relation(columns["id"][row["head"]], row["type"], columns["id"][row["tail"]], row["source"]))
    about = {key: str(header.get(key, "")) for key in ("name", "version", "licence")}
    return KnowledgeGraph(concepts, relations, **about)


def _within(row: int | None, count: int) -> bool:
    return row is not None and 0 <= row < count
