"""Other processes, started so that they load this package and nothing of the caller's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

__all__ = ["no_main_module"]


@contextmanager
def no_main_module() -> Iterator[None]:
    """Keep processes that are spawned meanwhile from running the caller's script again.

    It may have no main guard, so that they would start processes in their turn, or no file at all.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
