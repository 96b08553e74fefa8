"""The archive: a folder of searchable images. SQLite is the truth, the vector index a cache. Names load lazily."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvlp.archive.adding import AddReport, Progress, Skipped
    from kvlp.archive.archive import Archive
    from kvlp.archive.checking import Problem, RepairReport, VerifyReport
    from kvlp.archive.searching import Hit

_WHERE = {
    "AddReport": "adding",
    "Archive": "archive",
    "Hit": "searching",
    "Problem": "checking",
    "Progress": "adding",
    "RepairReport": "checking",
    "Skipped": "adding",
    "VerifyReport": "checking",
}

__all__ = ["AddReport", "Archive", "Hit", "Problem", "Progress", "RepairReport", "Skipped", "VerifyReport"]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'kvlp.archive' has no attribute {name!r}")
    value = getattr(import_module(f"kvlp.archive.{_WHERE[name]}"), name)
    globals()[name] = value
    return value
