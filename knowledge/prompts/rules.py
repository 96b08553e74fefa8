"""The word lists and questions of `attributes.yaml`: read, and checked in full."""

from __future__ import annotations

import hashlib
import string
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from kvlp.errors import KnowledgeError
from kvlp.knowledge.prompts.checks import read_bundled, read_yaml, require_known, require_mapping, require_words
from kvlp.knowledge.prompts.templates import KINDS
from kvlp.typing import PathLike

__all__ = ["AttributeRules"]

_BUNDLED = "attributes.yaml"
_FIELDS = ("x", "mask")
_LOOKS = ("color", "shape", "texture")


class AttributeRules:
    """What the back-ends of attributes go by.

    Args:
        path: a YAML file of the form of `attributes.yaml`; what it leaves out is taken from there.

    Attributes:
        graph: word lists of the back-end "graph"; `severity` is a list of heads and words.
        definition: word lists of the back-end "definition"; for color, shape and texture adjective -> words.
        masked: kind -> question and candidates, and `stop_words`.

    Raises:
        KnowledgeError: the file is missing, no UTF-8 or YAML, or has a wrong part; the message says which.
    """

    def __init__(self, path: PathLike | None = None) -> None:
        raw, base = read_bundled(_BUNDLED)
        own_raw, own = ("", {}) if path is None else read_yaml(Path(path))
        where = str(path or _BUNDLED)
        for part, value in own.items():
            require_known(part, base, f"{where}: key")
            require_mapping(value, f"{where}: {part}")
        merged = {part: {**value, **own.get(part, {})} for part, value in base.items()}
        self.graph: dict[str, Any] = merged["graph"]
        self.definition: dict[str, Any] = merged["definition"]
        self.masked: dict[str, Any] = merged["masked"]
        self._raws = (raw, own_raw)
        self._check(base, where)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the files' text, in hex."""
        return hashlib.sha256("\0".join(self._raws).encode()).hexdigest()

    def _check(self, base: Mapping[str, Any], where: str) -> None:
        for key, value in self.graph.items():
            require_known(key, base["graph"], f"{where}: graph: key")
            if key == "severity":
                for n, entry in enumerate(value if isinstance(value, list) else [value], 1):
                    _require_lists(entry, ("heads", "words"), f"{where}: graph: severity, entry {n}")
            else:
                require_words(value, f"{where}: graph: {key}")
        for key, value in self.definition.items():
            require_known(key, base["definition"], f"{where}: definition: key")
            if key in _LOOKS:
                _require_lists(value, tuple(value), f"{where}: definition: {key}")
            else:
                require_words(value, f"{where}: definition: {key}")
        require_words(self.masked["stop_words"], f"{where}: masked: stop_words")
        for kind in self.masked.keys() - {"stop_words"}:
            require_known(kind, KINDS, f"{where}: masked: attribute")
            _require_question(self.masked[kind], f"{where}: masked: {kind}")


def _require_lists(value: Any, keys: tuple[str, ...], where: str) -> None:
    require_mapping(value, where)
    for key in keys:
        require_words(value.get(key), f"{where}: {key}")


def _require_question(value: Any, where: str) -> None:
    require_mapping(value, where)
    question = value.get("question")
    if not isinstance(question, str):
        raise KnowledgeError(f"{where}: expected a question with {{x}} and {{mask}}")
    try:
        fields = [(name, form) for _, name, form, _ in string.Formatter().parse(question) if name is not None]
    except ValueError as error:
        raise KnowledgeError(f"{where}: question: {error}") from None
    for name, form in fields:
        require_known(name, _FIELDS, f"{where}: question: field")
        if form:
            raise KnowledgeError(f"{where}: question: {{{name}:{form}}} is not understood; write {{{name}}}")
    if [name for name, _ in fields].count("mask") != 1 or "x" not in dict(fields):
        raise KnowledgeError(f"{where}: question: expected {{x}}, and {{mask}} once")
    if value.get("candidates") is not None:
        require_words(value["candidates"], f"{where}: candidates")
