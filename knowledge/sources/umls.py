"""UMLS release tables (Rich Release Format) into a graph: names, definitions, semantic types and relations.

UMLS content is never part of kvlp: a user brings their own licensed release, and the graph says so in its licence.
The tables are read in batches and stay in columns, so that a whole release fits into a few gigabytes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kvlp.errors import KnowledgeError
from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.knowledge.sources.umls_concepts import read_concepts
from kvlp.knowledge.sources.umls_relations import read_relations
from kvlp.knowledge.sources.umls_rows import LICENCE, Report, Selection

if TYPE_CHECKING:
    from kvlp.typing import PathLike

__all__ = ["read_umls"]

_LOG = logging.getLogger(__name__)
#: seconds between two counts of rows
_PAUSE = 2.0


def read_umls(
    folder: Path,
    *,
    languages: Sequence[str] | None = ("ENG",),
    vocabularies: Collection[str] | None = None,
    semantic_types: Collection[str] | None = None,
    relations: Collection[str] | None = None,
    suppressed: bool = False,
    out: PathLike | None = None,
    progress: Callable[[str], None] | None = None,
) -> KnowledgeGraph:
    """Read a folder of RRF tables into a graph whose concept ids are CUIs, in their order.

    A concept's name is that of the first of `languages` that has one, by UMLS's own order: preferred term (TS=P),
    preferred form (STT=PF), preferred atom (ISPREF=Y), then MRRANK.RRF if it is there, then the order of the file. Its
    synonyms are its other names, those that differ by case, hyphens and accents only taken once.

    A row of MRREL says that concept 2 has the relation to concept 1: RELA is the type; isa, inverse_isa, and CHD and
    PAR without RELA become is_a, once for each source. Rows without RELA else say nothing typed and are left out, as
    are siblings and the like. is_a must not go in circles: where sources state both A is_a B and B is_a A, both are
    left out, and then what still lies on a circle. All that is left out is counted by reason, with examples, in the
    graph's `build_report`; dangling CUIs, loops and circles are told in the log too.

    Args:
        folder: holds MRCONSO.RRF, and MRREL.RRF, MRSTY.RRF, MRDEF.RRF and MRRANK.RRF where they are wanted.
        languages: LAT codes of names, in order of preference; None for all.
        vocabularies: SAB codes of names, definitions and relations; None for all.
        semantic_types: keep concepts of these types (names or TUIs); None for all.
        relations: keep relations of these types ("is_a", "finding_site_of"); None for all.
        suppressed: keep rows that are obsolete or suppressible (SUPPRESS O, E, Y).
        out: write the graph into this folder, and return it opened from there.
        progress: receives a line now and then.

    Raises:
        KnowledgeError: MRCONSO.RRF is missing, a table is damaged (names the line), or a filter fits nothing.
    """
    from kvlp.knowledge.graph_io import load_folder, write_folder
    from kvlp.knowledge.table_store import TableStore
    from kvlp.knowledge.tables import with_indexes

    if not (folder / "MRCONSO.RRF").is_file():
        raise KnowledgeError(f"{folder}: expected a UMLS folder with MRCONSO.RRF; got none")
    wanted = Selection.of(languages, vocabularies, semantic_types, relations, suppressed=suppressed)
    say, report = _calm(progress), Report()
    found = read_concepts(folder, wanted, report, say)
    links = read_relations(folder, wanted, found.cuis, report, say)
    for line in report.warnings():
        _LOG.warning(line)
    tables = with_indexes(found.table, links, lambda what: say(f"indexed {what}"))
    del found, links
    graph = KnowledgeGraph.of_store(
        TableStore(tables), name=folder.name, licence=LICENCE, build_report=report.as_json(wanted)
    )
    if out is None:
        return graph
    write_folder(graph, tables, Path(out))
    say("written")
    return load_folder(Path(out))


def _calm(progress: Callable[[str], None] | None) -> Callable[[str], None]:
    """Let the count of rows pass every few seconds only, and every other line."""
    last = -_PAUSE

    def say(line: str) -> None:
        nonlocal last
        if progress is None or (line.endswith(" rows") and time.monotonic() - last < _PAUSE):
            return
        last = time.monotonic()
        progress(line)

    return say
