"""Concept vectors remembered on disk: a folder for each graph (by content hash), method and settings."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kvlp.errors import KnowledgeError
from kvlp.knowledge.embedding.vectors import FORMAT, ConceptVectors
from kvlp.knowledge.graph import KnowledgeGraph

__all__ = ["cache_folder", "cache_key", "from_cache", "to_cache"]

_log = logging.getLogger("kvlp.knowledge")


def cache_folder() -> Path:
    """Where vectors are remembered: KVLP_CACHE, else XDG_CACHE_HOME/kvlp, else ~/.cache/kvlp; in it, `vectors`."""
    named = os.environ.get("KVLP_CACHE")
    if named:
        return Path(named).expanduser() / "vectors"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base).expanduser() if base else Path.home() / ".cache") / "kvlp" / "vectors"


def cache_key(graph: KnowledgeGraph, method: str, settings: Mapping[str, Any]) -> str:
    """Name of the folder for these vectors: equal content and equal settings, equal name."""
    said = json.dumps([FORMAT, graph.content_hash, method, dict(settings)], sort_keys=True)
    return f"{method}-{hashlib.sha256(said.encode()).hexdigest()[:32]}"


def from_cache(place: Path) -> ConceptVectors | None:
    """The vectors that a folder holds, or None; a damaged one is told of and removed."""
    if not place.is_dir():
        return None
    try:
        return ConceptVectors.load(place)
    except KnowledgeError as error:
        _log.warning("concept vectors in the cache are damaged and are made anew: %s", error)
        shutil.rmtree(place, ignore_errors=True)
        return None


def to_cache(vectors: ConceptVectors, place: Path) -> None:
    """Put vectors into the cache whole or not at all; a cache that cannot be written is no reason to fail."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".making-", dir=place.parent))
        try:
            vectors.save(scratch / "new")
            (scratch / "new").rename(place)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        if not (place / "vectors.json").is_file():  # else another process was first, with the same vectors
            _log.warning("concept vectors are not cached: %s: %s", place.parent, error.strerror)
