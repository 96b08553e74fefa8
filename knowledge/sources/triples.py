"""A user's own tables: triples, and if there are some, names and definitions (CSV or TSV, plain or gzip).

triples      head, relation, tail, source      (source is optional; also subject/predicate/object, h/r/t)
names        id, name, synonyms, types, source_ids     (all but id and name optional; lists are separated by ";")
definitions  id, definition                    (the first definition of an id counts)

"is a", "isa", "is-a" and "subclass of" are the relation is_a; other relations stay as they are written.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from kvlp.errors import KnowledgeError
from kvlp.knowledge.graph import Concept, KnowledgeGraph, Relation
from kvlp.knowledge.sources.report import SourceReport
from kvlp.knowledge.sources.tables import Columns, read_rows, split_list
from kvlp.knowledge.sources.xrefs import is_cui
from kvlp.knowledge.surfaces import fold, near
from kvlp.typing import PathLike

__all__ = ["read_triples"]

_LOG = logging.getLogger(__name__)
_TRIPLES = Columns(
    ("head", "relation", "tail"),
    ("source",),
    {"subject": "head", "h": "head", "type": "relation", "predicate": "relation", "r": "relation",
     "rel": "relation", "object": "tail", "t": "tail"},
)  # fmt: skip
_NAMES = Columns(
    ("id", "name"),
    ("synonyms", "types", "source_ids"),
    {"concept": "id", "cui": "id", "label": "name", "synonym": "synonyms", "type": "types"},
)
_DEFINITIONS = Columns(("id", "definition"), (), {"concept": "id", "cui": "id", "def": "definition"})
_IS_A = frozenset({"is a", "isa", "subclass of", "subclassof"})


@dataclass(frozen=True, slots=True)
class _Named:
    name: str
    synonyms: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    source_ids: tuple[str, ...] = ()


def read_triples(
    files: Sequence[Path],
    *,
    names: PathLike | None = None,
    definitions: PathLike | None = None,
    name: str = "",
    report: SourceReport | None = None,
) -> KnowledgeGraph:
    """Read tables of triples into one graph.

    Without `names` each end of a triple is a concept named as it stands; with it every end must be in it. An id that
    has the form of a UMLS id is also taken as one.

    Args:
        files: tables of head, relation, tail.
        names: table of id and name; its concepts are in the graph even if no triple has them.
        definitions: table of id and definition.
        name: the graph's name; default: that of the first file.
        report: collects triples of a concept with itself; without one they are logged.

    Raises:
        KnowledgeError: a table is missing, damaged or has other columns, an end has no name, an id two names, a
            definition no concept, or is_a closes a circle. Names the file and the line.
    """
    if not files:
        raise KnowledgeError("no table of triples given; expected at least one file with head, relation and tail")
    found = SourceReport() if report is None else report
    named = _names(Path(names)) if names is not None else {}
    relations: dict[tuple[str, str, str], Relation] = {}
    for path in files:
        for number, row in read_rows(path, _TRIPLES, "a table of triples"):
            for end in (row["head"], row["tail"]):
                if names is None:
                    named.setdefault(end, _Named(end))
                _require_known(end, named, f"{path} line {number}", f"in {names}")
            _add(relations, row, path, found)
    said = _definitions(Path(definitions), named) if definitions is not None else {}
    concepts = [_concept(key, entry, said.get(key, "")) for key, entry in named.items()]
    graph = KnowledgeGraph(concepts, relations.values(), name=name or files[0].name.split(".")[0], licence="the user's")
    graph.build_report.update(found.counts())
    if report is None:
        found.log(_LOG)
    from kvlp.knowledge.validate import require_sound

    require_sound(graph, str(files[0]))
    return graph


def _add(
    relations: dict[tuple[str, str, str], Relation], row: dict[str, str], path: Path, report: SourceReport
) -> None:
    head, kind, tail = row["head"], _relation(row["relation"]), row["tail"]
    if head == tail:
        report.add("self_loop", f"{head} {kind} {tail}")
    else:
        source = row.get("source") or path.name.split(".")[0]
        relations.setdefault((head, kind, tail), Relation(head, kind, tail, source))


def _relation(text: str) -> str:
    return "is_a" if fold(text) in _IS_A else text


def _require_known(key: str, known: Collection[str], where: str, missing: str) -> None:
    if key not in known:
        close = near(key, known, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        raise KnowledgeError(f"{where}: '{key}' is not {missing}{hint}")


def _names(path: Path) -> dict[str, _Named]:
    named: dict[str, _Named] = {}
    for number, row in read_rows(path, _NAMES, "a table of names"):
        if row["id"] in named:
            raise KnowledgeError(
                f"{path} line {number}: id '{row['id']}' is there twice; put other names in 'synonyms'"
            )
        synonyms = tuple(s for s in split_list(row.get("synonyms", "")) if s != row["name"])
        types, ids = split_list(row.get("types", "")), split_list(row.get("source_ids", ""))
        named[row["id"]] = _Named(row["name"], synonyms, types, ids)
    return named


def _definitions(path: Path, named: Collection[str]) -> dict[str, str]:
    said: dict[str, str] = {}
    for number, row in read_rows(path, _DEFINITIONS, "a table of definitions"):
        _require_known(row["id"], named, f"{path} line {number}", "in the names or triples")
        said.setdefault(row["id"], row["definition"])
    return said


def _concept(key: str, entry: _Named, definition: str) -> Concept:
    ids = dict.fromkeys([*([f"UMLS:{key}"] if is_cui(key) else []), *entry.source_ids])
    return Concept(key, entry.name, entry.synonyms, definition, (), entry.types, tuple(ids))
