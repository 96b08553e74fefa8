"""Data files of words and sentences: read, and checked with one clear line for each fault."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from kvlp.errors import KnowledgeError
from kvlp.knowledge.surfaces import near

__all__ = ["hint", "read_bundled", "read_yaml", "require_known", "require_mapping", "require_words"]


def read_yaml(path: Path) -> tuple[str, dict[str, Any]]:
    """Read a YAML file with a mapping; return its text and content.

    Raises:
        KnowledgeError: missing, a folder, not UTF-8, not YAML, or no mapping.
    """
    try:
        raw = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise KnowledgeError(f"{path}: expected UTF-8 text, got another encoding; save the file as UTF-8") from None
    except OSError as error:
        raise KnowledgeError(f"{path}: expected a YAML file of templates ({error.strerror}); give its path") from None
    try:
        data = yaml.safe_load(raw)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark else ""
        raise KnowledgeError(f"{path}: no valid YAML{line}; quote texts with colons or braces") from None
    return raw, require_mapping(data, str(path))


@cache
def read_bundled(name: str) -> tuple[str, dict[str, Any]]:
    """Read a file that comes with kvlp, once; nobody may change what is returned."""
    return read_yaml(Path(__file__).with_name(name))


def hint(word: str, known: Iterable[str]) -> str:
    """What to do about an unknown word: the nearest known one, or all of them."""
    names = [str(name) for name in known]
    close = near(word, names, n=1)
    return f"did you mean '{close[0]}'?" if close else f"expected {', '.join(names)}"


def require_known(word: object, known: Iterable[str], what: str) -> None:
    """Refuse a word that is not known, with the nearest one."""
    names = list(known)
    if word not in names:
        raise KnowledgeError(f"{what} '{word}' is unknown; {hint(str(word), names)}")


def require_mapping(value: object, where: str) -> dict[str, Any]:
    """The value, if it is a mapping."""
    if not isinstance(value, dict):
        raise KnowledgeError(f"{where}: expected keys with values below them, got {type(value).__name__}")
    return value


def require_words(value: object, where: str) -> list[str]:
    """The value, if it is a list of texts, none of them empty."""
    if not isinstance(value, list):
        raise KnowledgeError(f"{where}: expected a list, got {type(value).__name__}; begin each line with '- '")
    for n, word in enumerate(value, 1):
        if not isinstance(word, str) or not word.strip():
            raise KnowledgeError(
                f"{where}: entry {n}: expected text, got {type(word).__name__}; quote no, on and numbers"
            )
    return value
