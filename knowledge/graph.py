"""KnowledgeGraph: concepts with names, synonyms, definitions and descriptions, and typed relations between them.

The bundled graph is `KnowledgeGraph.load("chest")`. On disk a graph is a folder of Arrow tables (see graph_io.py)
or a folder of CSV files that a person can edit (see sources/csv_folder.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kvlp.errors import KnowledgeError
from kvlp.knowledge.paths import shortest_way
from kvlp.knowledge.store import NUMBERS, Direction, MemoryStore, Store
from kvlp.knowledge.surfaces import fold, near
from kvlp.typing import PathLike

if TYPE_CHECKING:
    import networkx as nx

    from kvlp.knowledge.embedding import ConceptVectors
    from kvlp.knowledge.validate import Problem

__all__ = ["NUMBERS", "Concept", "KnowledgeGraph", "Relation"]

_BUNDLED = ("chest",)
_CHEST_FOLDER = Path(__file__).parent / "chest"


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


class KnowledgeGraph:
    """Concepts and typed relations, immutable once built.

    A graph that was opened from a folder stays on disk: its concepts and relations become objects when asked for.
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
        self.store: Store = MemoryStore(concepts, relations, name)
        self.name, self.version, self.licence = name, version, licence
        self.build_report: dict[str, object] = {}
        self._recorded_hash = ""

    @classmethod
    def of_store(
        cls,
        store: Store,
        *,
        name: str,
        version: str = "",
        licence: str = "",
        content_hash: str = "",
        build_report: dict[str, object] | None = None,
    ) -> KnowledgeGraph:
        """Make a graph of what a store keeps; `content_hash` where it is known, else it is computed when asked for."""
        graph = cls.__new__(cls)
        graph.store = store
        graph.name, graph.version, graph.licence = name, version, licence
        graph.build_report, graph._recorded_hash = build_report or {}, content_hash
        return graph

    # ---- reading and writing -------------------------------------------------------------------------------------

    @classmethod
    def load(cls, path_or_name: PathLike = "chest", *, check: bool | Literal["full"] = True) -> KnowledgeGraph:
        """Open a graph: "chest" (bundled), a folder written by `save`, or a folder of CSV files.

        Args:
            path_or_name: name of the bundled graph, or a folder.
            check: refuse dangling relations and is_a cycles (CSV), or files that are not as they were written (saved
                folders). A saved folder of more than 64 MB is compared by the sizes of its files only, since opening
                it must not read it; "full" reads and compares all, as `kvlp kg validate` does.

        Raises:
            KnowledgeError: no such graph, or a damaged one; the message names the file and what to do.
        """
        if str(path_or_name) in _BUNDLED:
            return cls.from_csv(_CHEST_FOLDER, check=bool(check))
        folder = Path(path_or_name)
        if not folder.exists():
            close = near(str(path_or_name), _BUNDLED, n=1) or list(_BUNDLED)
            raise KnowledgeError(
                f"no graph '{path_or_name}': expected a folder or the name of a bundled graph, such as '{close[0]}'"
            )
        if (folder / "concepts.csv").is_file() and not (folder / "concepts.arrow").exists():
            return cls.from_csv(folder, check=bool(check))
        from kvlp.knowledge import graph_io

        return graph_io.load_folder(folder, check=check)

    def save(self, folder: PathLike) -> Path:
        """Write the graph as a folder of Arrow IPC tables and integer arrays; return the folder."""
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
    def from_umls(
        cls,
        folder: PathLike,
        *,
        languages: Sequence[str] | None = ("ENG",),
        vocabularies: Collection[str] | None = None,
        semantic_types: Collection[str] | None = None,
        relations: Collection[str] | None = None,
        suppressed: bool = False,
        out: PathLike | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> KnowledgeGraph:
        """Read UMLS tables (MRCONSO.RRF, and MRREL, MRSTY, MRDEF, MRRANK where they are); needs the user's own licence.

        The filters choose LAT codes, SAB codes, types of concepts (names or TUIs) and types of relations; None takes
        all. `out` writes the graph there and opens it from there: a whole release does not fit otherwise into little
        memory. See kvlp.knowledge.sources.umls for what becomes of the rows, and for what it raises.
        """
        from kvlp.knowledge.sources import umls

        return umls.read_umls(
            Path(folder),
            languages=languages,
            vocabularies=vocabularies,
            semantic_types=semantic_types,
            relations=relations,
            suppressed=suppressed,
            out=out,
            progress=progress,
        )

    def renamed(self, name: str) -> KnowledgeGraph:
        """Return the same graph under another name."""
        return KnowledgeGraph.of_store(
            self.store,
            name=name,
            version=self.version,
            licence=self.licence,
            content_hash=self._recorded_hash,
            build_report=self.build_report,
        )

    # ---- concepts ------------------------------------------------------------------------------------------------

    @property
    def concepts(self) -> Sequence[Concept]:
        """All concepts, in file order."""
        return self.store.concepts

    @property
    def relations(self) -> Sequence[Relation]:
        """All relations, in file order."""
        return self.store.relations

    def __len__(self) -> int:
        return len(self.store.concepts)

    def __iter__(self) -> Iterator[Concept]:
        return iter(self.store.concepts)

    def __contains__(self, concept_id: object) -> bool:
        return isinstance(concept_id, str) and self.store.row(concept_id) is not None

    def __getitem__(self, concept_id: str) -> Concept:
        return self.store.concepts[self._row(concept_id)]

    def __repr__(self) -> str:
        return f"KnowledgeGraph({self.name!r}, concepts={len(self)}, relations={len(self.relations)})"

    def _row(self, concept_id: str) -> int:
        row = self.store.row(concept_id)
        if row is None:
            raise KnowledgeError(self._unknown(concept_id))
        return row

    def concept(self, key: str) -> Concept:
        """Return the concept of an id, a source id ("C0032227", "HP:0002202") or any surface.

        Case, hyphens and accents do not count. If two concepts share a surface, one whose name it is comes first.

        Raises:
            KnowledgeError: nothing matches; the message holds near names.
        """
        found = self.get(key)
        if found is None:
            raise KnowledgeError(self._unknown(key))
        return found

    def get(self, key: str) -> Concept | None:
        """Return what `concept` returns, or None where nothing matches."""
        row = self.store.row(key)
        if row is None:
            row = self.store.row_of_source_id(key.strip().upper())
        if row is None:
            row = self.store.row_of_surface(fold(key))
        return None if row is None else self.store.concepts[row]

    def find(self, text: str, k: int = 10) -> list[Concept]:
        """Return at most `k` concepts that fit `text`: equal, beginning, shared words, then similar.

        Made for people who look something up; the linker reads reports.
        """
        wanted = fold(text)
        if not wanted or k <= 0:
            return []
        rows = self.store.search(wanted, k) or list(dict.fromkeys(self.store.similar(wanted, k)))
        return [self.store.concepts[row] for row in rows]

    def _unknown(self, key: str) -> str:
        close = dict.fromkeys(self.store.concepts[row].id for row in self.store.similar(fold(key), 6))
        hint = f"; did you mean {', '.join(list(close)[:3])}?" if close else "; `kvlp kg find` searches names"
        return f"graph '{self.name}' has no concept '{key}'{hint}"

    # ---- relations -----------------------------------------------------------------------------------------------

    def neighbours(self, concept_id: str, type: str | None = None, direction: Direction = "out") -> list[Relation]:
        """Return the relations at a concept: those it heads ("out"), those that point to it ("in"), or "both"."""
        row = self._row(concept_id)
        found: list[Relation] = []
        if direction in ("out", "both"):
            found += self.store.relations_at(row, "out", type)
        if direction in ("in", "both"):
            found += self.store.relations_at(row, "in", type)
        return found

    def parents(self, concept_id: str) -> list[str]:
        """Return what the concept is a kind of (is_a, one step)."""
        return list(dict.fromkeys(r.tail for r in self.neighbours(concept_id, "is_a") if r.tail in self))

    def children(self, concept_id: str) -> list[str]:
        """Return the kinds of the concept (is_a, one step back)."""
        return list(dict.fromkeys(r.head for r in self.neighbours(concept_id, "is_a", "in") if r.head in self))

    def ancestors(self, concept_id: str) -> set[str]:
        """Return all concepts above this one by is_a; the concept itself is not among them."""
        return self.store.closure(self._row(concept_id), "out")

    def descendants(self, concept_id: str) -> set[str]:
        """Return all concepts below this one by is_a; the concept itself is not among them."""
        return self.store.closure(self._row(concept_id), "in")

    def shortest_path(self, a: str, b: str) -> list[str]:
        """Return the ids of a shortest way from `a` to `b`, whatever the direction of the relations.

        Raises:
            KnowledgeError: an unknown concept, or no way between them.
        """
        start, end = self.concept(a).id, self.concept(b).id
        rows = shortest_way(self.store.linked, self._row(start), self._row(end))
        if not rows:
            raise KnowledgeError(f"graph '{self.name}': no way from '{start}' to '{end}'")
        return [self.store.concepts[row].id for row in rows]

    def subgraph(self, ids: Collection[str] | None = None, *, depth: int = 1) -> nx.MultiDiGraph:
        """Hand out a networkx MultiDiGraph (edge key and attribute `type`; node attributes of Concept).

        Args:
            ids: start concepts (ids or surfaces); None for the whole graph.
            depth: how many relations away from them, in any direction, a concept may be.
        """
        import networkx as nx

        rows: Collection[int] = range(len(self))
        if ids is not None:
            rows = self._around({self._row(self.concept(i).id) for i in ids}, depth)
        graph = nx.MultiDiGraph(name=self.name, version=self.version, licence=self.licence)
        for row in sorted(rows):
            concept = self.store.concepts[row]
            graph.add_node(
                concept.id,
                name=concept.name,
                synonyms=concept.synonyms,
                definition=concept.definition,
                semantic_types=concept.semantic_types,
                source_ids=concept.source_ids,
            )
        for row in sorted(rows):
            for r in self.store.relations_at(row, "out", None):
                if r.tail in graph:
                    graph.add_edge(r.head, r.tail, key=r.type, type=r.type, source=r.source)
        return graph

    def _around(self, start: set[int], depth: int) -> set[int]:
        seen, edge = set(start), set(start)
        for _ in range(depth):
            edge = self.store.linked(edge) - seen
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
        return self._recorded_hash or self.store.content_hash()

    def embed(self, method: str = "transe", **options: Any) -> ConceptVectors:
        """Make a vector for each concept, cached by content hash and settings; see kvlp.knowledge.embedding.embed."""
        from kvlp.knowledge.embedding import embed

        return embed(self, method, **options)

    def shuffled(self, seed: int, *, synonyms: bool = True, relations: bool = True) -> KnowledgeGraph:
        """Return the control graph: names stay, but what is known of them belongs to others of the same type.

        See kvlp.knowledge.shuffle for what is exchanged.
        """
        from kvlp.knowledge.shuffle import shuffled

        return shuffled(self, seed, synonyms=synonyms, relations=relations)
