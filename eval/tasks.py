"""What a model is asked: classes (also one against another), text queries, and the labels that answer them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

import numpy as np

from kvlp.errors import DataError
from kvlp.eval.metrics import Floats
from kvlp.knowledge.names import Names

if TYPE_CHECKING:
    from kvlp.datasets.manifest import Record
    from kvlp.knowledge.graph import KnowledgeGraph

__all__ = [
    "NAMED",
    "NEVER_NAMED",
    "NOT_KNOWN",
    "ClassTask",
    "Query",
    "default_classes",
    "group_by_naming",
    "label_matrix",
    "labels_with_both",
    "parse_tasks",
    "query_relevance",
    "require_apart",
]

#: Groups of classes: whether the model's training texts named them.
NAMED, NEVER_NAMED, NOT_KNOWN = "named in training", "never named", "naming not known"

_VERSUS = re.compile(r"\s+(?:vs\.?|versus)\s+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ClassTask:
    """A class to tell from its absence, or from another class ("Bacterial Pneumonia vs Viral Pneumonia").

    With `versus`, images labelled with the class are positive, images labelled with the other are negative, and images
    with neither or both are left out.
    """

    name: str
    positive: str
    versus: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The one or two classes that it is about."""
        return (self.positive, self.versus) if self.versus else (self.positive,)

    @classmethod
    def parse(cls, text: str) -> ClassTask:
        """Read "edema" or "A vs B"."""
        parts = [part.strip() for part in _VERSUS.split(text.strip())]
        if not 1 <= len(parts) <= 2 or not all(parts):
            raise DataError(f"class {text!r}: expected a name, or two names as 'A vs B'")
        return cls(" vs ".join(parts), *parts)


@dataclass(frozen=True, slots=True)
class Query:
    """A text query and what makes an image relevant: classes that must be present, classes that must be absent."""

    text: str
    present: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()

    @property
    def target(self) -> str:
        """The relevance in words; queries that share it are resampled together."""
        return " and ".join([*self.present, *(f"no {name}" for name in self.absent)])


def parse_tasks(
    classes: Sequence[str] | Mapping[str, Sequence[str]],
) -> tuple[list[ClassTask], dict[str, list[str]]]:
    """Classes in order without doubles, and named groups of them ("seen" -> names); a plain list has no group."""
    groups = {name: list(members) for name, members in classes.items()} if isinstance(classes, Mapping) else {}
    flat = [name for members in groups.values() for name in members] if groups else list(classes)
    tasks = {task.name: task for task in map(ClassTask.parse, flat)}
    if not tasks:
        raise DataError("no class to evaluate; name at least one")
    return list(tasks.values()), {g: [ClassTask.parse(m).name for m in members] for g, members in groups.items()}


def label_matrix(records: Sequence[Record], tasks: Sequence[ClassTask], names: Names) -> Floats:
    """Labels of every record for every task: shape (N, C); 1, 0, -1 or NaN.

    Raises:
        DataError: a class is neither a label of any record nor known to the graph; near names are given.
    """
    rows = [{names(label): float(value) for label, value in record.labels.items()} for record in records]
    shown = {names(label): label for record in records for label in record.labels}
    for task in tasks:
        _require_known(task, shown, names)
    table = np.full((len(records), len(tasks)), math.nan)
    for column, task in enumerate(tasks):
        positive, versus = names(task.positive), names(task.versus) if task.versus else ""
        table[:, column] = [_label(row, positive, versus) for row in rows]
    return table


def query_relevance(records: Sequence[Record], queries: Sequence[Query], names: Names) -> Floats:
    """Whether each record answers each query: shape (Q, N); 1 or 0, NaN where a label that it needs is unknown."""
    present = sorted({name for query in queries for name in (*query.present, *query.absent)})
    tasks = [ClassTask(name, name) for name in present]
    table = dict(zip(present, label_matrix(records, tasks, names).T, strict=True)) if tasks else {}
    out = np.full((len(queries), len(records)), math.nan)
    for row, query in enumerate(queries):
        wanted = [table[name] for name in query.present] + [1 - table[name] for name in query.absent]
        if wanted:
            # One condition that fails settles it; otherwise every one must be known (uncertain is not).
            stack = np.stack([np.where((w == 0) | (w == 1), w, np.nan) for w in wanted])
            out[row] = np.where((stack == 0).any(axis=0), 0.0, np.where(np.isnan(stack).any(axis=0), np.nan, 1.0))
    return out


def _label(row: Mapping[str, float], positive: str, versus: str) -> float:
    own = row.get(positive, math.nan)
    if not versus:
        return own
    other = row.get(versus, math.nan)
    if own == 1 and other == 1:
        return math.nan
    if own == 1:
        return 1.0
    return 0.0 if other == 1 else math.nan


def _require_known(task: ClassTask, shown: Mapping[str, str], names: Names) -> None:
    for name in filter(None, (task.positive, task.versus)):
        if names(name) in shown or names.in_graph(name):
            continue
        near = get_close_matches(names(name), list(shown), n=3, cutoff=0.5)
        listed = ", ".join(shown[key] for key in (near or sorted(shown)[:12])) or "none"
        raise DataError(f"class {name!r} is neither a label of the manifest nor in the graph; labels: {listed}")


def labels_with_both(records: Sequence[Record]) -> list[str]:
    """Every label that is both present and absent somewhere in the rows: what can be scored."""
    values: dict[str, set[float]] = {}
    for record in records:
        for label, value in record.labels.items():
            values.setdefault(label, set()).add(float(value))
    return [label for label, found in values.items() if {0.0, 1.0} <= found]


def default_classes(records: Sequence[Record]) -> list[str]:
    """`labels_with_both`, or a DataError that says which labels there are."""
    if both := labels_with_both(records):
        return both
    shown = ", ".join(sorted({label for record in records for label in record.labels})[:12]) or "none"
    raise DataError(f"no label is both present and absent (labels: {shown}); name classes, for example 'A vs B'")


def group_by_naming(
    classes: Iterable[str], graph: KnowledgeGraph | None, trained: Sequence[str] | None
) -> dict[str, list[str]]:
    """Classes ("edema", "A vs B") under NAMED, NEVER_NAMED and, where the model does not say, NOT_KNOWN; none empty.

    Args:
        classes: class names.
        graph: brings names to one form.
        trained: the names that a model's training texts held, if it says so.
    """
    names = Names(graph)
    title = {"prompted classification": NAMED, "zero-shot": NEVER_NAMED, "not known": NOT_KNOWN}
    groups: dict[str, list[str]] = {NAMED: [], NEVER_NAMED: [], NOT_KNOWN: []}
    for name in classes:
        groups[title[names.naming(ClassTask.parse(name).names, trained)]].append(name)
    return {group: members for group, members in groups.items() if members}


def require_apart(train: Iterable[Record], test: Iterable[Record], *, name: str = "training") -> None:
    """Refuse training rows whose patient (or image, where there is none) is among the rows to score.

    Args:
        train: rows that something is learned on.
        test: rows to score.
        name: what the first are, for the message.

    Raises:
        DataError: how many patients stand on both sides.
    """
    shared = {r.patient_id or r.image for r in train} & {r.patient_id or r.image for r in test}
    if shared:
        raise DataError(f"{len(shared)} patients stand in both the {name} and the scored rows; split by patient")
