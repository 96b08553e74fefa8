"""Putting images into an archive: what to read, reading it, and committing it in small whole batches."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from kvlp.archive import store as rows
from kvlp.archive.store import Item, Store
from kvlp.errors import ArchiveError, DataError
from kvlp.vectors import sha256_of, unit_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kvlp.datasets.manifest import Manifest, Record

__all__ = ["AddReport", "Adder", "Encoder", "Progress", "Skipped", "Source", "entries_of"]

Source: TypeAlias = "str | Path | Manifest | Iterable[str | Path]"
BATCH = 32
_TABLES = (".csv", ".jsonl", ".parquet")


class Encoder(Protocol):
    """What the archive needs of a model."""

    @property
    def hash(self) -> str:
        """Identifies the weights and preprocessing; an archive is of one model."""
        ...

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        ...

    def encode_image(self, images: Sequence[Any], *, batch_size: int = 64) -> NDArray[Any]:
        """Unit vectors (N, dim) of grey images (H, W)."""
        ...

    def encode_text(self, texts: Sequence[str]) -> NDArray[Any]:
        """Unit vectors (N, dim) of texts."""
        ...


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that is not in the archive, and why."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an add is; it is told after each commit: what it counts is on disk."""

    done: int
    total: int
    added: int
    skipped: int
    rate: float  #: images per second
    seconds_left: float
    committed: tuple[str, ...] = ()  #: ids that this commit made safe


@dataclass(slots=True)
class AddReport:
    """What an add did. Every path given is counted once: added, updated, unchanged or skipped."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    replaced: int = 0  #: older items whose file now has another content
    flagged: list[Skipped] = field(default_factory=list)  #: added, but no frontal radiograph, or its report is not read
    seconds: float = 0.0

    @property
    def total(self) -> int:
        """All paths that were looked at."""
        return self.added + self.updated + self.unchanged + len(self.skipped)


@dataclass(frozen=True, slots=True)
class Entry:
    """A file to add, with what a manifest says of it."""

    path: Path
    record: Record | None = None
    refused: str = ""


@dataclass(frozen=True, slots=True)
class _Read:
    """A file's content: its hash, and the grey image unless the archive knows the content already."""

    entry: Entry
    sha256: str = ""
    size: int = 0
    mtime_ns: int = 0
    grey: NDArray[Any] | None = None
    flag: str = ""
    problem: str = ""


def entries_of(source: Source, *, outside: Path) -> list[Entry]:
    """Return the files that a path, folder, manifest (or its file), or several of them name; `outside` is left out.

    A folder is walked in order of name; of its files those with an image's ending count. Links that lead out of it are
    refused by name.

    Raises:
        ArchiveError: a path does not exist.
        ManifestError: a manifest file is none.
    """
    if isinstance(source, str | Path):
        return list(_entries_of_path(Path(source), outside))
    if hasattr(source, "path_of"):
        manifest = cast("Manifest", source)
        return [Entry(manifest.path_of(record), record) for record in manifest]
    return [entry for path in source for entry in _entries_of_path(Path(path), outside)]


def _entries_of_path(path: Path, outside: Path) -> Iterator[Entry]:
    if path.is_dir():
        yield from _walk(path, outside)
    elif path.suffix.lower() in _TABLES:
        from kvlp.datasets.manifest import Manifest

        manifest = Manifest.load(path)
        yield from (Entry(manifest.path_of(record), record) for record in manifest)
    elif path.exists() or path.is_symlink():
        yield Entry(path)
    else:
        raise ArchiveError(f"nothing to add: {path} does not exist; expected an image, a folder or a manifest")


def _walk(folder: Path, outside: Path) -> Iterator[Entry]:
    from kvlp.datasets.images import IMAGE_ENDINGS

    root, outside = folder.resolve(), outside.resolve()
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if (Path(here) / name).resolve() != outside)
        for name in sorted(files):
            path = Path(here) / name
            if name.startswith(".") or path.suffix.lower() not in IMAGE_ENDINGS:
                continue
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                yield Entry(path, refused="a link that leads out of the folder")
            else:
                yield Entry(path)


class Adder:
    """One run of adding: reads, encodes and commits batch after batch.

    Args:
        folder: the archive's folder, from which stored paths start.
        keyed: turns a patient or study id into its keyed hash.
        link: turns a report into concept -> assertion; None when the archive has no graph.
    """

    def __init__(
        self,
        folder: Path,
        store: Store,
        model: Encoder,
        *,
        keyed: Callable[[str], str],
        link: Callable[[str], Mapping[str, str]] | None,
        keep_text: bool,
    ) -> None:
        self._folder = folder
        self._store = store
        self._model = model
        self._keyed = keyed
        self._link = link
        self._keep_text = keep_text
        self._known: frozenset[str] = frozenset()
        self._contents: dict[str, str] = {}  # path -> sha256 of what is there now
        self.report = AddReport()

    def run(
        self,
        entries: Sequence[Entry],
        progress: Callable[[Progress], object] | None,
        *,
        batch: int = BATCH,
        jobs: int = 2,
    ) -> AddReport:
        """Add all entries; a file that cannot be read is skipped by name and the next one is added all the same."""
        start = time.monotonic()
        self._known = self._store.contents()
        with ThreadPoolExecutor(max_workers=jobs) as pool:
            for at in range(0, len(entries), batch):
                committed = self._commit(list(pool.map(self._read, entries[at : at + batch])))
                if progress is not None:
                    progress(self._progress(min(at + batch, len(entries)), len(entries), start, committed))
        self._drop_replaced()
        self.report.seconds = time.monotonic() - start
        return self.report

    def _progress(self, done: int, total: int, start: float, committed: tuple[str, ...]) -> Progress:
        rate = done / max(time.monotonic() - start, 1e-9)
        return Progress(
            done, total, self.report.added, len(self.report.skipped), rate, (total - done) / rate, committed
        )

    def _read(self, entry: Entry) -> _Read:
        if entry.refused:
            return _Read(entry, problem=entry.refused)
        from kvlp.datasets.files import read_bytes
        from kvlp.datasets.images import MAX_FILE_BYTES, inspect_image
        from kvlp.errors import ImageError

        try:
            data = read_bytes(entry.path, max_bytes=MAX_FILE_BYTES, error=ImageError)
            status = entry.path.stat()
            found = {"sha256": sha256_of(data), "size": len(data), "mtime_ns": status.st_mtime_ns}
            if found["sha256"] in self._known:
                return _Read(entry, **found)  # type: ignore[arg-type]
            grey, plausible = inspect_image(data)
        except (DataError, OSError) as error:
            return _Read(entry, problem=_short(error, entry.path))
        return _Read(entry, grey=grey, flag="" if plausible.ok else plausible.reason, **found)  # type: ignore[arg-type]

    def _commit(self, batch: Sequence[_Read]) -> tuple[str, ...]:
        """Write a batch in one transaction: all of it is there after a crash, or none of it."""
        fresh: dict[str, _Read] = {}
        for read in batch:
            if read.grey is not None:
                fresh.setdefault(read.sha256, read)
        vectors = self._encode(list(fresh.values()))
        items = [(read, self._item(read, vectors.get(read.sha256))) for read in batch if not read.problem]
        mine = AddReport()
        with self._store.transaction() as connection:
            for read, item in items:
                self._place(connection, read, item, mine)
                self._contents[item.path] = item.sha256
            for read in batch:
                if read.problem:
                    rows.skip(connection, self._relative(read.entry.path), read.problem)
                    mine.skipped.append(Skipped(str(read.entry.path), read.problem))
        self._count(mine)
        return tuple(item.id for _, item in items)

    def _encode(self, reads: Sequence[_Read]) -> dict[str, bytes]:
        if not reads:
            return {}
        found = unit_rows(self._model.encode_image([read.grey for read in reads]), dim=self._model.dim)
        if len(found) != len(reads):
            raise ArchiveError(f"the model gave {len(found)} embeddings for {len(reads)} images")
        return {read.sha256: row.astype("<f4").tobytes() for read, row in zip(reads, found, strict=True)}

    def _item(self, read: _Read, vector: bytes | None) -> Item:
        record = read.entry.record
        known: dict[str, Any] = (
            {}
            if record is None
            else {"record": record.id, "view": record.view, "split": record.split, "source": record.source}
        )
        text = "" if record is None else record.report
        return Item(
            id=read.sha256[:16],
            sha256=read.sha256,
            path=self._relative(read.entry.path),
            size=read.size,
            mtime_ns=read.mtime_ns,
            vector=vector or b"",
            flag=read.flag,
            study=self._keyed(record.study_id) if record and record.study_id else "",
            patient=self._keyed(record.patient_id) if record and record.patient_id else "",
            has_report=bool(text.strip()),
            mentions=self._mentions(text, read.entry.path),
            text=text if text.strip() and self._keep_text else None,
            **known,
        )

    def _mentions(self, text: str, path: Path) -> dict[str, str]:
        """What a report says of concepts; nothing where it cannot be read, and the file is flagged."""
        if not text.strip() or self._link is None:
            return {}
        try:
            return dict(self._link(text))
        except DataError as error:
            self.report.flagged.append(Skipped(str(path), f"its report is not read: {error}"))
            return {}

    def _place(self, connection: Any, read: _Read, item: Item, mine: AddReport) -> None:
        """Insert a new content; of a known one keep vector and flag and take over what changed about it."""
        old = self._store.get("sha256", item.sha256)
        if old is None:
            rows.put(connection, item)
            mine.added += 1
            if item.flag:
                mine.flagged.append(Skipped(str(read.entry.path), item.flag))
        else:
            merged = self._merged(old, item)
            changed = not merged.same_as(old)
            if changed:
                rows.put(connection, merged)
            mine.updated += changed
            mine.unchanged += not changed

    def _merged(self, old: Item, new: Item) -> Item:
        """What stands for a content that several files may hold: the first by name that a manifest describes.

        A file that has gone or changed no longer stands for it. A bare file never takes a manifest's words away.
        """
        here: dict[str, Any] = {"path": new.path, "size": new.size, "mtime_ns": new.mtime_ns}
        stands = self._stands(old)
        if new.record == "" and old.record != "":
            return replace(old, **here) if not stands or new.path == old.path else old
        first = (new.record == "", new.path, new.record) <= (old.record == "", old.path, old.record)
        return replace(new, vector=old.vector, flag=old.flag, n=old.n) if first or not stands else old

    def _stands(self, item: Item) -> bool:
        """Whether the file that an item names still looks as it did."""
        try:
            status = (self._folder / item.path).stat()
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == (item.size, item.mtime_ns)

    def _drop_replaced(self) -> None:
        """Drop items whose file holds another content now; last of all, when those that only moved have been found."""
        with self._store.reading() as connection:
            stored = connection.execute("SELECT n, path, sha256 FROM items").fetchall()
        gone = [n for n, path, sha256 in stored if self._contents.get(path, sha256) != sha256]
        if gone:
            with self._store.transaction() as connection:
                rows.delete(connection, gone)
        self.report.replaced = len(gone)

    def _relative(self, path: Path) -> str:
        return os.path.relpath(os.path.abspath(path), self._folder.resolve())

    def _count(self, mine: AddReport) -> None:
        self.report.added += mine.added
        self.report.updated += mine.updated
        self.report.unchanged += mine.unchanged
        self.report.skipped += mine.skipped
        self.report.flagged += mine.flagged


def _short(error: Exception, path: Path) -> str:
    """The reason without the path, which stands beside it."""
    text = (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)
    return text.removeprefix(f"{path}: ")[:500]
