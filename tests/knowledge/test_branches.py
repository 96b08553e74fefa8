"""Trees read from is_a: five nodes by hand, concepts of several parents, circles, and the bundled graph."""

from __future__ import annotations

import numpy as np
import pytest

from kvlp.errors import KnowledgeError
from kvlp.knowledge.branches import branch_tree
from kvlp.knowledge.graph import Concept, KnowledgeGraph, Relation


def graph_of(*edges: tuple[str, str]) -> KnowledgeGraph:
    names = dict.fromkeys(name for child, parent in edges for name in (parent, child))
    concepts = [Concept(name, name, semantic_types=("finding",)) for name in names]
    return KnowledgeGraph(concepts, [Relation(child, "is_a", parent) for child, parent in edges], name="small")


def test_the_mask_of_five_nodes_by_hand() -> None:
    """root 0; a 1 and b 2 below it; c 3 below a, d 4 below b."""
    tree = branch_tree(graph_of(("c", "a"), ("d", "b")), roots=["a", "b"])
    assert tree.concepts == ("a", "b", "c", "d")
    assert tree.parent.tolist() == [-1, 0, 0, 1, 2]
    assert tree.depth.tolist() == [0, 1, 1, 2, 2]
    assert tree.branch.tolist() == [0, 1, 2, 1, 2]
    assert tree.mask.astype(int).tolist() == [
        [1, 1, 1, 1, 1],
        [1, 1, 1, 1, 0],  # a: its sister b, its own c, not the niece d
        [1, 1, 1, 0, 1],
        [1, 1, 0, 1, 0],  # c: of its branch alone
        [1, 0, 1, 0, 1],
    ]


def test_a_concept_of_two_parents_hangs_once_below_the_nearer_or_the_first() -> None:
    graph = graph_of(("x", "a"), ("x", "b"), ("deep", "a"), ("y", "deep"), ("y", "b"))
    tree = branch_tree(graph, roots=["a", "b"])
    above = {c: tree.parent[i + 1] for i, c in enumerate(tree.concepts)}
    assert above["x"] == 1 + tree.concepts.index("a")
    assert above["y"] == 1 + tree.concepts.index("b")
    assert sorted(tree.concepts) == ["a", "b", "deep", "x", "y"]
    turned = branch_tree(graph, roots=["b", "a"])
    assert turned.parent[1 + turned.concepts.index("x")] == 1 + turned.concepts.index("b")


def test_levels_cut_and_classes_grow_upwards() -> None:
    graph = graph_of(("b", "a"), ("c", "b"), ("d", "c"), ("e", "b"))
    assert branch_tree(graph, roots=["a"], levels=1).concepts == ("a", "b")
    assert branch_tree(graph, classes=["c"]).concepts == ("a", "b", "c")
    assert branch_tree(graph, classes=["c", "a"]).depth.tolist() == [0, 1, 2, 3]


def test_a_circle_and_a_graph_without_relations_still_make_a_tree() -> None:
    circle = branch_tree(graph_of(("a", "b"), ("b", "a")), classes=["a"])
    assert sorted(circle.concepts) == ["a", "b"]
    assert (circle.parent[1:] < np.arange(1, 3)).all()
    flat = KnowledgeGraph([Concept(n, n) for n in "abc"], [], name="flat")
    assert branch_tree(flat, classes=["a", "c"]).parent.tolist() == [-1, 0, 0]


def test_nothing_and_unknown_concepts_are_refused() -> None:
    graph = graph_of(("b", "a"))
    with pytest.raises(KnowledgeError, match="expected roots or classes"):
        branch_tree(graph)
    with pytest.raises(KnowledgeError, match="has no concept 'z'"):
        branch_tree(graph, roots=["z"])


def test_the_bundled_graph_gives_a_tree_whose_branches_are_its_own() -> None:
    graph = KnowledgeGraph.load("chest")
    tree = branch_tree(graph, roots=["pleural_abnormality", "lung_opacity", "enlarged_cardiomediastinum"])
    for node, concept in enumerate(tree.concepts, 1):
        above = tree.parent[node]
        assert above < node
        assert not above or tree.concepts[above - 1] in graph.parents(concept)
    effusion, thickening, mass = (
        1 + tree.concepts.index(c) for c in ("pleural_effusion", "pleural_plaque", "lung_mass")
    )
    assert tree.mask[effusion, thickening]
    assert not tree.mask[effusion, mass]
