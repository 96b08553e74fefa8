"""KnowledgeGraph: concepts with names, synonyms, definitions and descriptions, and typed relations between them.

The bundled graph is `KnowledgeGraph.load("chest")`. On disk a graph is a folder of Arrow tables (see graph_io.py)
or a folder of CSV files that a person can edit (see sources/csv_folder.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kvlp.errors import KnowledgeError
from kvlp.knowledge.surfaces import fold, near
from kvlp.typing import PathLike

if TYPE_CHECKING:
    import networkx as nx

    from kvlp.knowledge.validate import Problem

__all__ = ["NUMBERS", "Concept", "KnowledgeGraph", "Relation"]

#: grammar of a concept's name: "a nodule" (count), "edema" (mass), "low lung volumes" (plural)
NUMBERS = ("count", "mass", "plural")
_BUNDLED = ("chest",)
_CHEST_FOLDER = Path(__file__).parent / "chest"

Direction = Literal["out", "in", "both"]


@dataclass(frozen=True, slots=True)
class Concept:
    """One thing that a report may speak of.

    Attributes:
        id: the graph's own id, a readable slug in the bundled graph ("pleural_effusion").
        name: the preferred name, in the grammatical number that `number` states.
        synonyms: other surfaces, as radiologists write them; never the name itself.
        definition: one or two sentences.
        descriptions: noun phrases that tell how it looks without its name, a synonym or a descendant's name.
        semantic_types: finding, disease, anatomy, device, descriptor, normal ... ; the first is the main one.
        source_ids: ids elsewhere ("UMLS:C0032227", "HP:0002202").
        number: "count", "mass" or "plural": the grammar of `name`.
    """

    id: str
    name: str
    synonyms: tuple[str, ...] = ()
    definition: str = ""
    descriptions: tuple[str, ...] = ()
    semantic_types: tuple[str, ...] = ()
    source_ids: tuple[str, ...] = ()
    number: str = "count"

    @property
    def surfaces(self) -> tuple[str, ...]:
        """The name, then the synonyms."""
        return (self.name, *self.synonyms)


@dataclass(frozen=True, slots=True)
class Relation:
    """A typed, directed statement: `head` `type` `tail`, for example pneumonia may_cause pleural_effusion."""

    head: str
    type: str
    tail: str
    source: str = ""


@dataclass(slots=True)
class _Links:
    """Relations by their ends."""

    out: dict[str, list[Relation]] = field(default_factory=dict)
    into: dict[str, list[Relation]] = field(default_factory=dict)


class KnowledgeGraph:
    """Concepts and typed relations, immutable once built.

    Building accepts relations whose ends are not concepts and cycles, so that `validate` can name them; the loaders
    refuse both.

    Raises:
        KnowledgeError: a concept without id or name, an unknown `number`, or an id used twice.
    """

    def __init__(
        self,
        concepts: Iterable[Concept],
        relations: Iterable[Relation],
        *,
        name: str,
        version: str = "",
        licence: str = "",
    ) -> None:
        self._concepts = tuple(concepts)
        self._relations = tuple(relations)
        self.name, self.version, self.licence = name, version, licence
        self._row: dict[str, int] = {}
        for row, concept in enumerate(self._concepts):
            _require_sound(concept, row, name)
            if self._row.setdefault(concept.id, row) != row:
                raise KnowledgeError(f"graph '{name}': concept id '{concept.id}' is used twice; ids must be unique")

    # ---- reading and writing -------------------------------------------------------------------------------------

    @classmethod
    def load(cls, path_or_name: PathLike = "chest", *, check: bool = True) -> KnowledgeGraph:
        """Open a graph: "chest" (bundled), a folder written by `save`, or a folder of CSV files.

        Args:
            path_or_name: name of the bundled graph, or a folder.
            check: refuse dangling relations, is_a cycles and a content hash that does not fit the content.

        Raises:
            KnowledgeError: no such graph, or a damaged one; the message names the file and what to do.
        """
        if str(path_or_name) in _BUNDLED:
            return cls.from_csv(_CHEST_FOLDER, check=check)
        folder = Path(path_or_name)
        if not folder.exists():
            close = near(str(path_or_name), _BUNDLED, n=1) or list(_BUNDLED)
            raise KnowledgeError(
                f"no graph '{path_or_name}': expected a folder or the name of a bundled graph, such as '{close[0]}'"
            )
        if (folder / "concepts.csv").is_file() and not (folder / "concepts.arrow").exists():
            return cls.from_csv(folder, check=check)
        from kvlp.knowledge import graph_io

        return graph_io.load_folder(folder, check=check)

    def save(self, folder: PathLike) -> Path:
        """Write the graph as a folder of Arrow IPC tables and CSR arrays; return the folder."""
        from kvlp.knowledge import graph_io

        return graph_io.save_folder(self, Path(folder))

    @classmethod
    def from_csv(cls, folder: PathLike, *, check: bool = True) -> KnowledgeGraph:
        """Read a folder with concepts.csv and relations.csv (see sources/csv_folder.py for the columns)."""
        from kvlp.knowledge.sources import csv_folder

        return csv_folder.read_folder(Path(folder), check=check)

    @classmethod
    def from_obo(
        cls,
        *files: PathLike,
        name: str = "",
        synonym_scopes: Collection[str] = ("EXACT",),
        vocabularies: Collection[str] = ("UMLS",),
        xrefs: PathLike | None = None,
    ) -> KnowledgeGraph:
        """Read OBO ontology files (.obo or .obo.gz); needs the extra `knowledge`. See `sources.obo.read_obo`."""
        from kvlp.knowledge.sources import obo

        table = None if xrefs is None else Path(xrefs)
        return obo.read_obo(
            [Path(f) for f in files],
            name=name,
            synonym_scopes=synonym_scopes,
            vocabularies=vocabularies,
            xrefs=table,
        )

    @classmethod
    def from_triples(
        cls, *files: PathLike, names: PathLike | None = None, definitions: PathLike | None = None, name: str = ""
    ) -> KnowledgeGraph:
        """Read tables of head, relation, tail (CSV, TSV), with names and definitions. See `sources.triples`."""
        from kvlp.knowledge.sources import triples

        return triples.read_triples([Path(f) for f in files], names=names, definitions=definitions, name=name)

    @classmethod
    def from_radgraph(
        cls, *files: PathLike, graph: KnowledgeGraph | None = None, name: str = "", min_reports: int = 1
    ) -> KnowledgeGraph:
        """Make a graph of what reports annotated by RadGraph (JSON) say. See `sources.radgraph.radgraph_graph`."""
        from kvlp.knowledge.sources import radgraph

        return radgraph.radgraph_graph([Path(f) for f in files], graph=graph, name=name, min_reports=min_reports)

    @classmethod
    def merge(cls, *graphs: KnowledgeGraph, name: str = "", on: Collection[str] = ("UMLS",)) -> KnowledgeGraph:
        """Unite graphs where they share ids. See `kvlp.knowledge.merge`, which also tells where each part is from."""
        from kvlp.knowledge.merge import merge

        return merge(graphs, name=name, on=on).graph

    @classmethod
    def from_umls(cls, folder: PathLike) -> KnowledgeGraph:
        """Read UMLS tables (MRCONSO.RRF, and MRREL, MRSTY, MRDEF where they are); needs the user's own licence."""
        from kvlp.knowledge.sources import umls

        return umls.read_umls(Path(folder))

    def renamed(self, name: str) -> KnowledgeGraph:
        """Return the same graph under another name."""
        return KnowledgeGraph(self._concepts, self._relations, name=name, version=self.version, licence=self.licence)

    # ---- concepts ------------------------------------------------------------------------------------------------

    @property
    def concepts(self) -> Sequence[Concept]:
        """All concepts, in file order."""
        return self._concepts

    @property
    def relations(self) -> Sequence[Relation]:
        """All relations, in file order."""
        return self._relations

    def __len__(self) -> int:
        return len(self._concepts)

    def __iter__(self) -> Iterator[Concept]:
        return iter(self._concepts)

    def __contains__(self, concept_id: object) -> bool:
        return concept_id in self._row

    def __getitem__(self, concept_id: str) -> Concept:
        row = self._row.get(concept_id)
        if row is None:
            raise KnowledgeError(self._unknown(concept_id))
        return self._concepts[row]

    def __repr__(self) -> str:
        return f"KnowledgeGraph({self.name!r}, concepts={len(self)}, relations={len(self._relations)})"

    def concept(self, key: str) -> Concept:
        """Return the concept of an id, a source id ("C0032227", "HP:0002202") or any surface.

        Case, hyphens and accents do not count. If two concepts share a surface, one whose name it is comes first.

        Raises:
            KnowledgeError: nothing matches; the message holds near names.
        """
        if key in self._row:
            return self._concepts[self._row[key]]
        row = self._by_source_id.get(key.strip().upper())
        if row is None:
            row = self._by_surface.get(fold(key))
        if row is None:
            raise KnowledgeError(self._unknown(key))
        return self._concepts[row]

    def find(self, text: str, k: int = 10) -> list[Concept]:
        """Return at most `k` concepts that fit `text`: equal, beginning, shared words, then similar.

        Made for people who look something up; the linker reads reports.
        """
        wanted = fold(text)
        if not wanted or k <= 0:
            return []
        best: dict[int, float] = {}
        for surface, row in self._by_surface.items():
            score = _fit(wanted, surface)
            if score > best.get(row, 0.0):
                best[row] = score
        if not best:
            best = {self._by_surface[s]: 1.0 / (n + 1) for n, s in reversed(list(enumerate(self._similar(wanted, k))))}
        order = sorted(best, key=lambda row: (-best[row], row))
        return [self._concepts[row] for row in order[:k]]

    @cached_property
    def _by_surface(self) -> dict[str, int]:
        rows: dict[str, int] = {}
        for row, concept in enumerate(self._concepts):
            rows.setdefault(fold(concept.name), row)
        for row, concept in enumerate(self._concepts):
            for synonym in concept.synonyms:
                rows.setdefault(fold(synonym), row)
            rows.setdefault(fold(concept.id), row)
        return rows

    @cached_property
    def _by_source_id(self) -> dict[str, int]:
        rows: dict[str, int] = {}
        for row, concept in enumerate(self._concepts):
            for source_id in concept.source_ids:
                rows.setdefault(source_id.upper(), row)
                if source_id.upper().startswith("UMLS:"):
                    rows.setdefault(source_id.upper().removeprefix("UMLS:"), row)
        return rows

    def _similar(self, wanted: str, n: int) -> list[str]:
        return near(wanted, self._by_surface, n=n)

    def _unknown(self, key: str) -> str:
        close = dict.fromkeys(self._concepts[self._by_surface[s]].id for s in self._similar(fold(key), 6))
        hint = f"; did you mean {', '.join(list(close)[:3])}?" if close else "; `kvlp kg find` searches names"
        return f"graph '{self.name}' has no concept '{key}'{hint}"

    # ---- relations -----------------------------------------------------------------------------------------------

    @cached_property
    def _links(self) -> _Links:
        links = _Links()
        for relation in self._relations:
            links.out.setdefault(relation.head, []).append(relation)
            links.into.setdefault(relation.tail, []).append(relation)
        return links

    def neighbours(self, concept_id: str, type: str | None = None, direction: Direction = "out") -> list[Relation]:
        """Return the relations at a concept: those it heads ("out"), those that point to it ("in"), or "both"."""
        self[concept_id]
        found: list[Relation] = []
        if direction in ("out", "both"):
            found += self._links.out.get(concept_id, [])
        if direction in ("in", "both"):
            found += self._links.into.get(concept_id, [])
        return [r for r in found if type is None or r.type == type]

    def parents(self, concept_id: str) -> list[str]:
        """Return what the concept is a kind of (is_a, one step)."""
        return [r.tail for r in self.neighbours(concept_id, "is_a") if r.tail in self]

    def children(self, concept_id: str) -> list[str]:
        """Return the kinds of the concept (is_a, one step back)."""
        return [r.head for r in self.neighbours(concept_id, "is_a", "in") if r.head in self]

    def ancestors(self, concept_id: str) -> set[str]:
        """Return all concepts above this one by is_a; the concept itself is not among them."""
        return self._closure(concept_id, self.parents)

    def descendants(self, concept_id: str) -> set[str]:
        """Return all concepts below this one by is_a; the concept itself is not among them."""
        return self._closure(concept_id, self.children)

    def _closure(self, start: str, step: Callable[[str], list[str]]) -> set[str]:
        seen, todo = {start}, [start]
        while todo:
            fresh = [i for i in step(todo.pop()) if i not in seen]
            seen.update(fresh)
            todo += fresh
        return seen - {start}

    def shortest_path(self, a: str, b: str) -> list[str]:
        """Return the ids of a shortest way from `a` to `b`, whatever the direction of the relations.

        Raises:
            KnowledgeError: an unknown concept, or no way between them.
        """
        import networkx as nx

        start, end = self.concept(a).id, self.concept(b).id
        try:
            path: list[str] = nx.shortest_path(self._undirected, start, end)
        except nx.NetworkXNoPath:
            raise KnowledgeError(f"graph '{self.name}': no way from '{start}' to '{end}'") from None
        return path

    @cached_property
    def _undirected(self) -> nx.Graph:
        import networkx as nx

        graph = nx.Graph()
        graph.add_nodes_from(c.id for c in self._concepts)
        graph.add_edges_from((r.head, r.tail) for r in self._relations if r.head in self and r.tail in self)
        return graph

    def subgraph(self, ids: Collection[str] | None = None, *, depth: int = 1) -> nx.MultiDiGraph:
        """Hand out a networkx MultiDiGraph (edge key and attribute `type`; node attributes of Concept).

        Args:
            ids: start concepts (ids or surfaces); None for the whole graph.
            depth: how many relations away from them, in any direction, a concept may be.
        """
        import networkx as nx

        keep = set(self._row) if ids is None else self._around({self.concept(i).id for i in ids}, depth)
        graph = nx.MultiDiGraph(name=self.name, version=self.version, licence=self.licence)
        for concept in self._concepts:
            if concept.id in keep:
                graph.add_node(
                    concept.id,
                    name=concept.name,
                    synonyms=concept.synonyms,
                    definition=concept.definition,
                    semantic_types=concept.semantic_types,
                    source_ids=concept.source_ids,
                )
        for r in self._relations:
            if r.head in keep and r.tail in keep:
                graph.add_edge(r.head, r.tail, key=r.type, type=r.type, source=r.source)
        return graph

    def _around(self, start: set[str], depth: int) -> set[str]:
        seen, edge = set(start), set(start)
        for _ in range(depth):
            ends = {e for i in edge for r in self.neighbours(i, direction="both") for e in (r.head, r.tail)}
            edge = {e for e in ends - seen if e in self}
            seen |= edge
        return seen

    # ---- the whole -----------------------------------------------------------------------------------------------

    def validate(self) -> list[Problem]:
        """Name everything that is wrong with the graph; errors first. An empty list means a sound graph."""
        from kvlp.knowledge.validate import validate

        return validate(self)

    @cached_property
    def content_hash(self) -> str:
        """sha256 (hex) of the content; the order of concepts, synonyms and relations does not count."""
        lines = [_concept_line(c) for c in self._concepts]
        lines += [json.dumps([r.head, r.type, r.tail, r.source], ensure_ascii=False) for r in self._relations]
        digest = hashlib.sha256()
        for line in sorted(lines):
            digest.update(line.encode("utf-8", "surrogatepass") + b"\n")
        return digest.hexdigest()

    def shuffled(self, seed: int, *, synonyms: bool = True, relations: bool = True) -> KnowledgeGraph:
        """Return the control graph: names stay, but what is known of them belongs to others of the same type.

        See kvlp.knowledge.shuffle for what is exchanged.
        """
        from kvlp.knowledge.shuffle import shuffled

        return shuffled(self, seed, synonyms=synonyms, relations=relations)


def _require_sound(concept: Concept, row: int, graph: str) -> None:
    if not concept.id or not concept.name.strip():
        raise KnowledgeError(f"graph '{graph}': concept {row + 1} ('{concept.id}') has no id or no name")
    if concept.number not in NUMBERS:
        raise KnowledgeError(
            f"graph '{graph}': concept '{concept.id}' has number '{concept.number}'; expected {', '.join(NUMBERS)}"
        )


def _concept_line(c: Concept) -> str:
    parts = [c.id, c.name, c.definition, c.number, *map(sorted, (c.synonyms, c.descriptions, c.semantic_types))]
    return json.dumps([*parts, sorted(c.source_ids)], ensure_ascii=False)


def _fit(wanted: str, surface: str) -> float:
    """Score folded words against a folded surface.

    3 equal, 2 to 3 the surface begins with them, 1 to 2 each begins a word of it, else the share of words in common.
    """
    if surface == wanted:
        return 3.0
    closeness = len(wanted) / max(len(surface), len(wanted))
    if surface.startswith(wanted):
        return 2.0 + closeness
    words, there = wanted.split(), surface.split()
    begun = sum(any(t.startswith(w) for t in there) for w in words) / len(words)
    return 1.0 + closeness if begun == 1.0 else begun if begun >= 0.5 else 0.0
