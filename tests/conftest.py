"""What every test has: no network, one thread a worker, and the way to real data where there is any."""

from __future__ import annotations

import gc
import os

# Before torch or NumPy are imported: two workers share two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

try:
    from hypothesis import settings
except ImportError:
    pass
else:
    settings.register_profile("kvlp", deadline=None, max_examples=50, derandomize=True, database=None)
    settings.load_profile("kvlp")


def pytest_collection_finish() -> None:
    """What was imported and collected stays: let the garbage collector not look through it again, time after time."""
    gc.collect()
    gc.freeze()


class NetworkBlockedError(RuntimeError):
    """A test tried to reach the network."""


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Any:
    """Refuse connections and name look-ups; local (AF_UNIX) sockets stay open for worker processes."""
    patch = pytest.MonkeyPatch()

    def guarded(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: socket.socket, *args: Any) -> Any:
            if self.family != socket.AF_UNIX:
                raise NetworkBlockedError(f"a test used socket.{method.__name__}; tests run without a network")
            return method(self, *args)

        return call

    def refused(*args: Any, **kwargs: Any) -> Any:
        raise NetworkBlockedError("a test looked a host name up; tests run without a network")

    for name in ("connect", "connect_ex", "bind", "sendto"):
        patch.setattr(socket.socket, name, guarded(getattr(socket.socket, name)))
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        patch.setattr(socket, name, refused)
    yield
    patch.undo()


@pytest.fixture(scope="session", autouse=True)
def _one_lexicon_of_the_bundled_graph() -> Any:
    """Some hundred linkers of the bundled graph would each make the same words again: make them once a worker."""
    from kvlp.knowledge.graph import KnowledgeGraph
    from kvlp.knowledge.linking import linker

    make, bundled = linker.lexicon_of, KnowledgeGraph.load("chest").content_hash
    made: dict[Any, Any] = {}

    def kept(graph: Any, types: Any = None, *, attributes: bool = True) -> Any:
        if graph.content_hash != bundled:
            return make(graph, types, attributes=attributes)
        key = (None if types is None else frozenset(types), attributes)
        if key not in made:
            made[key] = make(graph, types, attributes=attributes)
        return made[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linker, "lexicon_of", kept)
        yield


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def kvlp_data() -> Path:
    """The folder of real data: KVLP_DATA, else ../shared/data beside the repository; skips where there is none."""
    folder = Path(os.environ.get("KVLP_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("no real data: set KVLP_DATA to its folder")
    return folder
