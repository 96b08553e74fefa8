"""Where each part of a merged concept came from, and the merged concept itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kvlp.knowledge.graph import Concept
from kvlp.knowledge.same import Member
from kvlp.knowledge.sources.tables import Columns, read_rows, write_rows
from kvlp.knowledge.sources.xrefs import is_cui
from kvlp.knowledge.surfaces import fold
from kvlp.typing import PathLike

__all__ = ["Origin", "Teller", "read_origins", "united", "write_origins"]

_FILE = "provenance.csv"
_HEADER = ("concept", "part", "text", "graph")
_COLUMNS = Columns(("concept", "part", "graph"), ("text",))


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a part of a concept came from.

    Attributes:
        concept: id in the merged graph.
        part: "id", "name", "synonym", "definition", "description", "type" or "source_id".
        text: the part itself; for an id the one that the concept has in its graph; empty for a definition.
        graph: name of the graph that gave it; several say the same: the first.
    """

    concept: str
    part: str
    text: str
    graph: str


class Teller:
    """Names the graph that a part came from; for a graph that was itself merged, the graph before it.

    Args:
        names: the graphs' names.
        before: name of a merged graph -> its origins.
    """

    def __init__(self, names: Sequence[str], before: Mapping[str, Iterable[Origin]]) -> None:
        self._names = names
        self._earlier = {(name, o.concept, o.part, o.text): o.graph for name, part in before.items() for o in part}

    def __call__(self, member: Member, part: str, text: str) -> str:
        """The name for one part of a member."""
        name = self._names[member[0]]
        return self._earlier.get((name, member[1].id, part, text), name)


def write_origins(folder: Path, origins: Iterable[Origin]) -> Path:
    """Write provenance.csv into a graph's folder; return the file."""
    write_rows(folder / _FILE, _HEADER, ((o.concept, o.part, o.text, o.graph) for o in origins))
    return folder / _FILE


def read_origins(folder: PathLike) -> list[Origin]:
    """Read provenance.csv of a merged graph's folder; an empty list if it has none.

    Raises:
        KnowledgeError: the file is damaged.
    """
    path = Path(folder) / _FILE
    if not path.is_file():
        return []
    return [
        Origin(row["concept"], row["part"], row.get("text", ""), row["graph"])
        for _, row in read_rows(path, _COLUMNS, "the provenance of a merged graph")
    ]


def united(key: str, members: Sequence[Member], tell: Teller) -> tuple[Concept, list[Origin]]:
    """Return the concept that some members are, and where its parts came from: the first member decides.

    Args:
        key: id of the concept.
        members: in the order in which they are trusted.
        tell: names the graph of a part.
    """
    first = members[0]
    concept = first[1]
    origins = [Origin(key, "id", m[1].id, tell(m, "id", m[1].id)) for m in members]
    origins.append(Origin(key, "name", concept.name, tell(first, "name", concept.name)))
    defined = next((m for m in members if m[1].definition), None)
    if defined is not None:
        origins.append(Origin(key, "definition", "", tell(defined, "definition", "")))
    parts = {
        "synonym": _synonyms(members),
        "description": _first((m, d) for m in members for d in m[1].descriptions),
        "type": _first((m, t) for m in members for t in m[1].semantic_types),
        "source_id": _first(_source_ids(members)),
    }
    for part, kept in parts.items():
        origins += [Origin(key, part, text, tell(member, part, text)) for member, text in kept]
    texts = {part: tuple(text for _, text in kept) for part, kept in parts.items()}
    return Concept(
        id=key,
        name=concept.name,
        synonyms=texts["synonym"],
        definition=defined[1].definition if defined is not None else "",
        descriptions=texts["description"],
        semantic_types=texts["type"],
        source_ids=texts["source_id"],
        number=concept.number,
    ), origins


def _first(parts: Iterable[tuple[Member, str]]) -> list[tuple[Member, str]]:
    """Each text once, with the first member that has it."""
    found: dict[str, Member] = {}
    for member, text in parts:
        found.setdefault(text, member)
    return [(member, text) for text, member in found.items()]


def _synonyms(members: Sequence[Member]) -> list[tuple[Member, str]]:
    """All surfaces but the name; of a later member those that none before it has, case and hyphens aside."""
    kept = [(members[0], s) for s in members[0][1].synonyms]
    seen = {fold(s) for s in members[0][1].surfaces}
    for member in members[1:]:
        kept += [(member, s) for s in member[1].surfaces if fold(s) not in seen]
        seen |= {fold(s) for s in member[1].surfaces}
    return kept


def _source_ids(members: Sequence[Member]) -> Iterator[tuple[Member, str]]:
    """The ids of all members; an own id that the united concept no longer has stays findable."""
    for member in members:
        yield from ((member, i) for i in member[1].source_ids)
        own = member[1].id
        if own != members[0][1].id:
            yield member, f"UMLS:{own}" if is_cui(own) else own
