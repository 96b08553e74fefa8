"""Searching: from words, images and conditions to one query vector, a set of allowed items, and a reason for every hit.

A text query is the mean of its prompts' embeddings. `without` and `absent` add each concept's "no X" prompts and take
its "X" prompts away; that is still one inner product per image, so exact search stays exact. Where an image has a
report, it decides on `present`, `absent` and `without`; where it has none, the model's prompts do.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kvlp.archive.adding import Encoder
from kvlp.archive.cache import Loaded
from kvlp.archive.store import Item, Store
from kvlp.archive.where import Condition, parse_where
from kvlp.errors import ArchiveError
from kvlp.typing import Assertion
from kvlp.vectors import sha256_of, unit_rows

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from kvlp.knowledge.graph import KnowledgeGraph
    from kvlp.knowledge.linking import EntityLinker

__all__ = ["Hit", "Searcher", "Wanted"]

_QUALIFIERS = frozenset({"anatomy", "descriptor"})  #: "left" or "lung" in a query is nothing that a report asserts


@dataclass(frozen=True, slots=True)
class Hit:
    """An image that was found.

    Attributes:
        id: stays the same for the same image content, in every archive.
        path: where the image was when it was added.
        score: what the rank goes by; the cosine unless `without` or `absent` shift it.
        rank: 1 for the best.
        why: `cosine` (to the query alone; None without a query), `matched` and `missed` (concepts asked for, each with
            what was asked, what was found and by what: report or model), and `record`, `view`, `stale`, `flag` where
            they say something.
    """

    id: str
    path: str
    score: float
    rank: int
    why: dict[str, Any] = field(default_factory=dict)

    @property
    def stale(self) -> str:
        """Why the file is no longer the one that was added ("missing", "changed"); empty if it still is."""
        return str(self.why.get("stale", ""))

    def to_dict(self) -> dict[str, Any]:
        """The hit as JSON takes it."""
        return {"id": self.id, "path": self.path, "score": self.score, "rank": self.rank, "why": self.why}


@dataclass(frozen=True, slots=True)
class Wanted:
    """One concept of a search and what is asked of it: present, absent, or only not present (`without`)."""

    name: str
    asked: str  #: present | absent | without
    concept: str = ""  #: id in the graph; empty for free text
    below: frozenset[str] = frozenset()  #: the concept and its descendants: any of them present makes it present
    above: frozenset[str] = frozenset()  #: the concept and its ancestors: any of them absent makes it absent
    direction: NDArray[np.float64] | None = None  #: "X" minus "no X" in embedding space; None for words of the query


@dataclass(frozen=True, slots=True)
class _Plan:
    base: NDArray[np.float64] | None
    query: NDArray[np.float64]
    wanted: tuple[Wanted, ...]


class Searcher:
    """Answers searches on one archive.

    Args:
        model, graph, read: hand out the model, the graph and its reader of text; called only when they are needed.
        hashed: maps a patient or study id to its keyed hash.
    """

    def __init__(
        self,
        folder: Path,
        store: Store,
        *,
        dim: int,
        model: Callable[[], Encoder],
        graph: Callable[[], KnowledgeGraph | None],
        read: Callable[[], EntityLinker],
        hashed: Callable[[str], str],
    ) -> None:
        self._folder = folder
        self._store = store
        self._dim = dim
        self._model = model
        self._graph = graph
        self._read = read
        self._hashed = hashed

    def plan(
        self,
        *,
        text: str | None,
        image: object | None,
        embedding: ArrayLike | None,
        present: Sequence[str],
        absent: Sequence[str],
        without: Sequence[str],
    ) -> _Plan:
        """Turn what was asked into one query vector and the concepts that a hit is judged by."""
        groups = (("present", present), ("absent", absent), ("without", without))
        wanted = tuple(self._wanted(name, asked) for asked, names in groups for name in names)
        parts = self._parts(text, image, embedding)
        base = _unit(np.sum(parts, axis=0)) if parts else None
        query = np.zeros(self._dim) if base is None else base
        for one in wanted:
            if one.asked != "present":
                query = query - np.asarray(one.direction)
            elif base is None:
                query = query + np.asarray(one.direction)
        return _Plan(base, query, (*wanted, *self._spoken(text, wanted)))

    def run(self, plan: _Plan, loaded: Loaded, where: str | None, k: int, *, exact: bool) -> list[Hit]:
        """Return the k best hits of a plan on an index."""
        allowed = self._allowed(plan, loaded, where)
        positions, scores = loaded.index.search(plan.query, k, allowed=allowed, exact=exact)
        items = self._fetch([loaded.ids[p] for p in positions])
        hits: list[Hit] = []
        root = self._folder.resolve()
        for position, score in zip(positions, scores, strict=True):
            item = items.get(loaded.ids[position])
            if item is not None:
                why = self._why(plan, item, loaded.index.vectors[position])
                path = os.path.normpath(root / item.path)
                hits.append(Hit(item.id, path, float(score), len(hits) + 1, why))
        return hits

    # --- the query ----------------------------------------------------------------------------------------------------

    def _parts(self, text: str | None, image: object | None, embedding: ArrayLike | None) -> list[NDArray[np.float64]]:
        parts = []
        if text is not None:
            if not text.strip():
                raise ArchiveError("the search text is empty; say what to look for, or give an image")
            parts.append(self._embed(self._prompts(text, Assertion.PRESENT)))
        if image is not None:
            parts.append(self._embed_image(image))
        if embedding is not None:
            parts.append(unit_rows(np.asarray(embedding).reshape(-1), dim=self._dim)[0].astype(np.float64))
        return parts

    def _embed_image(self, image: object) -> NDArray[np.float64]:
        from kvlp.datasets.images import load_grey_uint8

        found = self._model().encode_image([load_grey_uint8(image)])
        return unit_rows(found, dim=self._dim)[0].astype(np.float64)

    def _embed(self, sentences: Sequence[str]) -> NDArray[np.float64]:
        found = unit_rows(self._model().encode_text(list(sentences)), dim=self._dim)
        return _unit(found.astype(np.float64).mean(axis=0))

    def _prompts(self, text: str, assertion: Assertion) -> list[str]:
        """Sentences for a concept or a few words; a whole sentence is taken as it is said."""
        from kvlp.knowledge.prompts import Prompts

        sentence = text.strip().endswith(".") or len(text.split()) > 6
        if assertion is Assertion.PRESENT and (sentence or self._graph() is None):
            return [text.strip()]
        return Prompts(self._graph()).sentences(text.strip(), assertion)

    def _wanted(self, name: str, asked: str) -> Wanted:
        if not name.strip():
            raise ArchiveError(f"{asked} names an empty concept; name a finding")
        says, denies = self._prompts(name, Assertion.PRESENT), self._prompts(name, Assertion.ABSENT)
        direction = self._embed(says) - self._embed(denies)
        graph = self._graph()
        if graph is None:
            return Wanted(name, asked, direction=direction)
        concept = graph.concept(name).id
        below = frozenset({concept, *graph.descendants(concept)})
        above = frozenset({concept, *graph.ancestors(concept)})
        return Wanted(name, asked, concept, below, above, direction)

    def _spoken(self, text: str | None, wanted: Sequence[Wanted]) -> list[Wanted]:
        """Concepts that the query's words name: they explain a hit, they do not filter."""
        graph = self._graph()
        if text is None or graph is None:
            return []
        told = {one.concept for one in wanted}
        spoken: dict[str, Wanted] = {}
        for mention in self._read()(text):
            types = graph[mention.concept].semantic_types
            explains = not types or not _QUALIFIERS.issuperset(types)
            if explains and mention.concept not in told and mention.assertion is not Assertion.UNCERTAIN:
                below = frozenset({mention.concept, *graph.descendants(mention.concept)})
                above = frozenset({mention.concept, *graph.ancestors(mention.concept)})
                asked = str(mention.assertion.value)
                spoken[mention.concept] = Wanted(graph[mention.concept].name, asked, mention.concept, below, above)
        return list(spoken.values())

    # --- which items may be hits --------------------------------------------------------------------------------------

    def _allowed(self, plan: _Plan, loaded: Loaded, where: str | None) -> NDArray[np.int64] | None:
        """Positions of the items that conditions and reports let through; None when nothing was asked."""
        filters = [one for one in plan.wanted if one.direction is not None]
        if not where and not filters:
            return None
        mask = np.ones(len(loaded.ids), dtype=bool)
        if where:
            mask &= self._mask(loaded, parse_where(where, self._hashed))
        for one in filters:
            mask &= self._let_through(one, loaded)
        return np.flatnonzero(mask)

    def _mask(self, loaded: Loaded, condition: Condition) -> NDArray[np.bool_]:
        if "FROM reports" in condition.sql and not self._store.has_reports_table():
            raise ArchiveError("where: report text cannot be searched here: this Python's SQLite has no FTS5")
        return np.isin(loaded.numbers, self._store.select(condition.sql, condition.values))

    def _let_through(self, one: Wanted, loaded: Loaded) -> NDArray[np.bool_]:
        """Where a report speaks it decides; where there is none the sign of the model's "X" against "no X" does."""
        leaning = loaded.index.vectors @ np.asarray(one.direction, dtype=np.float32)
        by_model = leaning > 0 if one.asked == "present" else leaning < 0
        if not one.concept:
            return by_model
        has_report = self._mask(loaded, Condition("has_report"))
        return np.where(has_report, self._mask(loaded, report_condition(one)), by_model)

    # --- why ----------------------------------------------------------------------------------------------------------

    def _fetch(self, ids: Sequence[str]) -> dict[str, Item]:
        marks = ", ".join("?" * len(ids))
        return {item.id: item for item in self._store.items(f"items.id IN ({marks})", ids)} if ids else {}

    def _why(self, plan: _Plan, item: Item, vector: NDArray[np.float32]) -> dict[str, Any]:
        cosine = None if plan.base is None else float(vector.astype(np.float64) @ plan.base)
        why: dict[str, Any] = {"cosine": cosine, "matched": [], "missed": []}
        for one in plan.wanted:
            met, told = _judge(one, item, vector)
            if met is not None:
                why["matched" if met else "missed"].append(told)
        stale = stale_reason(self._folder / item.path, item)
        for key, value in (("record", item.record), ("view", item.view), ("flag", item.flag), ("stale", stale)):
            if value:
                why[key] = value
        return why


def report_condition(one: Wanted) -> Condition:
    """The SQL condition under which a report answers what is asked of a concept.

    present: it or a descendant is present. absent: it or an ancestor is absent, no descendant present or uncertain.
    without: neither it nor a descendant is present or uncertain; not mentioned is enough.
    """
    here = _any_mention(one.below, ("present",))
    maybe = _any_mention(one.below, ("present", "uncertain"))
    if one.asked == "present":
        return here
    if one.asked == "without":
        return Condition(f"NOT {maybe.sql}", maybe.values)
    gone = _any_mention(one.above, ("absent",))
    return Condition(f"({gone.sql} AND NOT {maybe.sql})", gone.values + maybe.values)


def _any_mention(concepts: Iterable[str], assertions: tuple[str, ...]) -> Condition:
    names = sorted(concepts)
    sql = (
        "items.n IN (SELECT n FROM mentions WHERE"
        f" concept IN (SELECT value FROM json_each(?)) AND assertion IN ({', '.join('?' * len(assertions))}))"
    )
    return Condition(sql, (json.dumps(names), *assertions))


def _judge(one: Wanted, item: Item, vector: NDArray[np.float32]) -> tuple[bool | None, dict[str, Any]]:
    """Whether an item answers what is asked of a concept (None: nothing to tell), with what was found and by what."""
    told: dict[str, Any] = {"concept": one.concept or one.name, "asked": one.asked}
    if one.concept and item.has_report:
        found = _found(one, item)
        told |= {"found": found or "not mentioned", "by": "report"}
        met = found not in ("present", "uncertain") if one.asked == "without" else found == one.asked
        return met, told
    if one.direction is None:
        return None, told
    margin = float(vector.astype(np.float64) @ one.direction)
    told |= {"found": "present" if margin > 0 else "absent", "by": "model", "margin": margin}
    return (margin > 0) == (one.asked == "present"), told


def _found(one: Wanted, item: Item) -> str:
    below = {item.mentions[concept] for concept in one.below if concept in item.mentions}
    for assertion in ("present", "uncertain"):
        if assertion in below:
            return assertion
    above = {item.mentions[concept] for concept in one.above if concept in item.mentions}
    return "absent" if "absent" in above else ""


def stale_reason(path: Path, item: Item) -> str:
    """Return "missing" or "changed" if the file at `path` is no longer the content that was added, else ""."""
    try:
        status = path.stat()
        if (status.st_size, status.st_mtime_ns) == (item.size, item.mtime_ns):
            return ""
        same = status.st_size == item.size and sha256_of(path) == item.sha256
    except OSError:
        return "missing"
    return "" if same else "changed"


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    length = float(np.linalg.norm(vector))
    return vector / length if length > 0 else vector
