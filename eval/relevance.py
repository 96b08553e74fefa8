"""What makes an item relevant: labels read through the graph, and how much two sets of labels share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from kvlp.errors import KnowledgeError, ShapeError
from kvlp.eval.metrics import Floats
from kvlp.knowledge.names import Names

__all__ = ["concept_labels", "label_overlap"]


def concept_labels(labels: Sequence[Mapping[str, float]], concepts: Sequence[str], names: Names) -> Floats:
    """Labels of every item for every concept, by the graph: shape (N, K); 1, 0, -1 or NaN.

    A concept is present if it, or something more specific, is labelled present ("pneumonia" makes "lung opacity"
    present). It is absent if it, or something more general, is labelled absent and nothing below it present. It is
    uncertain if it, or something more specific, is. Else nothing is known of it.

    Args:
        labels: of each item, label -> 1, 0, -1 or NaN.
        concepts: names or ids.
        names: brings both to one form; without a graph a concept is just its name.

    Raises:
        KnowledgeError: a concept that is neither in the graph nor a label of any item.
    """
    rows = [{names(label): float(value) for label, value in row.items()} for row in labels]
    used = {key for row in rows for key in row}
    out = np.full((len(rows), len(concepts)), math.nan)
    for column, concept in enumerate(concepts):
        own = names(concept)
        if own not in used and not names.in_graph(concept):
            shown = ", ".join(sorted({label for row in labels for label in row})[:12]) or "none"
            raise KnowledgeError(f"concept {concept!r} is neither in the graph nor a label; labels: {shown}")
        below, above = {own}, {own}
        if names.graph is not None and names.in_graph(concept):
            below |= names.graph.descendants(own)
            above |= names.graph.ancestors(own)
        out[:, column] = [_state(row, below & used, above & used) for row in rows]
    return out


def label_overlap(query_labels: ArrayLike, pool_labels: ArrayLike) -> Floats:
    """Graded relevance: labels present in both over labels present in either, among those known of both.

    Two items with nothing present share everything: 1. Items with no label known of both are not judged: NaN.

    Args:
        query_labels: shape (Q, C); 1, 0, -1 or NaN.
        pool_labels: shape (N, C), likewise.

    Returns:
        Shape (Q, N), in [0, 1] or NaN.
    """
    asked, held = np.asarray(query_labels, dtype=np.float64), np.asarray(pool_labels, dtype=np.float64)
    if asked.ndim != 2 or held.ndim != 2 or asked.shape[1] != held.shape[1]:
        raise ShapeError(f"query_labels must be (Q, C) and pool_labels (N, C); got {asked.shape} and {held.shape}")
    (yes, no), (has, lacks) = ([(labels == value).astype(np.float64) for value in (1, 0)] for labels in (asked, held))
    both = yes @ has.T
    either = both + yes @ lacks.T + no @ has.T
    known = either + no @ lacks.T
    shared = np.divide(both, either, out=np.ones_like(both), where=either > 0)
    return np.where(known > 0, shared, np.nan)


def _state(row: Mapping[str, float], below: Iterable[str], above: Iterable[str]) -> float:
    lower = [row[key] for key in below if key in row]
    if 1 in lower:
        return 1.0
    if any(row.get(key) == 0 for key in above):
        return 0.0
    return -1.0 if -1 in lower else math.nan
