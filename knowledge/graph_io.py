"""A graph on disk: Arrow IPC tables and integer arrays that are mapped into memory, not read.

graph.json        name, version, licence, content_hash, counts, format; size and sha256 of each file; its own sha256
concepts.arrow    id, name, definition, number, types, source_ids, synonyms, descriptions (the last four are lists)
relations.arrow   head, tail (rows of concepts.arrow, int32), type, source
words.arrow       word: all words of the surfaces, sorted
out_*.npy, in_*.npy                adjacency (CSR): rows of relations.arrow by head, by tail
id_*.npy, source_*.npy, surface_*.npy    sorted hashes of ids, source ids and folded surfaces, and whose they are
word_*.npy        which surfaces hold which word (CSR)
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kvlp.errors import KnowledgeError
from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.knowledge.table_store import TableStore
from kvlp.knowledge.tables import ARRAYS, COLUMNS, Tables, tables_of

if TYPE_CHECKING:
    import pyarrow as pa

    from kvlp.typing import IntArray

__all__ = ["FORMAT", "adjacency", "altered_files", "load_folder", "open_store", "save_folder", "write_folder"]

#: version of the folder layout; a reader refuses what it does not know
FORMAT = 2
#: folders up to this many bytes are compared with their hashes each time they are opened
READ_ALL = 64 << 20
_AGAIN = "build it again with `kvlp kg build`"


def save_folder(graph: KnowledgeGraph, folder: Path) -> Path:
    """Write a graph; return the folder. graph.json is written last, so that a torn write is not taken for a graph.

    Raises:
        KnowledgeError: the graph has dangling relations or cycles, or `folder` is a file.
    """
    from kvlp.knowledge.validate import require_sound

    _require_pyarrow()
    require_sound(graph, f"graph '{graph.name}' cannot be saved")
    store = graph.store
    tables = store.tables if isinstance(store, TableStore) else tables_of(graph.concepts, graph.relations)
    return write_folder(graph, tables, folder)


def write_folder(graph: KnowledgeGraph, tables: Tables, folder: Path) -> Path:
    """Write a graph that is known to be sound, from its tables; return the folder."""
    if folder.exists() and not folder.is_dir():
        raise KnowledgeError(f"{folder}: expected a folder to write the graph to, found a file")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "graph.json").unlink(missing_ok=True)
    files = {path.name: _facts(path) for path in _write(tables, folder)}
    concepts = tables.batches["concepts"]
    header = {
        "format": FORMAT,
        "name": graph.name,
        "version": graph.version,
        "licence": graph.licence,
        "content_hash": graph.content_hash,
        "counts": {
            "concepts": len(concepts),
            "surfaces": len(concepts) + len(concepts.column("synonyms").values),
            "relations": len(tables.batches["relations"]),
        },
        "build_report": graph.build_report,
        "files": files,
    }
    text = json.dumps({**header, "sha256": _seal(header)}, indent=1, ensure_ascii=False)
    _replace(folder / "graph.json", lambda path: path.write_text(text + "\n", encoding="utf-8"))
    return folder


def load_folder(folder: Path, *, check: bool | Literal["full"] = True) -> KnowledgeGraph:
    """Open a folder written by `save_folder`; its tables are mapped, not read.

    Args:
        folder: the graph's folder.
        check: compare graph.json with its hash, and the files with theirs unless they are larger than READ_ALL
            together ("full": even then). Sizes are always compared.

    Raises:
        KnowledgeError: a file is missing, truncated or altered; the message names it.
    """
    header = _header(folder)
    _require_pyarrow()
    sizes = _require_sizes(folder, header)
    if check and header.get("sha256") != _seal(header):
        raise KnowledgeError(f"{folder}: the content does not fit its hash in graph.json, which was altered; {_AGAIN}")
    if check == "full" or (check and sum(sizes) <= READ_ALL):
        for name in altered_files(folder):
            raise KnowledgeError(f"{folder / name}: not as it was written: its hash in graph.json is another; {_AGAIN}")
    store = open_store(folder)
    about = {key: str(header.get(key, "")) for key in ("name", "version", "licence", "content_hash")}
    return KnowledgeGraph.of_store(store, **about, build_report=header.get("build_report"))


def open_store(folder: Path) -> TableStore:
    """Map the tables of a graph folder into memory."""
    batches = {name: _read_table(folder / f"{name}.arrow") for name in COLUMNS}
    arrays = {name: _read_array(folder / f"{name}.npy") for name in ARRAYS}
    return TableStore(Tables(batches, arrays), str(folder), folder)


def altered_files(folder: Path) -> Iterator[str]:
    """Read all files of a graph folder and name those that are not as they were written."""
    for name, facts in _header(folder)["files"].items():
        if _facts(folder / name) != facts:
            yield name


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


def _write(tables: Tables, folder: Path) -> Iterator[Path]:
    for name in COLUMNS:
        path = folder / f"{name}.arrow"
        _replace(path, lambda target, name=name: _write_table(target, tables.batches[name]))  # type: ignore[misc]
        yield path
    for name in ARRAYS:
        path = folder / f"{name}.npy"
        _replace(path, lambda target, name=name: _write_array(target, tables.arrays[name]))  # type: ignore[misc]
        yield path


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside `path` and put it in place: whoever has the old file mapped keeps it."""
    beside = path.with_name(f".{path.name}.new")
    write(beside)
    os.replace(beside, path)


def _write_table(path: Path, batch: pa.RecordBatch) -> None:
    import pyarrow as pa

    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


def _write_array(path: Path, array: Any) -> None:
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def _facts(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": os.fstat(file.fileno()).st_size, "sha256": digest}


def _seal(header: dict[str, Any]) -> str:
    """The sha256 of all that graph.json says, its own hash left out."""
    rest = {key: value for key, value in header.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _require_sizes(folder: Path, header: dict[str, Any]) -> list[int]:
    files = header.get("files")
    names = [f"{name}.arrow" for name in COLUMNS] + [f"{name}.npy" for name in ARRAYS]
    if not isinstance(files, dict) or set(files) != set(names):
        raise KnowledgeError(f"{folder / 'graph.json'}: does not list the files of a graph; {_AGAIN}")
    sizes = []
    for name in names:
        path, facts = folder / name, files[name]
        if not path.is_file():
            raise KnowledgeError(f"{path}: missing from the graph folder; {_AGAIN}")
        size = path.stat().st_size
        if not isinstance(facts, dict) or facts.get("bytes") != size:
            expected = facts.get("bytes") if isinstance(facts, dict) else None
            raise KnowledgeError(f"{path}: expected {expected} bytes, got {size}; is it cut off? {_AGAIN}")
        sizes.append(size)
    return sizes


def _read_table(path: Path) -> pa.RecordBatch:
    import pyarrow as pa

    try:
        with pa.ipc.open_file(pa.memory_map(str(path))) as reader:
            batch = reader.get_batch(0)
        batch.validate()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise KnowledgeError(f"{path}: not a whole Arrow file ({type(error).__name__}); is it cut off?") from None
    missing = [c for c in COLUMNS[path.stem] if c not in batch.schema.names]
    if missing:
        raise KnowledgeError(f"{path}: expected the columns {', '.join(COLUMNS[path.stem])}; no {', '.join(missing)}")
    return batch


def _read_array(path: Path) -> IntArray:
    if not path.is_file():
        raise KnowledgeError(f"{path}: missing from the graph folder; {_AGAIN}")
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
