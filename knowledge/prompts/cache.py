"""Answers of attribute back-ends kept on disk: one JSON file a concept, with the provenance that decided it.

The name of a file is a hash of the concept and its provenance, so that another model, graph or rule file never gets an
old answer. Files are replaced in one step; one that is damaged is told and made again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvlp.errors import KnowledgeError
from kvlp.knowledge.prompts.attributes import PromptAttribute, as_row
from kvlp.knowledge.prompts.templates import KINDS
from kvlp.typing import PathLike

if TYPE_CHECKING:
    from kvlp.knowledge.graph import Concept
    from kvlp.knowledge.prompts.attributes import AttributeBackend

__all__ = ["AttributeCache"]

_FORMAT = 1
_LOG = logging.getLogger(__name__)


class AttributeCache:
    """A folder of answers.

    Args:
        folder: made if it is not there.

    Raises:
        KnowledgeError: the folder cannot be made.
    """

    def __init__(self, folder: PathLike) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise KnowledgeError(f"{folder}: cannot keep attributes here ({error.strerror}); name a folder") from None

    def path_of(self, backend: AttributeBackend, concept: Concept) -> Path:
        """The file of an answer, whether it is there or not."""
        return self.folder / f"{_digest(_key(backend, concept))[:32]}.json"

    def through(self, backend: AttributeBackend, concept: Concept) -> list[PromptAttribute]:
        """The kept answer; else the back-end's, which is kept then."""
        path, key = self.path_of(backend, concept), _key(backend, concept)
        if path.exists():
            try:
                return _read(path, key)
            except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
                _LOG.warning("%s: damaged answer of back-end '%s' (%s); made again", path, backend.name, _reason(error))
        found = backend.attributes(concept)
        _write(path, {"format": _FORMAT, **key, "attributes": [as_row(a) for a in found]})
        return found


def _key(backend: AttributeBackend, concept: Concept) -> dict[str, Any]:
    """What decides an answer; the concept's own words too, because a graph may be none."""
    words = {
        "name": concept.name,
        "definition": concept.definition,
        "descriptions": concept.descriptions,
        "semantic_types": concept.semantic_types,
    }
    provenance = {"backend": backend.name, **backend.provenance()}
    return {"concept": concept.id, "concept_hash": _digest(words), "provenance": provenance}


def _read(path: Path, key: Mapping[str, Any]) -> list[PromptAttribute]:
    data = json.loads(path.read_bytes().decode("utf-8"))
    if not isinstance(data, dict) or data.get("sha256") != _digest({k: v for k, v in data.items() if k != "sha256"}):
        raise ValueError("its checksum does not fit")
    if data["format"] != _FORMAT or any(data[name] != value for name, value in key.items()):
        raise ValueError("it belongs to something else")
    found = [PromptAttribute(**row) for row in data["attributes"]]
    if any(a.kind not in KINDS for a in found):
        raise ValueError("an unknown kind")
    return found


def _write(path: Path, data: Mapping[str, Any]) -> None:
    content = json.dumps({**data, "sha256": _digest(data)}, indent=1, ensure_ascii=False) + "\n"
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".part-", suffix=".json")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


def _digest(value: Mapping[str, Any] | Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError | json.JSONDecodeError | RecursionError):
        return "not readable as JSON"
    return str(error) if type(error) is ValueError else "not of the expected form"
