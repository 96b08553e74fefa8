"""A tree of findings read from the graph's is_a relations: who is below whom, and who may see whom."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kvlp.errors import KnowledgeError
from kvlp.knowledge.graph import KnowledgeGraph

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kvlp.typing import IntArray

__all__ = ["BranchTree", "branch_tree"]


@dataclass(frozen=True, eq=False)
class BranchTree:
    """A tree of n concepts below one root that stands for all of them.

    Attributes:
        concepts: n concept ids; concept i is node i + 1, the root is node 0. A node comes after its parent.
        parent: (n + 1,) int64, the node above; -1 for the root.
    """

    concepts: tuple[str, ...]
    parent: IntArray

    def __len__(self) -> int:
        return len(self.parent)

    @property
    def depth(self) -> IntArray:
        """(n + 1,) int64: steps down from the root, 0 for the root itself."""
        depth = np.zeros(len(self), dtype=np.int64)
        for node in range(1, len(self)):
            depth[node] = depth[self.parent[node]] + 1
        return depth

    @property
    def branch(self) -> IntArray:
        """(n + 1,) int64: the node right below the root that a node is at or under; 0 for the root."""
        branch = np.zeros(len(self), dtype=np.int64)
        for node in range(1, len(self)):
            above = self.parent[node]
            branch[node] = branch[above] if above else node
        return branch

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(n + 1, n + 1) bool, symmetric: True where two nodes see each other.

        They do if they are of one branch, have the same parent, or one of them is the root.
        """
        branch = self.branch
        together = branch[:, None] == branch[None, :]
        siblings = self.parent[:, None] == self.parent[None, :]
        root = np.arange(len(self)) == 0
        mask: NDArray[np.bool_] = together | siblings | root[:, None] | root[None, :]
        return mask


def branch_tree(
    graph: KnowledgeGraph, *, roots: Sequence[str] = (), classes: Collection[str] = (), levels: int | None = None
) -> BranchTree:
    """Read a tree from the graph's is_a relations.

    A concept of several parents hangs below the one that is reached first, level by level in the order of `roots`; one
    that nothing leads to hangs below the root.

    Args:
        graph: concepts and is_a relations; a graph without relations gives a flat tree.
        roots: ids of the concepts right below the root; the tree is what lies below them.
        classes: without roots, ids of concepts; the tree is these and everything above them.
        levels: most levels below the roots; None for all.

    Raises:
        KnowledgeError: neither roots nor classes, or an id that the graph does not have.
    """
    if roots:
        below = set().union(*(graph.descendants(root) for root in roots))
        chosen = below | set(roots)
        first: list[str] = list(dict.fromkeys(roots))
    elif classes:
        chosen = set(classes).union(*(graph.ancestors(c) for c in classes))
        order = [concept.id for concept in graph.concepts if concept.id in chosen]
        first = [c for c in order if not set(graph.parents(c)) & chosen]
    else:
        raise KnowledgeError(f"graph '{graph.name}': expected roots or classes to make a tree of, got neither")
    return _grown(graph, first, chosen, levels)


def _grown(graph: KnowledgeGraph, first: Iterable[str], chosen: set[str], levels: int | None) -> BranchTree:
    """Level by level, each concept once."""
    number: dict[str, int] = {}
    parent = [-1]

    def hang(concept: str, above: int) -> bool:
        if concept not in chosen or concept in number:
            return False
        number[concept] = len(parent)
        parent.append(above)
        return True

    level = [concept for concept in first if hang(concept, 0)]
    depth = 0
    while level and (levels is None or depth < levels):
        level = [child for above in level for child in graph.children(above) if hang(child, number[above])]
        depth += 1
    if levels is None:  # a circle has no first
        for concept in graph.concepts:
            hang(concept.id, 0)
    return BranchTree(tuple(number), np.array(parent, dtype=np.int64))
