"""RadGraph's JSON files: what they hold, checked, each entity with its characters in the text.

A file maps report ids to {"text", "entities"}; an entity has tokens, label, start_ix, end_ix (words of the text, both
inclusive) and relations [[type, entity id]]. Files of the test set hold one such mapping a labeler; groups of reports
may be nested. Labels are read as the data set writes them ("OBS-DA") and as the later packages do
("Observation::definitely absent"). Messages count reports and never name them: ids may be those of patients.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvlp.errors import KnowledgeError
from kvlp.knowledge.sources.report import SourceReport
from kvlp.knowledge.sources.tables import read_text
from kvlp.typing import Assertion

if TYPE_CHECKING:
    from kvlp.knowledge.linking.mention import Mention

__all__ = ["Entity", "read_entities"]

_WORDS = re.compile(r"\S+")
_KINDS = {"anat": "anatomy", "anatomy": "anatomy", "obs": "finding", "observation": "finding"}
_SURE = {
    "dp": Assertion.PRESENT,
    "definitely present": Assertion.PRESENT,
    "u": Assertion.UNCERTAIN,
    "uncertain": Assertion.UNCERTAIN,
    "da": Assertion.ABSENT,
    "definitely absent": Assertion.ABSENT,
}
_NEEDS = "RadGraph's JSON"


@dataclass(frozen=True, slots=True)
class Entity:
    """An annotated entity of a report.

    Attributes:
        key: its id within the report.
        surface: its words as they stand in the text.
        start: first character in the text.
        end: one past the last.
        assertion: present, uncertain or absent.
        kind: "anatomy" or "finding", which may be used as a semantic type.
        relations: (type, key of another entity) pairs; types are located_at, modify and suggestive_of.
        concept: the graph's concept that has this surface; "" if none, or if no graph was given.
    """

    key: str
    surface: str
    start: int
    end: int
    assertion: Assertion
    kind: str
    relations: tuple[tuple[str, str], ...] = ()
    concept: str = ""

    def mention(self) -> Mention:
        """The entity as the linker's Mention."""
        from kvlp.knowledge.linking.mention import Mention

        return Mention(self.concept, self.surface, self.start, self.end, self.assertion)


def read_entities(path: Path, labeler: str, report: SourceReport) -> Iterator[tuple[str, str, list[Entity]]]:
    """Yield (report id, text, entities in the order of the text) for each report.

    Raises:
        KnowledgeError: not JSON, not such a mapping, or an unknown label; names the report by its number.
    """
    for number, (key, text, entities) in enumerate(_reports(path, labeler), 1):
        yield key, text, _entities(path, f"report {number}", text, entities, report)


def _reports(path: Path, labeler: str) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    text = read_text(path, _NEEDS)
    try:
        document = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        at = f" line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise KnowledgeError(f"{path}{at}: not readable as JSON ({type(error).__name__}); is it cut off?") from None
    if not isinstance(document, dict):
        raise KnowledgeError(f"{path}: expected {_NEEDS}, an object of reports; got {type(document).__name__}")
    seen = 0
    for item in _flat(path, document, ""):
        seen += 1
        yield _checked(path, seen, *item, labeler)
    if not seen:
        raise KnowledgeError(f"{path}: expected {_NEEDS}, an object of reports with 'text' and 'entities'; found none")


def _flat(path: Path, group: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for key, value in group.items():
        if not isinstance(value, dict):
            raise KnowledgeError(f"{path}: expected an object for each report, got {type(value).__name__}")
        if "text" in value or "entities" in value:
            yield f"{prefix}{key}", value
        else:
            yield from _flat(path, value, f"{prefix}{key}/")


def _checked(
    path: Path, number: int, key: str, value: Mapping[str, Any], labeler: str
) -> tuple[str, str, Mapping[str, Any]]:
    held = value if "entities" in value else value.get(labeler)
    if not isinstance(held, dict):
        labelers = [name for name, part in value.items() if isinstance(part, dict) and "entities" in part]
        there = f"; there are {', '.join(sorted(labelers))}" if labelers else ""
        raise KnowledgeError(f"{path} report {number}: has neither 'entities' nor '{labeler}'{there}")
    text, entities = value.get("text"), held.get("entities")
    if not isinstance(text, str) or not isinstance(entities, dict):
        raise KnowledgeError(f"{path} report {number}: expected 'text' as a text and 'entities' as an object")
    return key, text, entities


def _entities(path: Path, where: str, text: str, entities: Mapping[str, Any], report: SourceReport) -> list[Entity]:
    words = [match.span() for match in _WORDS.finditer(text)]
    found: list[Entity] = []
    for number, (key, raw) in enumerate(entities.items(), 1):
        entity = _entity(f"{path} {where} entity {number}", text, words, key, raw)
        if entity is None:
            report.add("misplaced", f"{where} entity {number}")
        else:
            found.append(entity)
    known = {entity.key for entity in found}
    for entity in found:
        for kind, other in entity.relations:
            if other not in known:
                report.add("dangling_entity", f"{where} {kind}")
    return sorted(found, key=lambda e: (e.start, e.end, e.key))


def _entity(where: str, text: str, words: Sequence[tuple[int, int]], key: str, raw: Any) -> Entity | None:
    try:
        tokens, label = raw["tokens"], raw["label"]
        first, last = index(raw["start_ix"]), index(raw["end_ix"])
        relations = tuple((str(kind), str(other)) for kind, other in raw.get("relations", ()))
        inside = 0 <= first <= last < len(words)
        said = tokens.split()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise KnowledgeError(
            f"{where}: expected tokens, label, start_ix, end_ix and relations; {type(error).__name__} at reading them"
        ) from None
    kind, assertion = _label(where, str(label))
    if not inside:
        return None
    start, end = words[first][0], words[last][1]
    surface = text[start:end]
    if [w.lower() for w in surface.split()] != [w.lower() for w in said]:
        return None
    return Entity(key, surface, start, end, assertion, kind, relations)


def _label(where: str, label: str) -> tuple[str, Assertion]:
    parts = re.split(r"::|-", label.strip().lower())
    kind, assertion = _KINDS.get(parts[0]), _SURE.get(parts[-1])
    if kind is None or assertion is None or len(parts) < 2:
        raise KnowledgeError(f"{where}: unknown label '{label[:40]}'; expected ANAT-DP, OBS-DP, OBS-U or OBS-DA")
    return kind, assertion
