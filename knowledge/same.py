"""Which concepts of several graphs are one: those that share an id, as far as no graph tells them apart."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from kvlp.knowledge.graph import Concept, KnowledgeGraph
from kvlp.knowledge.sources.report import SourceReport
from kvlp.knowledge.sources.xrefs import is_cui
from kvlp.knowledge.surfaces import fold

__all__ = ["Member", "clusters"]

#: a member of a cluster: the number of its graph, and the concept
Member = tuple[int, Concept]


def clusters(graphs: Sequence[KnowledgeGraph], on: Collection[str], report: SourceReport) -> list[list[Member]]:
    """Return the members of each united concept, in the order of the graphs; no two are of the same graph.

    Args:
        graphs: their order does not change which concepts are one.
        on: vocabularies whose ids count ("UMLS"); the ids that the graphs' concepts themselves have always count.
        report: gets the pairs that stay apart because one graph has both.
    """
    members: list[Member] = [(number, c) for number, graph in enumerate(graphs) for c in graph.concepts]
    cluster = list(range(len(members)))
    inside: list[list[int]] = [[at] for at in range(len(members))]
    for a, b in _links(members, on):
        one, other = sorted((cluster[a], cluster[b]))
        if one == other:
            continue
        held = {members[at][0] for at in inside[one]}
        twice = [at for at in inside[other] if members[at][0] in held]
        if twice:
            report.add("conflict", f"{members[a][1].id} and {members[b][1].id}")
            continue
        for at in inside[other]:
            cluster[at] = one
        inside[one] += inside[other]
        inside[other] = []
    return [[members[at] for at in sorted(part)] for part in inside if part]


def _links(members: Sequence[Member], on: Collection[str]) -> list[tuple[int, int]]:
    """Pairs that share an id, best first: the same own id, the same name, a common surface, more common ids."""
    vocabularies = {v.upper() for v in on}
    owned = {c.id.upper() for _, c in members if ":" in c.id}
    holders: dict[str, list[int]] = {}
    for at, (_, concept) in enumerate(members):
        for key in _keys(concept, vocabularies, owned):
            holders.setdefault(key, []).append(at)
    shared: dict[tuple[int, int], int] = {}
    for held in holders.values():
        for n, a in enumerate(held):
            for b in held[n + 1 :]:
                if members[a][0] != members[b][0]:
                    shared[a, b] = shared.get((a, b), 0) + 1
    return sorted(shared, key=lambda pair: _fit(members[pair[0]][1], members[pair[1]][1], shared[pair]))


def _keys(concept: Concept, on: Collection[str], owned: Collection[str]) -> set[str]:
    """The ids by which a concept may be found in another graph."""
    if ":" in concept.id:
        own = concept.id.upper()
    elif is_cui(concept.id):
        own = f"UMLS:{concept.id}"
    else:  # an id such as "7" or "effusion" is the same only if the names say so
        own = f"{concept.id}\n{fold(concept.name)}"
    ids = (i.upper() for i in concept.source_ids)
    return {own, *(i for i in ids if i in owned or i.partition(":")[0] in on)}


def _fit(a: Concept, b: Concept, shared: int) -> tuple[int, int, tuple[str, ...]]:
    surfaces = {fold(s) for s in a.surfaces}, {fold(s) for s in b.surfaces}
    if a.id == b.id:
        rank = 0
    elif fold(a.name) == fold(b.name):
        rank = 1
    else:
        rank = 2 if surfaces[0] & surfaces[1] else 3
    return rank, -shared, tuple(sorted((a.id, b.id)))
