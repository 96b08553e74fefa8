"""Triples that a manifest tells of its reports itself, in a column: they stand in for those that the linker finds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from kvlp.errors import DataError
from kvlp.knowledge.names import Names
from kvlp.training.facts import Fact

if TYPE_CHECKING:
    from kvlp.datasets.manifest import Record
    from kvlp.knowledge.graph import KnowledgeGraph

__all__ = ["read_triples"]

_FORM = "expected 'head | relation | tail', several with ';' between"


def read_triples(records: Iterable[Record], column: str, graph: KnowledgeGraph) -> tuple[tuple[Fact, ...], ...]:
    """The triples of each row: "pleural effusion | located in | pleural space; effusion | side | left".

    Heads and tails that are names, synonyms or ids of the graph's concepts become these concepts; others stay words. An
    empty cell is a report without triples.

    Args:
        records: N rows.
        column: of the manifest.
        graph: that knows names.

    Returns:
        N rows of triples, in the order told, none twice in a row.

    Raises:
        DataError: no row has such a column, or a cell is not of that form; its row is named, what stands in it is not.
    """
    rows, names = list(records), Names(graph)
    if not any(column in record.extra for record in rows):
        raise DataError(f"report_decoder.triples: no row of the manifest has a column {column!r}; name one that it has")
    found = []
    for number, record in enumerate(rows, 1):
        where = f"training row {number}, column {column!r}"
        told = [part for part in record.extra.get(column, "").split(";") if part.strip()]
        found.append(tuple(dict.fromkeys(_fact(part, names, where) for part in told)))
    return tuple(found)


def _fact(text: str, names: Names, where: str) -> Fact:
    parts = [" ".join(part.split()) for part in text.split("|")]
    if len(parts) != 3 or not all(parts):
        raise DataError(f"{where}: {_FORM}; got a triple of {sum(map(bool, parts))} parts")
    head, relation, tail = parts
    return Fact(_concept(head, names), relation.replace(" ", "_"), _concept(tail, names))


def _concept(name: str, names: Names) -> str:
    return names(name) if names.in_graph(name) else name
