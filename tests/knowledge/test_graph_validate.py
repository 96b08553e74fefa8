"""Validation names every fault; the shuffled control destroys what it should and nothing else."""

import itertools
import random

import pytest

from kvlp.knowledge.graph import Concept, KnowledgeGraph, Relation
from kvlp.knowledge.validate import find_cycle


def _graph(*relations: tuple[str, str, str], concepts: str = "abcde") -> KnowledgeGraph:
    return KnowledgeGraph([Concept(i, f"name {i}") for i in concepts], [Relation(*r) for r in relations], name="g")


def _kinds(graph: KnowledgeGraph) -> list[str]:
    return [p.kind for p in graph.validate()]


def test_sound_graph_has_no_problem() -> None:
    assert _graph(("a", "is_a", "b"), ("c", "is_a", "b"), ("a", "is_a", "d"), ("d", "is_a", "b")).validate() == []


def test_dangling_both_ends_and_near_name() -> None:
    graph = KnowledgeGraph([Concept("nodule", "n")], [Relation("nodul", "is_a", "x")], name="g")
    first, second = graph.validate()
    assert (first.kind, first.severity, first.where) == ("dangling", "error", "nodul is_a x")
    assert first.message == "relation 'nodul is_a x': no concept 'nodul'; did you mean 'nodule'?"
    assert "no concept 'x'" in second.message


def test_cycle_is_spelled_out() -> None:
    graph = _graph(("a", "is_a", "b"), ("b", "is_a", "c"), ("c", "is_a", "b"), ("d", "may_cause", "e"))
    (problem,) = graph.validate()
    assert (problem.kind, problem.message) == ("cycle", "is_a goes in a circle: b is_a c is_a b")


def test_other_relations_may_go_in_circles() -> None:
    assert _kinds(_graph(("a", "opposite_of", "b"), ("b", "opposite_of", "a"))) == []


def test_find_cycle_agrees_with_networkx() -> None:
    import networkx as nx

    rng = random.Random(0)
    seen = set()
    for _ in range(200):
        edges = [(rng.choice("abcdefgh"), "is_a", rng.choice("abcdefgh")) for _ in range(rng.randrange(14))]
        edges = [e for e in edges if e[0] != e[2]]
        cycle = find_cycle(_graph(*edges, concepts="abcdefgh"))
        acyclic = nx.is_directed_acyclic_graph(nx.DiGraph((a, b) for a, _, b in edges))
        assert bool(cycle) is not acyclic
        for one, two in zip(cycle, [*cycle[1:], *cycle[:1]], strict=True):
            assert (one, "is_a", two) in edges
        seen.add(acyclic)
    assert seen == {True, False}


def test_deep_hierarchies_need_no_recursion() -> None:
    ids = [f"c{i}" for i in range(20_000)]
    chain = [Relation(a, "is_a", b) for a, b in itertools.pairwise(ids)]
    graph = KnowledgeGraph([Concept(i, i) for i in ids], chain, name="deep")
    assert find_cycle(graph) == []
    assert len(graph.ancestors("c0")) == 19_999


def test_repeated_relation_and_self_loop() -> None:
    assert _kinds(_graph(("a", "x", "b"), ("a", "x", "b"), ("a", "y", "b"))) == ["duplicate_relation"]
    assert _kinds(_graph(("a", "x", "a"))) == ["self_loop"]


def test_shared_surface_of_two_concepts() -> None:
    one, two = Concept("a", "Pleural-fluid"), Concept("b", "x", synonyms=("pleural fluid", "Pleural Fluid"))
    (problem,) = KnowledgeGraph([one, two], [], name="g").validate()
    assert (problem.kind, problem.where) == ("duplicate_surface", "b")
    assert "both 'a' and 'b'" in problem.message
    assert KnowledgeGraph([Concept("a", "Nodule", synonyms=("nodule",))], [], name="g").validate() == []


def test_findings_and_diseases_need_a_definition() -> None:
    concepts = [Concept(t, t, semantic_types=(t,)) for t in ("finding", "disease", "anatomy")]
    assert [p.where for p in KnowledgeGraph(concepts, [], name="g").validate()] == ["finding", "disease"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a hollow nodule", False),
        ("a cavity in the lung", True),
        ("two Cavities", True),
        ("thick-walled abscess", True),
        ("a large lung-cavity", True),
        ("concavity of the edge", False),
    ],
)
def test_descriptions_must_not_name_the_concept_or_a_kind_of_it(text: str, named: bool) -> None:
    cavity = Concept("cavity", "lung cavity", synonyms=("cavity", "cavities"), descriptions=(text,))
    concepts = [cavity, Concept("abscess", "abscess"), Concept("nodule", "nodule")]
    relations = [Relation("abscess", "is_a", "cavity"), Relation("cavity", "is_a", "nodule")]
    kinds = _kinds(KnowledgeGraph(concepts, relations, name="g"))
    assert kinds == (["named_in_description"] if named else [])


def test_errors_come_first() -> None:
    concepts = [Concept("a", "a", semantic_types=("finding",)), Concept("b", "b")]
    graph = KnowledgeGraph(concepts, [Relation("b", "is_a", "z")], name="g")
    assert [p.severity for p in graph.validate()] == ["error", "warning"]


# ---- the control ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chest() -> KnowledgeGraph:
    return KnowledgeGraph.load("chest")


def test_shuffled_is_a_pure_function_of_the_seed(chest: KnowledgeGraph) -> None:
    assert chest.shuffled(3).content_hash == chest.shuffled(3).content_hash
    assert chest.shuffled(3).content_hash != chest.shuffled(4).content_hash
    turned = KnowledgeGraph(reversed(chest.concepts), chest.relations, name="chest")
    assert turned.shuffled(3).content_hash == chest.shuffled(3).content_hash


def test_shuffled_keeps_names_and_moves_all_knowledge(chest: KnowledgeGraph) -> None:
    control = chest.shuffled(0)
    assert [(c.id, c.name, c.number, c.semantic_types) for c in control] == [
        (c.id, c.name, c.number, c.semantic_types) for c in chest
    ]
    for concept in chest:
        if "finding" in concept.semantic_types:
            assert control[concept.id].descriptions != concept.descriptions
            assert control[concept.id].definition != concept.definition
            assert not set(control[concept.id].synonyms) & set(concept.synonyms)
    assert sorted(c.definition for c in control) == sorted(c.definition for c in chest)
    assert sorted(c.synonyms for c in control) == sorted(c.synonyms for c in chest)


def test_no_concept_keeps_its_own_knowledge_for_any_seed() -> None:
    concepts = [Concept(i, i, synonyms=(f"syn {i}",), definition=f"def {i}") for i in "abcd"]
    graph = KnowledgeGraph(concepts, [Relation("a", "may_cause", "b")], name="g")
    for seed in range(40):
        control = graph.shuffled(seed)
        assert all(control[c.id].definition != c.definition and control[c.id].synonyms != c.synonyms for c in graph)
        assert control.relations[0].head != "a"
        assert control.relations[0].tail != "b"


def test_shuffled_exchanges_within_a_semantic_type(chest: KnowledgeGraph) -> None:
    owner = {c.synonyms: c.semantic_types[0] for c in chest if c.synonyms}
    assert all(owner[c.synonyms] == c.semantic_types[0] for c in chest.shuffled(1) if c.synonyms)


def test_shuffled_relations_are_sound_and_other(chest: KnowledgeGraph) -> None:
    control = chest.shuffled(0)
    assert find_cycle(control) == []
    assert len(control.relations) == len(chest.relations)
    kept = set(chest.relations) & set(control.relations)
    assert len(kept) < 0.05 * len(chest.relations)
    assert chest.shuffled(0, relations=False).relations == chest.relations


def test_shuffled_can_keep_synonyms(chest: KnowledgeGraph) -> None:
    control = chest.shuffled(0, synonyms=False)
    assert all(control[c.id].synonyms == c.synonyms for c in chest)
    assert control["pneumothorax"].descriptions != chest["pneumothorax"].descriptions


def test_shuffled_control_says_what_it_is(chest: KnowledgeGraph) -> None:
    control = chest.shuffled(5)
    assert control.name == "chest-shuffled"
    assert control.version == f"{chest.version}+shuffled.5"
    assert control.licence == chest.licence
