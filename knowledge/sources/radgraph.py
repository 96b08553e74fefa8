"""Reports annotated by RadGraph: as mentions with spans and assertions, and as a graph of what they say.

See radgraph_json.py for the files.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from kvlp.errors import KnowledgeError
from kvlp.knowledge.graph import Concept, KnowledgeGraph, Relation
from kvlp.knowledge.linking.normalise import variants
from kvlp.knowledge.sources.radgraph_json import Entity, read_entities
from kvlp.knowledge.sources.report import SourceReport
from kvlp.typing import PathLike

__all__ = ["Entity", "radgraph_graph", "read_radgraph"]

_LOG = logging.getLogger(__name__)


def read_radgraph(
    path: PathLike,
    graph: KnowledgeGraph | None = None,
    *,
    labeler: str = "labeler_1",
    report: SourceReport | None = None,
) -> dict[str, list[Entity]]:
    """Read annotated reports: report id -> its entities, in the order of the text.

    Args:
        path: a JSON file, plain or gzip.
        graph: entities get the concept of this graph that has their surface, alone or together with the words of
            entities that they are related to and that stand beside them ("pleural" + "effusion").
        labeler: whose annotation to take where a report has several.
        report: collects what does not fit; without one it is logged.

    Raises:
        KnowledgeError: not JSON, not such a mapping, an unknown label, or nowhere the words that the offsets say.
    """
    found = SourceReport() if report is None else report
    surfaces = _surfaces(graph) if graph is not None else {}
    read: dict[str, list[Entity]] = {}
    for key, text, entities in read_entities(Path(path), labeler, found):
        read[key] = _linked(text, entities, surfaces)
    if found.count("misplaced") and not any(read.values()):
        raise KnowledgeError(f"{path}: no entity stands where its offsets say; is 'text' the text that was annotated?")
    if report is None:
        found.log(_LOG)
    return read


# ---- linking to a graph ----------------------------------------------------------------------------------------------


def _surfaces(graph: KnowledgeGraph) -> dict[str, str]:
    """Every form of a surface -> concept id; a name comes before a synonym, a surface before an inflected form."""
    found: dict[str, str] = {}
    forms = [(c.id, rank, variants(s)) for c in graph.concepts for rank, s in enumerate(c.surfaces)]
    for wanted in (lambda rank, n: rank == 0 and n == 0, lambda rank, n: n == 0, lambda rank, n: True):
        for concept, rank, many in forms:
            for n, form in enumerate(many):
                if wanted(rank, n):
                    found.setdefault(form, concept)
    return found


def _linked(text: str, entities: list[Entity], surfaces: Mapping[str, str]) -> list[Entity]:
    if not surfaces:
        return entities
    related: dict[str, set[str]] = {e.key: set() for e in entities}
    for entity in entities:
        for _, other in entity.relations:
            if other in related:
                related[entity.key].add(other)
                related[other].add(entity.key)
    return [_with_concept(text, entities, at, related, surfaces) for at in range(len(entities))]


def _with_concept(
    text: str, entities: list[Entity], at: int, related: Mapping[str, set[str]], surfaces: Mapping[str, str]
) -> Entity:
    """The longest stretch of related neighbours around a finding that is a surface; else the entity's own words."""
    entity = entities[at]
    low = high = at
    findings = {e.key for e in entities if e.kind == "finding"}
    modifies = any(kind == "modify" and other in findings for kind, other in entity.relations)
    if entity.kind == "finding" and not modifies:
        low, high = _reach(text, entities, at, related, -1), _reach(text, entities, at, related, 1)
    stretches = [(i, j) for i in range(low, at + 1) for j in range(at, high + 1)]
    for i, j in sorted(stretches, key=lambda s: (s[0] - s[1], s)):
        form = variants(text[entities[i].start : entities[j].end])[:1]
        concept = surfaces.get(form[0]) if form else None
        if concept is not None:
            return replace(entity, concept=concept)
    return entity


def _reach(text: str, entities: list[Entity], at: int, related: Mapping[str, set[str]], step: int) -> int:
    """How far entities stand word beside word, each related to the one before or to the first."""
    here = at
    while 0 <= here + step < len(entities):
        before, after = sorted((here, here + step))
        gap = text[entities[before].end : entities[after].start]
        key = entities[here + step].key
        if gap.strip() or not (key in related[entities[here].key] or key in related[entities[at].key]):
            break
        here += step
    return here


# ---- as a graph ------------------------------------------------------------------------------------------------------


def radgraph_graph(
    files: Sequence[Path],
    *,
    graph: KnowledgeGraph | None = None,
    name: str = "",
    min_reports: int = 1,
    report: SourceReport | None = None,
) -> KnowledgeGraph:
    """Make a graph of annotated reports: entities are concepts, their relations statements with counts.

    A relation's `source` is "NAME (N)", N the number of reports that state it. Entities that `graph` knows are its
    concepts, with its names and ids, so that the result can be merged with it; others are named by their words in
    lower case. `min_reports` keeps out what few reports say, which might tell of a patient.

    Raises:
        KnowledgeError: as `read_radgraph`.
    """
    if not files:
        raise KnowledgeError("no RadGraph file given; expected at least one JSON file")
    found = SourceReport() if report is None else report
    title = name or files[0].name.split(".")[0]
    said: Counter[tuple[str, str, str]] = Counter()
    held: Counter[str] = Counter()
    kinds: dict[str, Counter[str]] = {}
    for path in files:
        for entities in read_radgraph(path, graph, report=found).values():
            ids = {e.key: _node(e) for e in entities}
            held.update(set(ids.values()))
            for entity in entities:
                kinds.setdefault(ids[entity.key], Counter())[entity.kind] += 1
            said.update(_statements(entities, ids))
    kept = {key for key, n in held.items() if n >= min_reports}
    for _ in range(len(held) - len(kept)):
        found.add("rare", "(not shown)")
    concepts = [_node_concept(key, kinds[key], graph) for key in sorted(kept)]
    relations = [
        Relation(h, kind, t, f"{title} ({n})")
        for (h, kind, t), n in sorted(said.items())
        if h in kept and t in kept and h != t
    ]
    if report is None:
        found.log(_LOG)
    built = KnowledgeGraph(concepts, relations, name=title, licence="words of reports: as the reports' licence says")
    built.build_report.update(found.counts())
    return built


def _statements(entities: Sequence[Entity], ids: Mapping[str, str]) -> set[tuple[str, str, str]]:
    return {(ids[e.key], kind, ids[o]) for e in entities for kind, o in e.relations if o in ids}


def _node(entity: Entity) -> str:
    return entity.concept or " ".join(entity.surface.lower().split())


def _node_concept(key: str, kinds: Counter[str], graph: KnowledgeGraph | None) -> Concept:
    if graph is not None and key in graph:
        return graph[key]
    return Concept(key, key, semantic_types=tuple(kind for kind, _ in sorted(kinds.items(), key=lambda k: (-k[1], k))))
