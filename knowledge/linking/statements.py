"""Findings said by a subject and a predicate: "heart size is normal", "the cardiac silhouette is mildly enlarged".

The words stand in `statements.yaml`. A statement whose concept the graph does not have is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from kvlp.errors import KnowledgeError
from kvlp.knowledge.linking.assertion import Clauses, read_yaml
from kvlp.knowledge.linking.dictionary import expand
from kvlp.typing import Assertion, PathLike

if TYPE_CHECKING:
    from kvlp.knowledge.graph import KnowledgeGraph

__all__ = ["Statement", "StatementWords", "find_statements", "statement_words"]

#: concept id -> what the predicate says of it
Says: TypeAlias = dict[str, Assertion]
Hit: TypeAlias = "tuple[int, int, Says]"
_KEYS = {"concept", "subjects", "present", "uncertain", "absent"}


@dataclass(frozen=True, slots=True)
class Statement:
    """A subject and a predicate that belong together."""

    concept: str
    says: Assertion
    subject: tuple[int, int]
    predicate: tuple[int, int]

    @property
    def span(self) -> tuple[int, int]:
        """From the first to the last character of both."""
        return min(self.subject[0], self.predicate[0]), max(self.subject[1], self.predicate[1])


@dataclass(frozen=True, slots=True)
class StatementWords:
    """Normalised subjects and predicates, each with the concepts that it may speak of."""

    subjects: dict[str, Says]
    predicates: dict[str, Says]


def statement_words(
    graph: KnowledgeGraph, types: Collection[str] | None = None, path: PathLike | None = None
) -> StatementWords:
    """Read the statements of the concepts that the graph has (and that are of the wanted semantic types).

    Raises:
        KnowledgeError: a file of another form than the bundled `statements.yaml`.
    """
    words = StatementWords({}, {})
    for row in _rows(path):
        concept = graph.get(row["concept"])
        if concept is None:
            continue
        if types is not None and not set(types) & set(concept.semantic_types):
            continue
        for phrase in expand(row["subjects"]):
            words.subjects.setdefault(phrase, {})[concept.id] = Assertion.PRESENT
        for says in Assertion:
            for phrase in expand(row[says.value]):
                words.predicates.setdefault(phrase, {})[concept.id] = says
    return words


@cache
def _rows(path: PathLike | None) -> list[dict]:
    file = Path(path) if path is not None else Path(__file__).with_name("statements.yaml")
    rows: list[dict] = read_yaml(file, {"statements"})["statements"]
    for row in rows:
        if set(row) != _KEYS:
            raise KnowledgeError(f"{file}: each statement needs exactly the keys {', '.join(sorted(_KEYS))}")
    return rows


def find_statements(clauses: Clauses, subjects: Sequence[Hit], predicates: Sequence[Hit]) -> list[Statement]:
    """Join the subjects and predicates of one sentence; a subject takes at most one predicate for each concept."""
    if not subjects:
        return []
    found: dict[tuple[int, str], Statement] = {}
    spans = [(s, e) for s, e, _ in subjects]
    starts = {s for s, _ in spans}
    for start, end, says in predicates:
        attributive = end + 1 in starts
        if attributive:
            reached = [i for i, (s, _) in enumerate(spans) if s == end + 1]
        else:
            reached = clauses.behind(spans, start, commas=True) or clauses.shared_subject(spans, start)
        for i in reached:
            for concept in subjects[i][2].keys() & says.keys():
                found.setdefault((i, concept), Statement(concept, says[concept], spans[i], (start, end)))
    return list(found.values())
