"""A linker that is kept in a file for its graph: read from there if it fits, else made and written there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from kvlp.errors import KnowledgeError
from kvlp.knowledge.linking.lexicon import LinkerOptions
from kvlp.knowledge.linking.linker import EntityLinker
from kvlp.typing import PathLike

if TYPE_CHECKING:
    from kvlp.knowledge.graph import KnowledgeGraph

__all__ = ["kept_linker"]


def kept_linker(
    path: PathLike, graph: KnowledgeGraph, options: LinkerOptions, say: Callable[[str], None] = lambda line: None
) -> EntityLinker:
    """Return the linker of a graph, from its file where that fits graph, options and version.

    Args:
        path: the file; it need not exist.
        graph: the graph.
        options: how the linker is to read.
        say: receives one line where a file that is there did not fit.

    Raises:
        KnowledgeError: the file cannot be written.
    """
    file = Path(path)
    if file.exists():
        try:
            linker = EntityLinker.load(file, graph)
        except KnowledgeError as error:
            say(f"{str(error).partition(';')[0]}; made anew")
        else:
            if linker.options == options:
                return linker
            say(f"{file}: saved with other options; made anew")
    linker = EntityLinker(graph, **options._asdict())
    linker.save(file)
    return linker
