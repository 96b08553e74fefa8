"""The archive's truth: one SQLite file.

Write-ahead log with `synchronous=FULL`, so that what a commit acknowledged survives a crash and a power loss; one
transaction a batch, so that nothing is ever half there; readers see a whole generation. The index is rebuilt from it.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kvlp.archive.files import PRIVATE
from kvlp.errors import ArchiveError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FORMAT", "Item", "Store", "has_fts5"]

FORMAT = 1

_SCHEMA = """
CREATE TABLE items (
  n INTEGER PRIMARY KEY AUTOINCREMENT,
  id TEXT NOT NULL UNIQUE,
  sha256 TEXT NOT NULL UNIQUE,
  path TEXT NOT NULL,
  record TEXT NOT NULL,
  view TEXT NOT NULL,
  split TEXT NOT NULL,
  source TEXT NOT NULL,
  study TEXT NOT NULL,
  patient TEXT NOT NULL,
  status TEXT NOT NULL,
  flag TEXT NOT NULL,
  has_report INTEGER NOT NULL,
  size INTEGER NOT NULL,
  mtime_ns INTEGER NOT NULL,
  vector BLOB NOT NULL,
  digest BLOB NOT NULL
);
CREATE INDEX items_path ON items(path);
CREATE TABLE mentions (
  n INTEGER NOT NULL REFERENCES items(n) ON DELETE CASCADE,
  concept TEXT NOT NULL,
  assertion TEXT NOT NULL,
  PRIMARY KEY (n, concept)
) WITHOUT ROWID;
CREATE INDEX mentions_concept ON mentions(concept, assertion, n);
CREATE TABLE skipped (path TEXT PRIMARY KEY, reason TEXT NOT NULL, seen TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""
_REPORTS = "CREATE VIRTUAL TABLE reports USING fts5(text)"
_COLUMNS = (
    "id", "sha256", "path", "record", "view", "split", "source", "study", "patient", "status", "flag", "has_report",
    "size", "mtime_ns",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Item:
    """One image, as stored. `study` and `patient` are keyed hashes, `path` is relative to the archive."""

    id: str
    sha256: str
    path: str
    size: int
    mtime_ns: int
    vector: bytes = field(repr=False)
    record: str = ""
    view: str = ""
    split: str = ""
    source: str = ""
    study: str = ""
    patient: str = ""
    status: str = "ok"
    flag: str = ""
    has_report: bool = False
    mentions: Mapping[str, str] = field(default_factory=dict, repr=False)
    text: str | None = field(default=None, repr=False)
    n: int = 0

    def digest(self) -> bytes:
        """16 bytes over every stored value of the item; a changed bit anywhere changes them."""
        values = [getattr(self, name) for name in _COLUMNS]
        values[_COLUMNS.index("has_report")] = int(self.has_report)
        body = json.dumps([values, sorted(self.mentions.items()), self.text], ensure_ascii=True).encode()
        return hashlib.blake2b(body + b"\0" + self.vector, digest_size=16).digest()

    def same_as(self, other: Item) -> bool:
        """Whether two items say the same, the row number aside."""
        return self.digest() == other.digest()


def has_fts5() -> bool:
    """Whether this Python's SQLite can search report text."""
    with sqlite3.connect(":memory:") as connection:
        options = {row[0] for row in connection.execute("PRAGMA compile_options")}
    connection.close()
    return "ENABLE_FTS5" in options


class Store:
    """The SQLite file of an archive. One writer at a time (see `writer_lock`), any number of readers."""

    def __init__(self, path: Path, *, timeout: float = 10.0) -> None:
        self.path = path
        self._timeout = timeout
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._pid = 0

    @classmethod
    def create(cls, path: Path, meta: Mapping[str, str]) -> Store:
        """Make a new file; it counts as an archive only once all of it is there."""
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE))
        store = cls(path)
        with store.transaction() as connection:
            for statement in filter(str.strip, _SCHEMA.split(";")):
                connection.execute(statement)
            if has_fts5():
                connection.execute(_REPORTS)
            values = {**meta, "format": str(FORMAT), "generation": "0"}
            connection.executemany("INSERT INTO meta VALUES (?, ?)", sorted(values.items()))
        return store

    @classmethod
    def open(cls, path: Path, *, timeout: float = 10.0) -> Store:
        """Open an existing file; ArchiveError if it is not one, is damaged or of another format."""
        if not path.is_file():
            raise ArchiveError(
                f"{path.parent} is not an archive: {path.name} is missing. Make one with: kvlp archive create"
            )
        store = cls(path, timeout=timeout)
        try:
            found = store.meta().get("format", "")
        except ArchiveError:
            store.close()
            raise
        if found != str(FORMAT):
            store.close()
            raise ArchiveError(f"{path} has format {found or 'none'!r}; this kvlp reads format {FORMAT}")
        return store

    def close(self) -> None:
        """Close the connection; the store opens it again when needed."""
        with self._lock:
            if self._connection is not None and self._pid == os.getpid():
                self._connection.close()
            self._connection = None

    # --- transactions -------------------------------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None or self._pid != os.getpid():
            self._connection, self._pid = _connection(self.path, self._timeout), os.getpid()
        return self._connection

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One consistent view of the file."""
        with self._lock, _named(self.path):
            connection = self._connect()
            if connection.in_transaction:  # inside a writer's own transaction
                yield connection
                return
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("COMMIT")

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything inside is committed together, or nothing is; a change raises the generation by one."""
        with self._lock, _named(self.path):
            connection = self._connect()
            connection.execute("BEGIN IMMEDIATE")
            try:
                before = connection.total_changes
                yield connection
                if connection.total_changes > before:
                    connection.execute("UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'generation'")
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    # --- reading ------------------------------------------------------------------------------------------------------

    def meta(self) -> dict[str, str]:
        """All settings: format, generation, model and graph hashes, dim, ..."""
        with self.reading() as connection:
            return dict(connection.execute("SELECT key, value FROM meta"))

    def generation(self) -> int:
        """How many transactions have changed the archive."""
        with self.reading() as connection:
            return _generation(connection)

    def has_reports_table(self) -> bool:
        """Whether report text can be searched here."""
        with self.reading() as connection:
            return _has_reports(connection)

    def counts(self) -> dict[str, int]:
        """Numbers of rows."""
        with self.reading() as connection:
            tables = {"items": "items", "skipped": "skipped", "mentions": "mentions"}
            counts = {
                name: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
                for name, table in tables.items()
            }
            counts["reports"] = connection.execute("SELECT count(*) FROM items WHERE has_report").fetchone()[0]
        return counts

    def snapshot(self) -> tuple[int, list[str], NDArray[np.int64]]:
        """Generation, ids in order and row numbers in the same order, all of one moment."""
        with self.reading() as connection:
            generation = _generation(connection)
            rows = connection.execute("SELECT id, n FROM items ORDER BY id").fetchall()
        return generation, [row[0] for row in rows], np.array([row[1] for row in rows], dtype=np.int64)

    def vectors(self, dim: int) -> tuple[int, list[str], NDArray[np.int64], NDArray[np.float32]]:
        """`snapshot` with the (N, dim) vectors."""
        with self.reading() as connection:
            generation = _generation(connection)
            count = connection.execute("SELECT count(*) FROM items").fetchone()[0]
            matrix = np.empty((count, dim), dtype=np.float32)
            ids, numbers = [], np.empty(count, dtype=np.int64)
            for at, (key, n, blob) in enumerate(connection.execute("SELECT id, n, vector FROM items ORDER BY id")):
                if len(blob) != 4 * dim:
                    raise ArchiveError(f"item {key} has a damaged vector; run: kvlp archive repair {self.path.parent}")
                matrix[at] = np.frombuffer(blob, dtype="<f4")
                numbers[at] = n
                ids.append(key)
        return generation, ids, numbers, matrix

    def select(self, condition: str, values: Sequence[str]) -> NDArray[np.int64]:
        """Row numbers of the items for which an SQL condition holds."""
        with self.reading() as connection:
            rows = connection.execute(f"SELECT n FROM items WHERE {condition}", tuple(values)).fetchall()
        return np.array([row[0] for row in rows], dtype=np.int64)

    def items(self, condition: str = "1", values: Sequence[object] = ()) -> list[Item]:
        """Whole items for which an SQL condition holds, by id."""
        return list(self.each_item(condition, values))

    def each_item(self, condition: str = "1", values: Sequence[object] = ()) -> Iterator[Item]:
        """`items`, one at a time, in one consistent view."""
        with self.reading() as connection:
            text = "(SELECT text FROM reports WHERE rowid = items.n)" if _has_reports(connection) else "NULL"
            query = f"SELECT {', '.join(_COLUMNS)}, vector, n, {text} FROM items WHERE {condition} ORDER BY id"
            for row in connection.execute(query, tuple(values)):
                yield _item(connection, row)

    def get(self, column: str, value: str) -> Item | None:
        """The item whose `id`, `sha256` or `n` is `value`."""
        found = self.items(f"items.{column} = ?", (value,))
        return found[0] if found else None

    def contents(self) -> frozenset[str]:
        """The sha256 of every image."""
        with self.reading() as connection:
            return frozenset(row[0] for row in connection.execute("SELECT sha256 FROM items"))

    def digests(self) -> dict[int, bytes]:
        """Row number -> stored digest."""
        with self.reading() as connection:
            return dict(connection.execute("SELECT n, digest FROM items"))

    def skipped(self) -> list[tuple[str, str]]:
        """Paths that could not be added, with the reason."""
        with self.reading() as connection:
            return connection.execute("SELECT path, reason FROM skipped ORDER BY path").fetchall()

    def wipe_leftovers(self) -> None:
        """Leave no byte of what was deleted in the file, its free pages, its text index or its log."""
        with self._lock, _named(self.path):
            connection = self._connect()
            if _has_reports(connection):
                connection.execute("INSERT INTO reports (reports) VALUES ('optimize')")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def problems(self) -> list[str]:
        """What SQLite itself finds wrong with the file; empty when sound."""
        with self.reading() as connection:
            rows = [row[0] for row in connection.execute("PRAGMA integrity_check(20)")]
            orphans = connection.execute(
                "SELECT count(*) FROM mentions WHERE n NOT IN (SELECT n FROM items)"
            ).fetchone()[0]
            texts = 0
            if _has_reports(connection):
                texts = connection.execute(
                    "SELECT count(*) FROM reports WHERE rowid NOT IN (SELECT n FROM items)"
                ).fetchone()[0]
        found = [] if rows == ["ok"] else rows
        return found + [
            f"{count} {name} of no item" for count, name in ((orphans, "mentions"), (texts, "reports")) if count
        ]


# --- writing, inside a transaction ------------------------------------------------------------------------------------


def put(connection: sqlite3.Connection, item: Item) -> None:
    """Insert an item or replace the one of the same content."""
    columns = (*_COLUMNS, "vector", "digest")
    values = [*(getattr(item, name) for name in _COLUMNS), item.vector, item.digest()]
    updates = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in ("id", "sha256"))
    sql = (
        f"INSERT INTO items ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
        f" ON CONFLICT(sha256) DO UPDATE SET {updates} RETURNING n"
    )
    n = connection.execute(sql, values).fetchall()[0][0]
    connection.execute("DELETE FROM mentions WHERE n = ?", (n,))
    connection.executemany(
        "INSERT INTO mentions VALUES (?, ?, ?)", [(n, *pair) for pair in sorted(item.mentions.items())]
    )
    if _has_reports(connection):
        connection.execute("DELETE FROM reports WHERE rowid = ?", (n,))
        if item.text is not None:
            connection.execute("INSERT INTO reports (rowid, text) VALUES (?, ?)", (n, item.text))
    connection.execute("DELETE FROM skipped WHERE path = ?", (item.path,))


def delete(connection: sqlite3.Connection, numbers: Iterable[int]) -> None:
    """Delete items with their mentions and text."""
    rows = [(int(n),) for n in numbers]
    if _has_reports(connection):
        connection.executemany("DELETE FROM reports WHERE rowid = ?", rows)
    connection.executemany("DELETE FROM mentions WHERE n = ?", rows)
    connection.executemany("DELETE FROM items WHERE n = ?", rows)


def skip(connection: sqlite3.Connection, path: str, reason: str) -> None:
    """Remember a path that could not be added and why."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    connection.execute(
        "INSERT INTO skipped VALUES (?, ?, ?) ON CONFLICT(path) DO UPDATE SET reason = excluded.reason,"
        " seen = excluded.seen WHERE reason != excluded.reason",
        (path, reason, now),
    )


def _generation(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT value FROM meta WHERE key = 'generation'").fetchone()[0])


def _has_reports(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'reports'").fetchone() is not None


def _item(connection: sqlite3.Connection, row: Sequence[Any]) -> Item:
    values = dict(zip(_COLUMNS, row, strict=False))
    values["has_report"] = bool(values["has_report"])
    vector, n, text = row[len(_COLUMNS) :]
    mentions = dict(connection.execute("SELECT concept, assertion FROM mentions WHERE n = ?", (n,)))
    return Item(**values, vector=vector, mentions=mentions, text=text, n=n)


def _connection(path: Path, timeout: float) -> sqlite3.Connection:
    """A connection with the durability that the archive promises; read-only where the folder cannot be written."""
    if os.access(path.parent, os.W_OK):
        connection = sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)
    else:
        frozen = "" if path.with_name(path.name + "-wal").exists() else "&immutable=1"
        address = f"{path.absolute().as_uri()}?mode=ro{frozen}"
        connection = sqlite3.connect(address, timeout=timeout, isolation_level=None, check_same_thread=False, uri=True)
    with _named(path):
        try:
            for pragma in (
                "trusted_schema=OFF",
                "cell_size_check=ON",
                "foreign_keys=ON",
                "secure_delete=ON",
                "synchronous=FULL",
            ):
                connection.execute(f"PRAGMA {pragma}")
            if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
                connection.execute("PRAGMA journal_mode=WAL").fetchone()
                connection.execute("PRAGMA synchronous=FULL")
        except sqlite3.Error:
            connection.close()
            raise
    return connection


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """SQLite's errors as one line of ours: what happened, where, what to do."""
    try:
        yield
    except sqlite3.Error as error:
        raise ArchiveError(_reason(path, error)) from error


def _reason(path: Path, error: sqlite3.Error) -> str:
    name = getattr(error, "sqlite_errorname", "") or type(error).__name__
    if "no such table: meta" in str(error):
        return f"{path} was not finished when it was created; run kvlp archive create again"
    if name == "SQLITE_FULL" or name.startswith("SQLITE_IOERR"):
        return f"{path}: the disk is full or failing ({error}); what was added before stays. Free space and run again"
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return f"{path} is busy with another process; try again when it has ended"
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return f"{path} is damaged ({error}); restore it from a copy, or create the archive again from the images"
    if name.startswith(("SQLITE_READONLY", "SQLITE_PERM", "SQLITE_CANTOPEN", "SQLITE_AUTH")):
        return f"{path} cannot be opened or written ({error}); check its permissions"
    return f"{path}: {error}"
