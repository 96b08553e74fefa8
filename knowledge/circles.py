"""is_a circles in graphs of any size: what cannot lie on one is peeled off, what is left is small."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kvlp.typing import IntArray

__all__ = ["in_circles", "peel"]

#: so few edges need no further peeling: networkx takes them
_FEW = 50_000


def peel(heads: IntArray, tails: IntArray, *, few: int = 0) -> IntArray:
    """Return the numbers of the edges that are left when ends that nothing goes on from are taken off, again and again.

    Every edge of a circle is among them, and edges between two circles. With `few`, stop at so many edges.
    """
    left = np.flatnonzero(heads != tails)
    while len(left) > few:
        head, tail = heads[left], tails[left]
        count = int(max(head.max(), tail.max())) + 1
        begins, ends = np.zeros(count, bool), np.zeros(count, bool)
        begins[head], ends[tail] = True, True
        kept = left[begins[tail] & ends[head]]
        if len(kept) == len(left):
            break
        left = kept
    return left


def in_circles(heads: IntArray, tails: IntArray) -> NDArray[np.bool_]:
    """Say of each edge whether it lies on a circle of two or more (a strongly connected component)."""
    import networkx as nx

    left = peel(heads, tails, few=_FEW)
    graph = nx.DiGraph(zip(heads[left].tolist(), tails[left].tolist(), strict=True))
    part = {node: n for n, nodes in enumerate(nx.strongly_connected_components(graph)) for node in nodes}
    found = np.zeros(len(heads), bool)
    found[left] = [part[h] == part[t] for h, t in zip(heads[left].tolist(), tails[left].tolist(), strict=True)]
    return found
