"""scispaCy's candidate generator over an index of our own graph, for phrases that the dictionary left uncovered.

Surfaces become tf-idf vectors of character trigrams in an HNSW index (nmslib); a phrase gets the concept of the surface
that looks most alike. Looking alike is no meaning: use it to find what a graph lacks, and check what it adds. Nothing
is downloaded. The index is kept in a folder by the graph's hash: arrays, JSON and nmslib's own file, no pickle.

Needs the extra `knowledge`. Reference: Neumann et al. 2019 (ScispaCy, doi:10.18653/v1/W19-5034).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from kvlp.errors import ConfigError, MissingExtraError
from kvlp.typing import PathLike

if TYPE_CHECKING:
    from kvlp.knowledge.graph import KnowledgeGraph

__all__ = ["Candidate", "CandidateLinker", "chunks"]

_log = logging.getLogger(__name__)

Span: TypeAlias = tuple[int, int]
_FORMAT = 1
#: HNSW: links of a point, search width while building and while asking
_LINKS, _WIDTH_BUILDING, _WIDTH_ASKING = 16, 200, 200
_MANIFEST, _WORDS, _VECTORS, _IDF, _INDEX = "index.json", "words.json", "surfaces.npz", "idf.npy", "surfaces.hnsw"
_KEPT = (_WORDS, _VECTORS, _IDF, _INDEX)
_SHORTEST_SURFACE, _SHORTEST_PHRASE, _LONGEST_CHUNK = 4, 5, 6
#: a candidate is never as sure as a surface
_DISCOUNT = 0.9
_REMEMBERED = 50_000

_TOKEN = re.compile(r"[^\W\d_]+(?:[-'][^\W\d_]+)*")
_STOP_WORDS = frozenset(
    ("the", "a", "an", "this", "that", "these", "those", "there", "it", "its", "he", "she", "his", "her", "they",
     "of", "in", "on", "at", "to", "for", "from", "by", "with", "within", "without", "into", "over", "under",
     "above", "below", "near", "along", "through", "between", "behind", "about", "than", "as", "and", "or", "but",
     "nor", "is", "are", "was", "were", "be", "been", "being", "has", "have", "had", "do", "does", "may", "might",
     "can", "could", "would", "should", "will", "not", "no", "also", "again", "when", "which", "who", "if",
     "since", "due", "per", "via", "seen", "noted", "identified", "present", "demonstrated", "compared", "study",
     "examination", "exam", "image", "images", "view", "views", "patient", "history", "comparison", "please",
     "recommend", "recommended", "consider", "further")
)  # fmt: skip


class Candidate(NamedTuple):
    """A concept whose surface looks like a phrase, and the cosine similarity of both, in (0, 1]."""

    concept: str
    similarity: float


@dataclass(frozen=True, slots=True)
class _Parts:
    """What an index is made of."""

    surfaces: list[str]
    vectoriser: Any
    index: Any


class CandidateLinker:
    """Finds the concept whose surface looks most like a phrase.

    Args:
        graph: whose surfaces are indexed; those under four characters are left out.
        threshold: least cosine similarity, in (0, 1].
        neighbours: how many surfaces are looked at.
        folder: where indexes are kept, one folder a graph; default: `candidates` in the cache (KVLP_CACHE, else
            XDG_CACHE_HOME/kvlp, else ~/.cache/kvlp).

    Raises:
        ConfigError: a threshold outside (0, 1].
        MissingExtraError: the extra `knowledge` is not installed.

    Example:
        >>> CandidateLinker(graph)(["interstitial oedematous change"])
        [Candidate(concept='interstitial_edema', similarity=0.71)]
    """

    def __init__(
        self, graph: KnowledgeGraph, *, threshold: float = 0.85, neighbours: int = 10, folder: PathLike | None = None
    ) -> None:
        if not 0 < threshold <= 1:
            raise ConfigError(f"threshold: expected a cosine similarity in (0, 1], got {threshold}")
        self.threshold, self.neighbours = threshold, neighbours
        self._known: dict[str, Candidate | None] = {}
        self._generator = _generator(graph, _prepared(graph, Path(folder) if folder is not None else _default_folder()))

    def __call__(self, phrases: Sequence[str]) -> list[Candidate | None]:
        """The best candidate of each phrase; None below the threshold, or where two concepts are equally like it."""
        new = sorted({p for p in phrases if p not in self._known})
        for phrase, found in zip(new, self._generator(new, self.neighbours), strict=True):
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[phrase] = self._best(found)
        return [self._known.get(p) for p in phrases]

    def _best(self, found: Sequence[Any]) -> Candidate | None:
        ranked = sorted(((max(c.similarities), c.concept_id) for c in found), reverse=True)
        if not ranked or ranked[0][0] < self.threshold:
            return None
        if len(ranked) > 1 and ranked[1][0] > ranked[0][0] - 1e-6:
            return None
        return Candidate(ranked[0][1], min(1.0, ranked[0][0]))

    def find(
        self, text: str, covered: Sequence[Span], described: Sequence[Span] = ()
    ) -> list[tuple[int, int, str, float]]:
        """Candidates in a sentence, apart from each other.

        Args:
            text: the sentence.
            covered: spans that are read already; no candidate touches them.
            described: spans of anatomy and descriptors, which may be part of a candidate but do not make one.

        Returns:
            (start, end, concept, score) with score below 1.
        """
        tails = [tail for chunk in chunks(text, covered, described) for tail in _tails(text, chunk)]
        best: list[tuple[int, int, str, float]] = []
        for (start, end), found in zip(tails, self([text[s:e].lower() for s, e in tails]), strict=True):
            if found is not None and not (best and start < best[-1][1]):
                best.append((start, end, found.concept, found.similarity * _DISCOUNT))
        return best


def chunks(text: str, covered: Sequence[Span], described: Sequence[Span] = ()) -> list[list[Span]]:
    """Runs of words between function words, marks and what is covered, as spans of their words.

    A run needs a word of four letters or more that nothing describes; of a longer one the last six words count.
    """
    runs: list[list[Span]] = [[]]
    last = 0
    for match in _TOKEN.finditer(text):
        start, end = match.span()
        if text[last:start].strip(" \t\r\n"):
            runs.append([])
        last = end
        word = match[0].lower()
        if word in _STOP_WORDS or set(word) == {"x"} or _touches(covered, start, end):
            runs.append([])
        else:
            runs[-1].append((start, end))
    return [
        run[-_LONGEST_CHUNK:]
        for run in runs
        if any(e - s > 3 and not _touches(described, s, e) for s, e in run[-_LONGEST_CHUNK:])
    ]


def _tails(text: str, chunk: Sequence[Span]) -> Iterator[Span]:
    """The whole chunk, then ever shorter ends of it: the head of an English noun phrase stands last."""
    for start, _ in chunk:
        if chunk[-1][1] - start >= _SHORTEST_PHRASE:
            yield start, chunk[-1][1]


def _touches(spans: Sequence[Span], start: int, end: int) -> bool:
    return any(s < end and start < e for s, e in spans)


# ---- the index -------------------------------------------------------------------------------------------------------


def _generator(graph: KnowledgeGraph, parts: _Parts) -> Any:
    from scispacy.candidate_generation import CandidateGenerator
    from scispacy.linking_utils import Entity, KnowledgeBase

    entities = [
        Entity(
            concept_id=c.id,
            canonical_name=c.name,
            aliases=list(c.synonyms),
            types=list(c.semantic_types),
            definition=c.definition or None,
        )
        for c in graph.concepts
    ]
    return CandidateGenerator(parts.index, parts.vectoriser, parts.surfaces, KnowledgeBase(entities))


def _prepared(graph: KnowledgeGraph, folder: Path) -> _Parts:
    """The index of a graph from its folder, or made and put there."""
    _require_extra()
    place = folder / f"{graph.content_hash[:24]}-{_FORMAT}"
    if _is_whole(place):
        return _load(place)
    parts, vectors = _build(sorted({s for c in graph.concepts for s in c.surfaces if len(s) >= _SHORTEST_SURFACE}))
    try:
        _save(parts, vectors, place)
    except OSError as error:  # a cache that cannot be written is no reason to fail
        _log.warning("%s: the index of candidates is not kept (%s)", place, error.strerror)
    return parts


def _require_extra() -> None:
    for package in ("scispacy", "nmslib", "sklearn"):
        try:
            import_module(package)
        except ImportError as error:
            raise MissingExtraError(package, "knowledge") from error


def _vectoriser(terms: Sequence[str] | None = None) -> Any:
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3), dtype=np.float32, vocabulary=terms)


def _build(surfaces: list[str]) -> tuple[_Parts, Any]:
    vectoriser = _vectoriser()
    vectors = vectoriser.fit_transform(surfaces)
    index = _empty_index(vectors)
    threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    index.createIndex({"M": _LINKS, "efConstruction": _WIDTH_BUILDING, "indexThreadQty": threads, "post": 0})
    index.setQueryTimeParams({"efSearch": _WIDTH_ASKING})
    return _Parts(surfaces, vectoriser, index), vectors


def _empty_index(vectors: Any) -> Any:
    import nmslib

    index = nmslib.init(method="hnsw", space="cosinesimil_sparse", data_type=nmslib.DataType.SPARSE_VECTOR)
    index.addDataPointBatch(vectors)
    return index


def _save(parts: _Parts, vectors: Any, place: Path) -> None:
    """Write the folder whole or not at all."""
    import numpy as np
    from scipy import sparse

    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as scratch:
        new = Path(scratch) / "new"
        new.mkdir()
        terms = [str(t) for t in parts.vectoriser.get_feature_names_out()]
        words = {"terms": terms, "surfaces": parts.surfaces}
        (new / _WORDS).write_text(json.dumps(words, ensure_ascii=False), encoding="utf-8")
        np.save(new / _IDF, parts.vectoriser.idf_, allow_pickle=False)
        sparse.save_npz(new / _VECTORS, vectors)
        parts.index.saveIndex(str(new / _INDEX), save_data=False)
        sums = {name: _sum(new / name) for name in _KEPT}
        (new / _MANIFEST).write_text(json.dumps({"format": _FORMAT, "sha256": sums}), encoding="utf-8")
        if place.exists():
            shutil.rmtree(place)
        new.rename(place)


def _is_whole(place: Path) -> bool:
    """Whether an index is there and undamaged: a damaged one would end the process, not raise."""
    manifest = place / _MANIFEST
    if not manifest.is_file():
        return False
    try:
        sums = json.loads(manifest.read_text(encoding="utf-8"))["sha256"]
        whole = all(sums[name] == _sum(place / name) for name in _KEPT)
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        _log.warning("%s: the index of candidates is damaged and is made anew", place)
    return whole


def _load(place: Path) -> _Parts:
    import numpy as np
    from scipy import sparse

    words = json.loads((place / _WORDS).read_text(encoding="utf-8"))
    vectoriser = _vectoriser(words["terms"])
    vectoriser.idf_ = np.load(place / _IDF, allow_pickle=False)
    index = _empty_index(sparse.load_npz(place / _VECTORS))
    index.loadIndex(str(place / _INDEX), load_data=False)
    index.setQueryTimeParams({"efSearch": _WIDTH_ASKING})
    return _Parts(words["surfaces"], vectoriser, index)


def _sum(file: Path) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def _default_folder() -> Path:
    from kvlp.knowledge.embedding.cache import cache_folder

    return cache_folder().parent / "candidates"
