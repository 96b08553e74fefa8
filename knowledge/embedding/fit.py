"""graph -> ConceptVectors: one call for every method, remembered by the graph's content hash and the settings."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kvlp.errors import ConfigError
from kvlp.knowledge.embedding.cache import cache_folder, cache_key, from_cache, to_cache
from kvlp.knowledge.embedding.ranking import VectorScorer
from kvlp.knowledge.embedding.settings import resolve, statements_have_types
from kvlp.knowledge.embedding.text import Encoder, encoded, folder_encoder, letter_vectors
from kvlp.knowledge.embedding.triples import Triples, triples_of
from kvlp.knowledge.embedding.vectors import ConceptVectors
from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.typing import PathLike

if TYPE_CHECKING:
    from kvlp.typing import FloatArray

__all__ = ["Step", "embed", "fit", "own_randomness", "settings_with_encoder", "with_mean_shift"]

#: called after each epoch with (done, total, loss)
Step = Callable[[int, int, float], None]


def embed(
    graph: KnowledgeGraph,
    method: str = "transe",
    *,
    cache: PathLike | Literal[False] | None = None,
    encoder: PathLike | Encoder | None = None,
    threads: int = 0,
    progress: Step | None = None,
    **settings: Any,
) -> ConceptVectors:
    """Make a vector for each concept of a graph, or take it from the cache.

    The same graph (by content hash) with the same settings gives the same vectors: from the cache to the bit, anew to
    the bit on the same machine with the same libraries and number of threads. The global random state of the caller is
    left as it was.

    Args:
        graph: any graph; for "text" it needs no relations.
        method: "transe", "rotate", "complex" (through PyKEEN, extra `vectors`), "gat", "text" or "random" (a control).
        cache: folder to remember vectors in; None for `cache_folder()`, False for none.
        encoder: for "text": a folder of a transformers encoder, or a function texts -> (N, D), which is not cached.
        threads: CPU threads to train with; 0 leaves torch's setting.
        progress: called after each epoch with (done, total, loss).
        **settings: dim, seed, epochs, lr, batch_size, negatives, relation_types, start: see `settings.resolve`.

    Raises:
        ConfigError: an unknown method or setting; KnowledgeError: a graph that the method can do nothing with;
        MissingExtraError: the extra `vectors` is not installed.
    """
    resolved = settings_with_encoder(method, settings, encoder)
    folder = None if cache is False or callable(encoder) else Path(cache) if cache is not None else cache_folder()
    place = folder / cache_key(graph, method, resolved) if folder is not None else None
    found = from_cache(place) if place is not None else None
    if found is not None:
        return found
    with own_randomness(resolved["seed"], threads):
        entities = fit(graph, None, method, resolved, encoder=encoder, step=progress).entities
    vectors = ConceptVectors(
        ids=tuple(c.id for c in graph.concepts),
        vectors=entities,
        method=method,
        settings=resolved,
        graph={"name": graph.name, "hash": graph.content_hash, "licence": graph.licence},
        versions=_versions(method),
    )
    if place is not None:
        to_cache(vectors, place)
    return vectors


def fit(
    graph: KnowledgeGraph,
    train: Triples | None,
    method: str,
    settings: Mapping[str, Any],
    *,
    encoder: PathLike | Encoder | None = None,
    step: Step | None = None,
) -> VectorScorer:
    """Fit a method to the statements `train` (None: all of the graph's) and hand over what can score with it.

    "text" and "random" learn nothing from statements; where `train` is given, a relation is its mean of tail minus
    head.
    """
    report = step or (lambda *_: None)
    if method in ("text", "random"):
        vectors = _without_relations(graph, method, settings, encoder)
        return with_mean_shift(vectors, train) if train is not None else _bare(vectors)
    triples = train if train is not None else triples_of(graph, relation_types=statements_have_types(method, settings))
    if method == "gat":
        from kvlp.knowledge.embedding.fit_gat import fit_gat

        return fit_gat(triples, _start(graph, triples, settings), settings, report)
    from kvlp.knowledge.embedding.fit_pykeen import fit_pykeen

    return fit_pykeen(triples, method, settings, report)


def _start(graph: KnowledgeGraph, triples: Triples, settings: Mapping[str, Any]) -> FloatArray:
    """What the nodes of the GAT are before it is trained; TransE sees the same statements as the GAT, no more."""
    shared = {key: settings[key] for key in ("dim", "seed")}
    if settings["start"] == "transe":
        return fit(graph, triples, "transe", resolve("transe", shared)).entities
    return fit(graph, None, settings["start"], resolve(settings["start"], shared)).entities


def _without_relations(
    graph: KnowledgeGraph, method: str, settings: Mapping[str, Any], encoder: PathLike | Encoder | None
) -> FloatArray:
    dim, seed = settings["dim"], settings["seed"]
    if method == "random":
        drawn: FloatArray = np.random.default_rng([seed, 5]).normal(size=(len(graph), dim)).astype(np.float32)
        return drawn / np.float32(np.sqrt(dim))
    if encoder is None:
        return letter_vectors(graph, dim=dim, seed=seed)
    return encoded(graph, encoder if callable(encoder) else folder_encoder(encoder), dim=dim)


def with_mean_shift(vectors: FloatArray, train: Triples) -> VectorScorer:
    """Score with given vectors: head plus the relation's mean shift should lie near the tail."""
    head, kind, tail = train.array.T
    shift = np.zeros((len(train.types), vectors.shape[1]), dtype=np.float32)
    np.add.at(shift, kind, vectors[tail] - vectors[head])
    shift /= np.maximum(np.bincount(kind, minlength=len(train.types)), 1)[:, None]
    return VectorScorer(vectors, np.stack([shift, -shift]).astype(np.float32), "add", "l2")


def _bare(vectors: FloatArray) -> VectorScorer:
    return VectorScorer(vectors, np.zeros((2, 0, vectors.shape[1]), dtype=np.float32), "add", "l2")


def settings_with_encoder(method: str, given: Mapping[str, Any], encoder: PathLike | Encoder | None) -> dict[str, Any]:
    """All settings of a method (see `resolve`); an encoder counts by the content of its folder, and sets the width."""
    resolved = resolve(method, given)
    if encoder is None:
        return resolved
    if method != "text":
        raise ConfigError(f"concept vectors: an encoder belongs to method 'text', got method '{method}'")
    told = "a function" if callable(encoder) else _folder_hash(Path(encoder))
    return {**resolved, "dim": given.get("dim"), "encoder": told}


def _folder_hash(folder: Path) -> str:
    """sha256 over the files of an encoder's folder."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.glob("*") if p.is_file()):
        with path.open("rb") as file:
            digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


# ---- order in randomness ---------------------------------------------------------------------------------------------


@contextmanager
def own_randomness(seed: int, threads: int = 0) -> Iterator[None]:
    """Seed random, NumPy and torch inside, and put back what the caller had, number of threads too."""
    import torch

    python, numpy, before = random.getstate(), np.random.get_state(), torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        torch.set_num_threads(threads or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)
            np.random.set_state(numpy)
            random.setstate(python)


def _versions(method: str) -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    uses = {"text": ("scikit-learn",), "random": (), "gat": ("torch",)}.get(method, ("torch", "pykeen"))
    found = {}
    for name in ("numpy", *uses):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
