"""Vector search: exact on NumPy, approximate through FAISS, one answer for both.

An index holds unit vectors in memory. Up to `FLAT_LIMIT` of them every search is exact; above, FAISS proposes
candidates (HNSW, then IVF) and their scores are computed exactly. Scores are inner products in double precision and
equal scores are ordered by position: the exact answer is the same whatever the order of adding, batch size or library.

On disk an exact index is FAISS's own `IndexFlatIP` format, written and read here byte by byte: no parser ever sees an
untrusted flat file, and it works where faiss is not installed. Approximate indexes go through FAISS's reader, behind an
allow-list of types, a byte limit and a trial in a child process.
"""

from __future__ import annotations

import hashlib
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from kvlp.errors import ArchiveError, ConfigError, MissingExtraError, ShapeError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["FLAT_LIMIT", "HNSW_LIMIT", "Kind", "VectorIndex", "choose_kind", "sha256_of", "unit_rows"]

Kind: TypeAlias = Literal["flat", "hnsw", "ivf"]

#: Up to this many vectors a search looks at all of them: 200,000 x 512 takes about 20 ms and loses nothing.
FLAT_LIMIT = 200_000
#: Above this an HNSW graph costs too much memory and time to build; IVF takes over.
HNSW_LIMIT = 2_000_000

_FLAT_HEADER = struct.Struct(
    "<4siqqq?iQ"
)  # type, dim, count, two constants, trained, metric (0 = inner product), floats
_FLAT_TYPE, _FLAT_CONSTANT = b"IxFI", 1 << 20
_ANN_TYPES: dict[Kind, bytes] = {"hnsw": b"IHNf", "ivf": b"IwFl"}
_ROWS = 65_536  # rows that are rescored at once
_byte_limit_lock = threading.Lock()


def choose_kind(count: int) -> Kind:
    """Return the index that suits `count` vectors: "flat" (exact), "hnsw" or "ivf"; without faiss always "flat"."""
    if count <= FLAT_LIMIT or find_spec("faiss") is None:
        return "flat"
    return "hnsw" if count <= HNSW_LIMIT else "ivf"


def unit_rows(vectors: ArrayLike, *, dim: int | None = None) -> NDArray[np.float32]:
    """Return the rows scaled to length 1 as a C-ordered float32 array of shape (N, D); a zero row stays zero.

    Raises:
        ShapeError: not one or two axes, or rows that are not `dim` long.
        ArchiveError: NaN or infinity in a row.
    """
    rows = np.atleast_2d(np.asarray(vectors, dtype=np.float64))
    if rows.ndim != 2 or (dim is not None and rows.shape[1] != dim):
        expected = "(N, D)" if dim is None else f"(N, {dim})"
        raise ShapeError(f"embeddings must have shape {expected} but have shape {np.shape(vectors)}")
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if bad.size:
        raise ArchiveError(f"embedding {bad[0]} holds NaN or infinity; {bad.size} of {len(rows)} are not finite")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.ascontiguousarray(rows / np.where(lengths > 0, lengths, 1.0), dtype=np.float32)


def sha256_of(data: bytes | memoryview | Path) -> str:
    """Return the sha256 of bytes, or of a file's content, as hex."""
    if isinstance(data, Path):
        with data.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(data).hexdigest()


class VectorIndex:
    """Nearest unit vectors by inner product.

    Args:
        vectors: float32 (N, D), unit or zero rows; kept as they are, not copied.
        kind: "flat", "hnsw" or "ivf"; None chooses by N.

    Raises:
        MissingExtraError: an approximate kind was asked for and faiss is not installed.
    """

    def __init__(self, vectors: NDArray[np.float32], *, kind: Kind | None = None) -> None:
        self.vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        self.kind: Kind = choose_kind(len(vectors)) if kind is None else kind
        if self.kind not in ("flat", *_ANN_TYPES):
            raise ConfigError(f"kind {kind!r} is unknown; expected one of: flat, hnsw, ivf")
        self._ann: Any = None if self.kind == "flat" else _build_ann(self.vectors, self.kind)
        squares = np.einsum("nd,nd->n", self.vectors, self.vectors)
        self._longest = float(np.sqrt(squares.max(initial=1.0)))

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return int(self.vectors.shape[1])

    def search(
        self, query: ArrayLike, k: int, *, allowed: NDArray[np.integer] | None = None, exact: bool = False
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return positions and scores of the k best rows, best first, equal scores by position.

        Args:
            query: (D,), any length.
            k: at most so many; fewer come back when there are fewer rows.
            allowed: positions to look among, ascending; then the search is exact. None looks among all.
            exact: look at every row even in an approximate index.
        """
        wanted = np.asarray(query, dtype=np.float64)
        if wanted.shape != (self.dim,):
            raise ShapeError(f"the query must have shape ({self.dim},) but has shape {wanted.shape}")
        if not np.isfinite(wanted).all():
            raise ArchiveError("the query embedding holds NaN or infinity")
        if self._ann is None or allowed is not None or exact:
            candidates = self._shortlist(wanted, k, allowed)
        else:
            candidates = self._propose(wanted, k)
        scores = _exact_scores(self.vectors, candidates, wanted)
        best = np.lexsort((candidates, -scores))[: max(k, 0)]
        return candidates[best], scores[best]

    def _shortlist(self, query: NDArray[np.float64], k: int, allowed: NDArray[np.integer] | None) -> NDArray[np.int64]:
        """Rows that can be among the k best, found in single precision with its error bound."""
        among = np.arange(len(self), dtype=np.int64) if allowed is None else np.asarray(allowed, dtype=np.int64)
        if k >= len(among):
            return among
        rows = self.vectors if allowed is None else self.vectors[among]
        rough = rows @ query.astype(np.float32)
        kth = np.partition(rough, len(rough) - k)[len(rough) - k] if k > 0 else np.inf
        slack = 4.0 * self.dim * float(np.finfo(np.float32).eps) * float(np.linalg.norm(query)) * self._longest
        return among[rough >= kth - slack]

    def _propose(self, query: NDArray[np.float64], k: int) -> NDArray[np.int64]:
        count = min(len(self), max(4 * k, 128))
        if self.kind == "hnsw":
            self._ann.hnsw.efSearch = max(256, 2 * count)
        else:
            self._ann.nprobe = max(16, self._ann.nlist // 32)
        _, found = self._ann.search(np.ascontiguousarray(query[None], dtype=np.float32), count)
        return np.unique(found[(found >= 0) & (found < len(self))]).astype(np.int64)

    def flat_bytes(self) -> bytes:
        """Return the vectors as a FAISS IndexFlatIP file (`faiss.read_index` opens it)."""
        return _flat_header(len(self), self.dim) + self.vectors.astype("<f4", copy=False).tobytes()

    def ann_bytes(self) -> bytes | None:
        """Return the approximate index as a FAISS file, or None for an exact one."""
        return None if self._ann is None else _faiss().serialize_index(self._ann).tobytes()

    @classmethod
    def from_bytes(
        cls, flat: bytes, *, count: int, dim: int, kind: Kind = "flat", ann: Path | None = None
    ) -> VectorIndex:
        """Return the index that `flat_bytes` (and, of an approximate kind, a file of `ann_bytes`) hold.

        Raises:
            ArchiveError: the bytes are not exactly an index of `count` vectors of length `dim`.
        """
        index = cls(read_flat(flat, count=count, dim=dim), kind="flat")
        if kind != "flat":
            if ann is None:
                raise ArchiveError(f"an index of kind {kind} needs its approximate file")
            index._ann = read_ann(ann, count=count, dim=dim, kind=kind)
            index.kind = kind
        return index


def _exact_scores(
    vectors: NDArray[np.float32], positions: NDArray[np.int64], query: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Inner products in double precision; a row's value depends on that row alone, so equal rows get equal scores."""
    scores = np.empty(len(positions), dtype=np.float64)
    for start in range(0, len(positions), _ROWS):
        part = slice(start, start + _ROWS)
        scores[part] = (vectors[positions[part]].astype(np.float64) * query).sum(axis=1)
    return scores


def _flat_header(count: int, dim: int) -> bytes:
    return _FLAT_HEADER.pack(_FLAT_TYPE, dim, count, _FLAT_CONSTANT, _FLAT_CONSTANT, True, 0, count * dim)


def read_flat(data: bytes, *, count: int, dim: int) -> NDArray[np.float32]:
    """Return the (count, dim) float32 vectors of a flat file; its size and header must be exactly the expected ones."""
    header = _flat_header(count, dim)
    if len(data) != len(header) + 4 * count * dim or data[: len(header)] != header:
        raise ArchiveError(f"the flat index is not one of {count} vectors of length {dim}")
    vectors = np.frombuffer(data, dtype="<f4", offset=len(header)).reshape(count, dim)
    if not np.isfinite(vectors).all():
        raise ArchiveError("the flat index holds NaN or infinity")
    return vectors.astype(np.float32, copy=False)


def read_ann(path: Path, *, count: int, dim: int, kind: Kind) -> Any:
    """Return the FAISS index in a file, after a trial in a child process; type and shape must be as expected."""
    with path.open("rb") as file:
        start = file.read(4)
    if kind not in _ANN_TYPES or start != _ANN_TYPES[kind]:
        raise ArchiveError(f"{path.name} is not a FAISS index of kind {kind}")
    _try_in_child(path)
    index = _read_limited(path)
    if (index.ntotal, index.d) != (count, dim) or index.metric_type != _faiss().METRIC_INNER_PRODUCT:
        raise ArchiveError(f"{path.name} holds {index.ntotal} vectors of length {index.d}; expected {count} of {dim}")
    return index


def _read_limited(path: Path) -> Any:
    faiss = _faiss()
    with _deserialization_limit(faiss, path.stat().st_size):
        try:
            return faiss.read_index(str(path))
        except RuntimeError as error:
            raise ArchiveError(f"{path.name} is damaged: FAISS refuses it") from error


@contextmanager
def _deserialization_limit(faiss: Any, size: int) -> Iterator[None]:
    """No vector of a file can be larger than the file: FAISS's own default would allow 1 TB."""
    with _byte_limit_lock:
        before = faiss.get_deserialization_vector_byte_limit()
        faiss.set_deserialization_vector_byte_limit(size)
        try:
            yield
        finally:
            faiss.set_deserialization_vector_byte_limit(before)


_TRIAL = """
import resource, sys
path, size = sys.argv[1], int(sys.argv[2])
import faiss, numpy
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() if sys.platform == "linux" else 0
if used:
    resource.setrlimit(resource.RLIMIT_AS, (used + 3 * size + (256 << 20),) * 2)
spent = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
resource.setrlimit(resource.RLIMIT_CPU, (int(spent + 8 + size / 20e6),) * 2)
faiss.set_deserialization_vector_byte_limit(size)
index = faiss.read_index(path)
index.search(numpy.ones((1, index.d), "float32"), 10)
"""


def _try_in_child(path: Path) -> None:
    """Load and ask an untrusted index in a process that may crash, hang or ask for memory in our place.

    Its processor time is what is limited; the clock only where it neither works nor ends, for the machine may be busy.
    """
    size = path.stat().st_size
    command = [sys.executable, "-I", "-c", _TRIAL, str(path), str(size)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=120 + size / 2e6, check=False)
    except subprocess.TimeoutExpired as error:
        raise ArchiveError(f"{path.name} is damaged: reading it does not end") from error
    if done.returncode != 0:
        raise ArchiveError(f"{path.name} is damaged: a trial process could not read it")


def _build_ann(vectors: NDArray[np.float32], kind: Kind) -> Any:
    faiss = _faiss()
    count, dim = vectors.shape
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(dim, 32, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = 100
    else:
        lists = max(1, min(int(4 * np.sqrt(count)), count // 39))
        index = faiss.index_factory(dim, f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
        sample = np.random.default_rng(0).permutation(count)[: 64 * lists]
        index.train(vectors[np.sort(sample)])
    index.add(vectors)
    return index


def _faiss() -> Any:
    try:
        return import_module("faiss")
    except ImportError as error:
        raise MissingExtraError("faiss", "cpu") from error
