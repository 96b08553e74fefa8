"""The archive: images with their embeddings and what their reports say, searched by words, image or concept."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvlp.archive import store as rows
from kvlp.archive.adding import Adder, AddReport, Encoder, Progress, Source, entries_of
from kvlp.archive.cache import Loaded, build, load_index, write_cache
from kvlp.archive.checking import RepairReport, VerifyReport, repair, verify
from kvlp.archive.files import write_atomic, writer_lock
from kvlp.archive.searching import Hit, Searcher
from kvlp.archive.store import FORMAT, Store, has_fts5
from kvlp.errors import ArchiveError, KvlpError
from kvlp.typing import PathLike

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from kvlp.knowledge.graph import KnowledgeGraph
    from kvlp.knowledge.linking import EntityLinker

__all__ = ["Archive"]

_DATABASE, _KEY, _GRAPH = "archive.sqlite", "ids.key", "graph"
_NO_LABEL = frozenset({"indication", "comparison", "technique"})
_STRENGTH = {"": 0, "absent": 1, "uncertain": 2, "present": 3}
_log = logging.getLogger("kvlp.archive")


class Archive:
    """A folder of searchable images. Make one with `create`, come back to it with `open`.

    `archive.sqlite` is the truth, the index files beside it are a cache that is rebuilt when it does not fit.
    Embeddings identify patients: only their owner may read the files. Report text stays out with `keep_text=False`.

    Attributes:
        folder: where it is.
        notes: what was put right on the way, newest last, for example that the index was rebuilt and why.
    """

    def __init__(
        self,
        folder: Path,
        store: Store,
        model: Encoder | PathLike | None,
        graph: KnowledgeGraph | None,
        *,
        timeout: float,
    ) -> None:
        self.folder = folder
        self.notes: list[str] = []
        self._store = store
        self._meta = store.meta()
        self._timeout = timeout
        self._given_graph = graph
        self._model: Encoder | None = None
        self._model_name: PathLike = self._meta["model"]
        self._loaded: Loaded | None = None
        self._searcher = Searcher(
            folder,
            store,
            dim=self.dim,
            model=lambda: self.model,
            graph=lambda: self.graph,
            read=lambda: self._reader,
            hashed=self._keyed,
        )
        if isinstance(model, str | Path):
            self._model_name = model
        elif model is not None:
            self._take(model)

    # --- making and opening -------------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        folder: PathLike,
        model: Encoder | PathLike,
        *,
        graph: KnowledgeGraph | PathLike | None = None,
        keep_text: bool = True,
        timeout: float = 10.0,
    ) -> Archive:
        """Make an empty archive and open it.

        Args:
            folder: is made if it does not exist; must not hold anything else.
            model: the model whose embeddings it holds, or what `kvlp.load` takes; remembered.
            graph: reads reports into mentions and queries into prompts: a graph, its folder, or "chest"; remembered.
            keep_text: keep report text for full-text search; otherwise only the mentions stay.
            timeout: seconds to wait for another writer.

        Raises:
            ArchiveError: the folder holds something already.
        """
        folder = Path(folder)
        _require_empty(folder)
        encoder = _load_model(model) if isinstance(model, str | Path) else model
        name = model if isinstance(model, str | Path) else str(getattr(encoder, "source", "") or "")
        known = _load_graph(graph) if isinstance(graph, str | Path) else graph
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with writer_lock(folder, timeout):
            _require_empty(folder)
            key = os.urandom(32)
            write_atomic(folder / _KEY, key)
            meta = {
                "model": _absolute(name),
                "model_hash": encoder.hash,
                "dim": str(encoder.dim),
                "graph": _keep_graph(folder, graph, known),
                "graph_hash": known.content_hash if known is not None else "",
                "keep_text": "yes" if keep_text and has_fts5() else "no",
                "key": hashlib.sha256(key).hexdigest()[:16],
            }
            store = Store.create(folder / _DATABASE, meta)
            archive = cls(folder, store, encoder, known, timeout=timeout)
            archive._write_index()
        if keep_text and not has_fts5():
            archive.notes.append("report text is not kept: this Python's SQLite has no FTS5")
        return archive

    @classmethod
    def open(
        cls,
        folder: PathLike,
        model: Encoder | PathLike | None = None,
        *,
        graph: KnowledgeGraph | PathLike | None = None,
        timeout: float = 10.0,
    ) -> Archive:
        """Open an existing archive.

        Args:
            folder: an archive's folder.
            model: None loads the remembered one when something must be embedded.
            graph: None takes the remembered one.
            timeout: seconds to wait for another writer.

        Raises:
            ArchiveError: no archive, damaged, of a newer format, or made with another model (both hashes are named).
        """
        folder = Path(folder)
        store = Store.open(folder / _DATABASE, timeout=timeout)
        try:
            known = _load_graph(graph) if isinstance(graph, str | Path) else graph
            return cls(folder, store, model, known, timeout=timeout)
        except BaseException:
            store.close()
            raise

    def close(self) -> None:
        """Close the database; the archive opens it again when it is used."""
        self._store.close()

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self._store.counts()["items"]

    def __repr__(self) -> str:
        return f"Archive({str(self.folder)!r})"

    # --- what it is of ------------------------------------------------------------------------------------------------

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return int(self._meta["dim"])

    @property
    def model(self) -> Encoder:
        """The model, loaded on first use; ArchiveError if it is not the one that the archive was made with."""
        if self._model is None:
            if not str(self._model_name):
                raise ArchiveError(
                    f"{self.folder} does not remember where its model is; open it with the model, or give --model"
                )
            self._take(_load_model(self._model_name))
        assert self._model is not None
        return self._model

    def _take(self, model: Encoder) -> None:
        expected = self._meta["model_hash"]
        if model.hash != expected:
            raise ArchiveError(
                f"{self.folder} was made with model {expected}, not with {model.hash}; "
                "open it with its own model, or create a new archive for this one"
            )
        self._model = model

    @cached_property
    def graph(self) -> KnowledgeGraph | None:
        """The knowledge graph, loaded on first use; None if the archive was made without one."""
        graph, name = self._given_graph, self._meta["graph"]
        if graph is None and name:
            graph = _load_graph(self.folder / _GRAPH if name == _GRAPH else name)
        if graph is not None and graph.content_hash != self._meta["graph_hash"]:
            self.notes.append("the graph is another version than the one that the reports were read with")
            _log.warning("%s: %s", self.folder, self.notes[-1])
        return graph

    def _keyed(self, value: str) -> str:
        """Keyed hash of a patient or study id: equal ids can be found, but not read without the key file."""
        try:
            key = (self.folder / _KEY).read_bytes()
        except FileNotFoundError as error:
            raise ArchiveError(
                f"{self.folder / _KEY} is missing: patient and study ids cannot be compared without it"
            ) from error
        if hashlib.sha256(key).hexdigest()[:16] != self._meta["key"]:
            raise ArchiveError(f"{self.folder / _KEY} is not this archive's key; restore it from a copy")
        return hmac.new(key, value.encode(), hashlib.sha256).hexdigest()[:32]

    # --- changing -----------------------------------------------------------------------------------------------------

    def add(
        self,
        source: Source,
        *,
        progress: Callable[[Progress], object] | None = None,
        batch_size: int = 32,
        timeout: float | None = None,
    ) -> AddReport:
        """Add images; what is there already stays, so that an interrupted add is finished by running it again.

        Args:
            source: a file, a folder, a manifest (or its file), or several paths. A manifest's reports are read too.
            progress: called after each commit; what it counts is on disk and survives a crash.
            batch_size: images embedded and committed together.
            timeout: seconds to wait for another writer; None as given to `open`.

        Returns:
            What was added, updated, known already, and skipped, each skipped file with its reason.

        Raises:
            ArchiveError: another process is writing (its pid is named), or the disk is full.
        """
        with writer_lock(self.folder, self._timeout if timeout is None else timeout):
            entries = entries_of(source, outside=self.folder)
            adder = Adder(
                self.folder, self._store, self.model,
                keyed=self._keyed, link=self._linker(), keep_text=self._meta["keep_text"] == "yes",
            )  # fmt: skip
            report = adder.run(entries, progress, batch=batch_size)
            if report.added or report.replaced:
                self._write_index()
        return report

    def remove(
        self,
        ids: Iterable[str] = (),
        *,
        where: str | None = None,
        patient: str | None = None,
        timeout: float | None = None,
    ) -> int:
        """Remove items by id, record id or path, by a `where` expression, or all of a patient; return how many went.

        No byte of what was removed stays in the archive's files. The images themselves are not touched.

        Raises:
            ArchiveError: an id is unknown; then nothing is removed.
        """
        with writer_lock(self.folder, self._timeout if timeout is None else timeout):
            numbers = {n for key in ids for n in self._numbers_of(key)}
            if where is not None:
                condition = rows_where(where, self._keyed)
                numbers |= set(self._store.select(*condition).tolist())
            if patient is not None:
                numbers |= set(self._store.select("items.patient = ?", (self._keyed(patient),)).tolist())
            if numbers:
                with self._store.transaction() as connection:
                    rows.delete(connection, numbers)
                self._store.wipe_leftovers()
                self._write_index()
        return len(numbers)

    def _numbers_of(self, key: str) -> list[int]:
        relative = os.path.relpath(os.path.abspath(key), self.folder.resolve())
        found = self._store.select("items.id = ? OR items.record = ? OR items.path = ?", (key, key, relative))
        if not len(found):
            raise ArchiveError(
                f"{self.folder} holds no item {key!r}; expected an id, a record id or a path. Nothing was removed"
            )
        return found.tolist()

    def _linker(self) -> Callable[[str], Mapping[str, str]] | None:
        """Reads a report into concept -> assertion; what is said most strongly counts. None without a graph."""
        return None if self.graph is None else self._mentions_of

    def _mentions_of(self, text: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for mention in self._reader(text):
            said, known = mention.assertion.value, found.get(mention.concept, "")
            if mention.section not in _NO_LABEL and _STRENGTH[said] > _STRENGTH[known]:
                found[mention.concept] = said
        return found

    @cached_property
    def _reader(self) -> EntityLinker:
        from kvlp.knowledge.linking import EntityLinker

        assert self.graph is not None
        return EntityLinker(self.graph)

    def _write_index(self) -> None:
        self._loaded = build(self._store, self.dim)
        try:
            write_cache(self.folder, self._loaded, model=self._meta["model_hash"])
        except OSError as error:
            need = self._loaded.index.vectors.nbytes
            raise ArchiveError(
                f"{self.folder}: the index could not be written ({error.strerror}); it needs {need:,} bytes. "
                "All items are safe; free space and run again"
            ) from error

    # --- searching ----------------------------------------------------------------------------------------------------

    def search(  # noqa: PLR0913  the three kinds of query, the three of concepts, and how many
        self,
        text: str | None = None,
        image: object | None = None,
        embedding: ArrayLike | None = None,
        *,
        present: Sequence[str] | str = (),
        absent: Sequence[str] | str = (),
        without: Sequence[str] | str = (),
        where: str | None = None,
        k: int = 10,
        exact: bool = False,
    ) -> list[Hit]:
        """Return the k best images, best first; equal scores by id.

        Args:
            text: what to look for, in words; a concept of the graph is asked for by all its names.
            image: a path, array, PIL image or tensor to find the like of.
            embedding: (dim,) vector of the archive's model. Several of the three are averaged.
            present: concepts that the image must show: by its report, or by the model where there is no report.
            absent: concepts that the report must deny (the model, where there is no report); ranking leans to "no X".
            without: concepts that the image must not show; not mentioned is enough. The ranking leans away from them.
            where: an expression over id, path, record, view, source, split, flag, study, patient and report, such as
                "view = 'PA' and source != 'x'" or "report ~ 'pleural thickening'".
            k: how many.
            exact: look at every image even where the index is approximate.

        Raises:
            ArchiveError: nothing was asked, `where` cannot be read, the archive is damaged.
            KnowledgeError: a concept is not in the graph; near names are given.
        """
        if k < 1:
            raise ArchiveError(f"k must be at least 1, got {k}")
        names = {"present": _names(present), "absent": _names(absent), "without": _names(without)}
        if text is None and image is None and embedding is None and not any(names.values()) and where is None:
            raise ArchiveError(
                "nothing to search for; give a text, an image, an embedding, a concept or a where expression"
            )
        plan = self._searcher.plan(text=text, image=image, embedding=embedding, **names)
        return self._searcher.run(plan, self._index(), where, k, exact=exact)

    def _index(self) -> Loaded:
        if self._loaded is None or self._loaded.generation != self._store.generation():
            self._loaded = load_index(self.folder, self._store, model=self._meta["model_hash"], dim=self.dim)
            if self._loaded.note:
                self.notes.append(self._loaded.note)
        return self._loaded

    # --- looking after it ---------------------------------------------------------------------------------------------

    def verify(self, *, images: bool = True) -> VerifyReport:
        """Recompute every hash; with `images`, also name those that are missing or changed."""
        return verify(self.folder, self._store, model=self._meta["model_hash"], dim=self.dim, images=images)

    def repair(self, *, timeout: float | None = None) -> RepairReport:
        """Embed damaged items anew where their image is still there, give up the others by name, rebuild the index."""
        with writer_lock(self.folder, self._timeout if timeout is None else timeout):
            report = repair(
                self.folder, self._store, hash=self._meta["model_hash"], dim=self.dim, model=lambda: self.model
            )
            self._loaded = None
        return report

    def skipped(self) -> list[tuple[str, str]]:
        """Files that could not be added (relative path, reason), until they are."""
        return self._store.skipped()

    def info(self) -> dict[str, Any]:
        """What the archive holds and what it is of, as JSON takes it."""
        meta = self._store.meta()
        size = sum(path.stat().st_size for path in self.folder.iterdir() if path.is_file())
        return {
            "folder": str(self.folder),
            **self._store.counts(),
            "generation": self._store.generation(),
            "dim": self.dim,
            "index": self._index().index.kind,
            "model": meta["model"],
            "model_hash": meta["model_hash"],
            "graph": meta["graph"],
            "graph_hash": meta["graph_hash"],
            "keep_text": meta["keep_text"] == "yes",
            "format": FORMAT,
            "bytes": size,
        }


def rows_where(expression: str, keyed: Callable[[str], str]) -> tuple[str, tuple[str, ...]]:
    """The SQL condition and values of a `where` expression."""
    from kvlp.archive.where import parse_where

    condition = parse_where(expression, keyed)
    return condition.sql, condition.values


def _names(value: Sequence[str] | str) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _require_empty(folder: Path) -> None:
    """A folder that holds nothing, or only the leftovers of a `create` that did not end."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ArchiveError(f"{folder} is a file; an archive needs a folder of its own")
    if (folder / _DATABASE).exists():
        try:
            Store.open(folder / _DATABASE).close()
        except KvlpError as error:
            if "not finished" not in str(error):
                raise ArchiveError(f"{folder} holds a damaged archive; choose another folder, or remove it") from error
            (folder / _DATABASE).unlink()
        else:
            raise ArchiveError(f"{folder} already holds an archive; add to it with: kvlp archive add {folder} PATH")
    ours = (_KEY, _GRAPH, "writer.lock", _DATABASE)
    other = next((path.name for path in folder.iterdir() if not path.name.startswith(ours)), None)
    if other is not None:
        raise ArchiveError(f"{folder} is not empty (it holds {other}); an archive needs a folder of its own")


def _load_model(name: PathLike) -> Encoder:
    from kvlp.checkpoints import load

    return load(name)


def _load_graph(name: PathLike) -> KnowledgeGraph:
    from kvlp.knowledge.graph import KnowledgeGraph

    return KnowledgeGraph.load(name)


def _keep_graph(folder: Path, given: KnowledgeGraph | PathLike | None, graph: KnowledgeGraph | None) -> str:
    """What to remember of the graph: its name or folder as given; a graph object is kept in the archive."""
    if graph is None:
        return ""
    if isinstance(given, str | Path):
        return _absolute(given)
    from kvlp.knowledge.sources.csv_folder import write_folder

    write_folder(graph, folder / _GRAPH)
    return _GRAPH


def _absolute(name: PathLike) -> str:
    """A folder or file as an absolute path, any other name as it is."""
    return os.path.abspath(name) if str(name) and Path(name).exists() else str(name)
