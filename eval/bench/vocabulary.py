"""The inputs that all contestants of the linking benchmarks get: one vocabulary and the same reports."""

from __future__ import annotations

import csv
import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from kvlp.errors import ConfigError
from kvlp.knowledge.graph import Concept, KnowledgeGraph
from kvlp.typing import PathLike

__all__ = ["Row", "Vocabulary", "data_folder", "made_up", "read_reports", "vocabulary_of"]

#: concept, surface, semantic type
Row = tuple[str, str, str]
_SCOPES = ("EXACT", "NARROW", "BROAD", "RELATED")
_ONTOLOGIES = ("hp_*.obo.gz", "doid_full_*.obo.gz", "uberon_*.obo", "doid_NCI*.obo", "doid_*.obo", "symp.obo")
_SHORTEST = 3


class Vocabulary:
    """Surfaces, each once, with the concept that it means.

    Args:
        rows: concept, surface, semantic type.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = list(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def graph(self) -> KnowledgeGraph:
        """The vocabulary as a graph without relations."""
        surfaces: dict[str, list[str]] = {}
        types: dict[str, str] = {}
        for concept, surface, kind in self.rows:
            surfaces.setdefault(concept, []).append(surface)
            types[concept] = kind
        concepts = [Concept(c, s[0], tuple(s[1:]), semantic_types=(types[c],)) for c, s in surfaces.items()]
        return KnowledgeGraph(concepts, [], name=f"vocabulary of {len(self)} surfaces")


def vocabulary_of(folder: Path | None, size: int) -> Vocabulary:
    """The surfaces of the chest graph, then those of HPO, DO and UBERON (all scopes of synonyms), up to `size`."""
    chest = KnowledgeGraph.load("chest")
    rows = [(c.id, s, c.semantic_types[0]) for c in chest.concepts for s in c.surfaces]
    if folder is not None and len(rows) < size:
        files = dict.fromkeys(f for pattern in _ONTOLOGIES for f in sorted(folder.glob(pattern)))
        if not files:
            raise ConfigError(
                f"{folder}: expected OBO files of HPO, DO and UBERON; give their folder with --set ontology="
            )
        rows += [row for file in files for row in _rows(file)]
    first = {surface.lower(): (concept, surface, kind) for concept, surface, kind in reversed(rows)}
    return Vocabulary(list(reversed(first.values()))[:size])


def _rows(file: Path) -> Iterator[Row]:
    """Surfaces of one ontology; by themselves, since different releases of one contradict each other."""
    for concept in KnowledgeGraph.from_obo(file, synonym_scopes=_SCOPES).concepts:
        for surface in concept.surfaces:
            if len(surface) >= _SHORTEST:
                yield concept.id, surface, _type(concept)


def _type(concept: Concept) -> str:
    return "anatomy" if concept.id.startswith("UBERON") else "disease"


def made_up(vocabulary: Vocabulary, size: int, seed: int) -> Vocabulary:
    """A larger vocabulary: two to five random words of a real one a surface, three surfaces a concept."""
    rng = random.Random(seed)
    words = sorted({w for _, surface, _ in vocabulary.rows for w in surface.split()})
    surfaces: dict[str, None] = {}
    while len(surfaces) < size:
        surfaces[" ".join(rng.choices(words, k=rng.randint(2, 5)))] = None
    return Vocabulary([(f"C{n // 3:07d}", surface, "disease") for n, surface in enumerate(surfaces)])


def read_reports(file: PathLike) -> Iterator[dict[str, str]]:
    """Rows of the Indiana reports, with "text": findings and impression under their headers.

    Raises:
        ConfigError: no such file, or other columns.
    """
    path = Path(file)
    if not path.is_file():
        raise ConfigError(f"{path}: expected the reports as CSV; give the file with --set reports=FILE")
    with path.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            if not {"findings", "impression"} <= row.keys():
                raise ConfigError(f"{path}: expected the columns findings and impression")
            yield {**row, "text": f"FINDINGS: {row['findings']}\nIMPRESSION: {row['impression']}"}


def data_folder() -> Path:
    """The folder of real data: KVLP_DATA, else ../shared/data beside the working folder."""
    return Path(os.environ.get("KVLP_DATA") or Path.cwd().parent / "shared" / "data")
