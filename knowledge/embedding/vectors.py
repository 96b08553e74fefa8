"""ConceptVectors: one vector for each concept of a graph, with how it was made. On disk: one .npy and one JSON file.

vectors.npy     (C, D) float32, little endian
vectors.json    ids, method, settings, graph (name, hash, licence), versions, sha256 of vectors.npy; written last
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kvlp.errors import KnowledgeError, ShapeError
from kvlp.knowledge.surfaces import near
from kvlp.typing import PathLike

if TYPE_CHECKING:
    from kvlp.typing import FloatArray

__all__ = ["FORMAT", "ConceptVectors"]

#: version of the two files; a reader refuses what it does not know
FORMAT = 1
_ARRAY, _ABOUT = "vectors.npy", "vectors.json"


@dataclass(frozen=True, eq=False)
class ConceptVectors:
    """Vectors of all concepts of a graph, in the graph's order.

    Attributes:
        ids: C concept ids.
        vectors: (C, D) float32, finite. A complex method's row is its real parts, then its imaginary ones.
        method: "transe", "rotate", "complex", "gat", "text" or "random".
        settings: every setting that the vectors depend on, the seed among them.
        graph: name, content hash ("hash") and licence of the graph.
        versions: of the libraries that made them.

    Raises:
        ShapeError: the array does not fit the ids; KnowledgeError: it holds NaN or infinity, or an id comes twice.
    """

    ids: tuple[str, ...]
    vectors: FloatArray
    method: str
    settings: Mapping[str, Any]
    graph: Mapping[str, str]
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.ids) or self.vectors.dtype != np.float32:
            raise ShapeError(
                f"expected float32 vectors of shape ({len(self.ids)}, D), got {self.vectors.dtype} "
                f"of shape {self.vectors.shape}"
            )
        if len(self._row) != len(self.ids):
            raise KnowledgeError("concept vectors: an id comes twice; ids must be unique")
        if not np.isfinite(self.vectors).all():
            raise KnowledgeError("concept vectors: NaN or infinity among them; train with a lower learning rate")

    def __len__(self) -> int:
        return len(self.ids)

    def __contains__(self, concept_id: object) -> bool:
        return concept_id in self._row

    def __getitem__(self, concept_id: str) -> FloatArray:
        """Return the (D,) vector of a concept."""
        return self.vectors[self._number(concept_id)]

    def __repr__(self) -> str:
        return f"ConceptVectors({self.method!r}, concepts={len(self)}, dim={self.dim}, graph={self.graph['name']!r})"

    @property
    def dim(self) -> int:
        """Length D of a vector."""
        return int(self.vectors.shape[1])

    @cached_property
    def _row(self) -> dict[str, int]:
        return {concept: row for row, concept in enumerate(self.ids)}

    def _number(self, concept_id: str) -> int:
        row = self._row.get(concept_id)
        if row is None:
            close = near(str(concept_id), self.ids)
            hint = f"; did you mean {', '.join(close)}?" if close else ""
            raise KnowledgeError(f"no vector for the concept '{concept_id}' in those of '{self.graph['name']}'{hint}")
        return row

    def rows(self, ids: Sequence[str]) -> FloatArray:
        """Return the vectors of these concepts: (n, D), in the order asked for."""
        return self.vectors[np.array([self._number(i) for i in ids], dtype=np.int64)]

    def nearest(self, concept_id: str, k: int = 10) -> list[tuple[str, float]]:
        """Return the `k` other concepts of the largest cosine, best first, each with its cosine."""
        row = self._number(concept_id)
        lengths = np.maximum(np.linalg.norm(self.vectors, axis=1), 1e-12)
        cosine = self.vectors @ self.vectors[row] / (lengths * lengths[row])
        order = [int(i) for i in np.argsort(-cosine, kind="stable") if i != row]
        return [(self.ids[i], float(cosine[i])) for i in order[:k]]

    # ---- on disk -------------------------------------------------------------------------------------------------

    def save(self, folder: PathLike) -> Path:
        """Write the two files into `folder` (made if need be) and return it.

        Raises:
            KnowledgeError: `folder` is a file.
        """
        target = Path(folder)
        if target.exists() and not target.is_dir():
            raise KnowledgeError(f"{target}: expected a folder to write the vectors to, found a file")
        target.mkdir(parents=True, exist_ok=True)
        stream = io.BytesIO()
        np.save(stream, np.ascontiguousarray(self.vectors, dtype="<f4"), allow_pickle=False)
        data = stream.getvalue()
        about = {
            "format": FORMAT,
            "method": self.method,
            "dim": self.dim,
            "settings": dict(self.settings),
            "graph": dict(self.graph),
            "versions": dict(self.versions),
            "sha256": hashlib.sha256(data).hexdigest(),
            "ids": list(self.ids),
        }
        # the old JSON would not fit the new array: it goes first, so that a crash leaves none rather than wrong ones
        (target / _ABOUT).unlink(missing_ok=True)
        _write(target / _ARRAY, data)
        _write(target / _ABOUT, (json.dumps(about, indent=1, ensure_ascii=False) + "\n").encode())
        return target

    @classmethod
    def load(cls, folder: PathLike) -> ConceptVectors:
        """Read what `save` wrote.

        Raises:
            KnowledgeError: a file is missing, cut off or altered; the message names it.
        """
        target = Path(folder)
        about = _read_about(target / _ABOUT)
        try:
            data = (target / _ARRAY).read_bytes()
        except OSError as error:
            raise KnowledgeError(f"{target / _ARRAY}: cannot be read ({error.strerror}); make it again") from None
        if hashlib.sha256(data).hexdigest() != about["sha256"]:
            raise KnowledgeError(
                f"{target / _ARRAY}: not the array that {_ABOUT} tells of: cut off or altered; make it again"
            )
        vectors: FloatArray = np.load(io.BytesIO(data), allow_pickle=False).astype(np.float32, copy=False)
        return cls(
            ids=tuple(about["ids"]),
            vectors=vectors,
            method=about["method"],
            settings=about["settings"],
            graph=about["graph"],
            versions=about["versions"],
        )


def _read_about(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise KnowledgeError(f"{path.parent}: expected a folder with {_ARRAY} and {_ABOUT}; found no {_ABOUT}")
    try:
        about = json.loads(path.read_bytes().decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise KnowledgeError(f"{path}: not readable as JSON ({type(error).__name__}); is it cut off?") from None
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        got = about.get("format") if isinstance(about, dict) else None
        raise KnowledgeError(f"{path}: expected format {FORMAT}, got {got!r}; make the vectors again")
    expected = {"ids": list, "method": str, "settings": dict, "graph": dict, "versions": dict, "sha256": str}
    wrong = [key for key, kind in expected.items() if not isinstance(about.get(key), kind)]
    if wrong:
        raise KnowledgeError(f"{path}: {', '.join(wrong)} missing or of another kind; make the vectors again")
    return about


def _write(path: Path, data: bytes) -> None:
    """Write a file so that a crash leaves the old one or the new one, whole."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        Path(name).chmod(0o666 & ~mask)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
