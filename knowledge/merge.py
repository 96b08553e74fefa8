"""Several graphs as one: concepts that share an id are one concept, and it stays known where each part came from.

Two concepts of different graphs are one if they share a UMLS id (or an id of another vocabulary in `on`) or have the
same own id. What a graph tells apart stays apart: if a third graph's concept has the ids of both, it joins the one that
it fits best, and that is reported. Which ones those are does not depend on the order of the graphs; the order tells
whose id, name and definition come first, and whose is_a counts where two graphs contradict each other.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kvlp.errors import KnowledgeError
from kvlp.knowledge.graph import KnowledgeGraph, Relation
from kvlp.knowledge.provenance import Origin, Teller, united, write_origins
from kvlp.knowledge.same import Member, clusters
from kvlp.knowledge.sources.report import SourceReport
from kvlp.typing import PathLike

__all__ = ["Merged", "merge"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Merged:
    """A merged graph, where its parts came from, and what could not be settled.

    A relation's origin is its own `source`, which names all graphs that state it.
    """

    graph: KnowledgeGraph
    origins: tuple[Origin, ...]
    report: SourceReport

    def save(self, folder: PathLike) -> Path:
        """Save the graph with provenance.csv beside it; return the folder."""
        saved = self.graph.save(folder)
        write_origins(saved, self.origins)
        return saved


def merge(
    graphs: Sequence[KnowledgeGraph],
    *,
    name: str = "",
    on: Collection[str] = ("UMLS",),
    before: Mapping[str, Sequence[Origin]] | None = None,
    report: SourceReport | None = None,
) -> Merged:
    """Unite graphs.

    Args:
        graphs: in the order in which they are trusted.
        name: the merged graph's name; default: theirs, joined by "+".
        on: vocabularies whose ids make two concepts one: "UMLS", "MESH", ... Ids of coarse ones (ICD) unite too much.
        before: name of a graph that was merged itself -> its origins (`read_origins`), which are then handed on.
        report: collects conflicts, renamed ids and is_a relations left out; without one they are logged.

    Raises:
        KnowledgeError: no graph, or two of the same name.
    """
    names = [graph.name for graph in graphs]
    if not graphs or len(set(names)) < len(names):
        twice = next((n for n in names if names.count(n) > 1), "")
        raise KnowledgeError(
            f"two graphs are called '{twice}'; rename one (--name)"
            if twice
            else "no graph given; expected at least one"
        )
    found = SourceReport() if report is None else report
    parts_of = clusters(graphs, on, found)
    ids = _ids(parts_of, names, found)
    new = {(number, c.id): key for key, members in zip(ids, parts_of, strict=True) for number, c in members}
    concepts, origins, tell = [], [], Teller(names, before or {})
    for key, members in zip(ids, parts_of, strict=True):
        concept, parts = united(key, members, tell)
        concepts.append(concept)
        origins += parts
    relations = _without_circles(list(_relations(graphs, new, found)), found)
    if report is None:
        found.log(_LOG)
    merged = KnowledgeGraph(
        concepts,
        relations,
        name=name or "+".join(names),
        version="; ".join(f"{g.name} {g.version}".strip() for g in graphs),
        licence="; ".join(dict.fromkeys(f"{g.name}: {g.licence}" for g in graphs if g.licence)),
    )
    merged.build_report.update(found.counts())
    return Merged(merged, tuple(origins), found)


# ---- what the united concept says ------------------------------------------------------------------------------------


def _ids(parts_of: Sequence[Sequence[Member]], names: Sequence[str], report: SourceReport) -> list[str]:
    taken: set[str] = set()
    ids = []
    for members in parts_of:
        number, first = members[0]
        key = first.id
        while key in taken:
            key = f"{names[number]}/{key}"
        if key != first.id:
            report.add("renamed", f"{first.id} of {names[number]} is {key}")
        taken.add(key)
        ids.append(key)
    return ids


def _relations(
    graphs: Sequence[KnowledgeGraph], new: dict[tuple[int, str], str], report: SourceReport
) -> Iterator[Relation]:
    """Relations between united concepts, once each, with all their sources; the order is that of the graphs."""
    stated: dict[tuple[str, str, str], dict[str, None]] = {}
    for number, graph in enumerate(graphs):
        for r in graph.relations:
            head, tail = new.get((number, r.head)), new.get((number, r.tail))
            if head is None or tail is None:
                report.add("dangling", f"{r.head} {r.type} {r.tail}")
            elif head == tail:
                report.add("self_loop", f"{r.head} {r.type} {r.tail}")
            else:
                stated.setdefault((head, r.type, tail), {})[r.source or graph.name] = None
    for (head, kind, tail), sources in stated.items():
        yield Relation(head, kind, tail, "; ".join(sources))


# ---- circles ---------------------------------------------------------------------------------------------------------


def _without_circles(relations: list[Relation], report: SourceReport) -> list[Relation]:
    """Leave out each is_a that closes a circle with those before it: the less trusted graph's."""
    import networkx as nx

    hierarchy = nx.DiGraph((r.head, r.tail) for r in relations if r.type == "is_a")
    circle = {i: n for n, part in enumerate(nx.strongly_connected_components(hierarchy)) for i in part if len(part) > 1}
    above: dict[str, list[str]] = {}
    kept = []
    for r in relations:
        if r.type == "is_a" and r.head in circle and circle[r.head] == circle.get(r.tail):
            way = _way(above, r.tail, r.head)
            if way:
                report.add("cycle", f"{' is_a '.join([r.head, *way])} (left out: {r.head} is_a {r.tail}, {r.source})")
                continue
            above.setdefault(r.head, []).append(r.tail)
        kept.append(r)
    return kept


def _way(above: dict[str, list[str]], start: str, end: str) -> list[str]:
    """The ids from `start` up to `end`, both included; empty if there is no way."""
    came = {start: ""}
    todo = [start]
    while todo:
        here = todo.pop(0)
        if here == end:
            path = [here]
            while came[path[-1]]:
                path.append(came[path[-1]])
            return path[::-1]
        for parent in above.get(here, ()):
            if parent not in came:
                came[parent] = here
                todo.append(parent)
    return []
