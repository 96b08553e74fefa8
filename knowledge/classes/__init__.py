"""Class lists as data files: which concepts a data set's class means. `load_classes("nih14")`, or your own file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from kvlp.errors import KnowledgeError
from kvlp.knowledge.surfaces import near
from kvlp.typing import PathLike

__all__ = ["ClassList", "class_lists", "load_classes"]

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class ClassList:
    """Classes of a data set and what they mean in a graph.

    Attributes:
        name: "nih14".
        concepts: class -> ids, source ids or names of concepts; present if one is, absent if the first is denied.
        zero: what a 0 means in this list, in words.
    """

    name: str
    concepts: Mapping[str, tuple[str, ...]]
    zero: str = ""


def class_lists() -> list[str]:
    """Names of the bundled lists."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


@cache
def load_classes(name_or_path: PathLike) -> ClassList:
    """Read a class list: a bundled one by name ("chexpert14", "nih14"), or a YAML file of the same form.

    Raises:
        KnowledgeError: no such list, or a file of another form; the message names it.
    """
    path = _FOLDER / f"{name_or_path}.yaml"
    if str(name_or_path) not in class_lists():
        path = Path(name_or_path)
    if not path.is_file():
        close = near(str(name_or_path), class_lists(), n=1) or class_lists()
        raise KnowledgeError(
            f"no class list '{name_or_path}': expected a YAML file or one of {', '.join(class_lists())};"
            f" the nearest is '{close[0]}'"
        )
    try:
        data = yaml.safe_load(path.read_bytes().decode("utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise KnowledgeError(f"{path}: not readable as YAML in UTF-8 ({type(error).__name__})") from None
    return _class_list(data, path)


def _class_list(data: Any, path: Path) -> ClassList:
    rows = data.get("classes") if isinstance(data, dict) else None
    if not isinstance(rows, list) or not rows or not set(data) <= {"name", "zero", "classes"}:
        raise KnowledgeError(f"{path}: expected the keys name, zero and classes, a list of {{name, concepts}}")
    concepts: dict[str, tuple[str, ...]] = {}
    for number, row in enumerate(rows, 1):
        names = row.get("concepts") if isinstance(row, dict) and set(row) == {"name", "concepts"} else None
        if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
            raise KnowledgeError(f"{path}: class {number}: expected {{name: NAME, concepts: [WORDS, ...]}}")
        if str(row["name"]) in concepts:
            raise KnowledgeError(f"{path}: class {number}: the name '{row['name']}' is used twice")
        concepts[str(row["name"])] = tuple(names)
    return ClassList(str(data.get("name", path.stem)), concepts, str(data.get("zero", "")))
