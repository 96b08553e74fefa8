"""KnowledgeGraph: lookups, relations, paths, subgraphs, content hash."""

import random
import subprocess
import sys

import pytest

from kvlp.errors import KnowledgeError
from kvlp.knowledge.graph import Concept, KnowledgeGraph, Relation

CONCEPTS = (
    Concept("opacity", "lung opacity", synonyms=("shadowing",), semantic_types=("finding",)),
    Concept("nodule", "lung nodule", synonyms=("coin lesion", "Röntgen spot"), source_ids=("UMLS:C0034079",)),
    Concept("cavity", "lung cavity", synonyms=("port-a-thing",), source_ids=("HP:0001",)),
    Concept("abscess", "abscess"),
    Concept("lung", "lung", semantic_types=("anatomy",)),
    Concept("alone", "alone"),
)
RELATIONS = (
    Relation("nodule", "is_a", "opacity"),
    Relation("cavity", "is_a", "nodule"),
    Relation("cavity", "is_a", "opacity"),
    Relation("abscess", "is_a", "cavity"),
    Relation("nodule", "located_in", "lung"),
)


@pytest.fixture
def graph() -> KnowledgeGraph:
    return KnowledgeGraph(CONCEPTS, RELATIONS, name="small")


def test_sequence_and_mapping_habits(graph: KnowledgeGraph) -> None:
    assert len(graph) == 6
    assert [c.id for c in graph] == [c.id for c in CONCEPTS] == [c.id for c in graph.concepts]
    assert "nodule" in graph
    assert "mass" not in graph
    assert graph["nodule"].surfaces == ("lung nodule", "coin lesion", "Röntgen spot")
    assert tuple(graph.relations) == RELATIONS
    with pytest.raises(KnowledgeError, match=r"no concept 'nodul'; did you mean nodule\?"):
        graph["nodul"]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("nodule", "nodule"),
        ("Lung-Nodule", "nodule"),
        ("lung_nodule", "nodule"),
        ("COIN LESION", "nodule"),
        ("rontgen spot", "nodule"),
        ("Port a Thing", "cavity"),
        ("C0034079", "nodule"),
        ("UMLS:c0034079", "nodule"),
        ("hp:0001", "cavity"),
    ],
)
def test_concept_takes_ids_and_surfaces(graph: KnowledgeGraph, key: str, expected: str) -> None:
    assert graph.concept(key).id == expected


def test_a_name_comes_before_another_concepts_synonym() -> None:
    graph = KnowledgeGraph([Concept("a", "first", synonyms=("second",)), Concept("b", "second")], [], name="g")
    assert graph.concept("second").id == "b"


def test_unknown_concept_names_near_ones(graph: KnowledgeGraph) -> None:
    with pytest.raises(KnowledgeError, match=r"no concept 'coin leson'; did you mean nodule"):
        graph.concept("coin leson")
    with pytest.raises(KnowledgeError, match="kvlp kg find"):
        graph.concept("zzzzqqqq")


def test_find_orders_equal_beginning_words_similar(graph: KnowledgeGraph) -> None:
    assert next(c.id for c in graph.find("lung")) == "lung"
    assert {c.id for c in graph.find("lung")} == {"lung", "opacity", "nodule", "cavity"}
    assert [c.id for c in graph.find("nodule lung")][:1] == ["nodule"]
    assert [c.id for c in graph.find("nodle")] == ["nodule"]
    assert len(graph.find("lung", k=2)) == 2
    assert graph.find("") == graph.find("  ") == graph.find("lung", k=0) == []


def test_hierarchy(graph: KnowledgeGraph) -> None:
    assert graph.parents("cavity") == ["nodule", "opacity"]
    assert graph.children("opacity") == ["nodule", "cavity"]
    assert graph.ancestors("abscess") == {"cavity", "nodule", "opacity"}
    assert graph.descendants("opacity") == {"nodule", "cavity", "abscess"}
    assert graph.ancestors("lung") == graph.descendants("lung") == set()


def test_closures_end_on_a_cycle() -> None:
    circle = [Relation("a", "is_a", "b"), Relation("b", "is_a", "c"), Relation("c", "is_a", "a")]
    graph = KnowledgeGraph([Concept(i, i) for i in "abc"], circle, name="g")
    assert graph.ancestors("a") == graph.descendants("a") == {"b", "c"}


def test_neighbours_by_type_and_direction(graph: KnowledgeGraph) -> None:
    assert graph.neighbours("nodule") == [RELATIONS[0], RELATIONS[4]]
    assert graph.neighbours("nodule", "located_in") == [RELATIONS[4]]
    assert graph.neighbours("nodule", direction="in") == [RELATIONS[1]]
    assert len(graph.neighbours("nodule", direction="both")) == 3
    with pytest.raises(KnowledgeError, match="no concept"):
        graph.neighbours("nothing")


def test_shortest_path_ignores_direction_and_takes_surfaces(graph: KnowledgeGraph) -> None:
    assert graph.shortest_path("lung", "abscess") == ["lung", "nodule", "cavity", "abscess"]
    assert graph.shortest_path("coin lesion", "nodule") == ["nodule"]
    with pytest.raises(KnowledgeError, match="no way from 'alone' to 'lung'"):
        graph.shortest_path("alone", "lung")


def test_shortest_path_against_a_slow_search() -> None:
    rng = random.Random(4)
    ids = [f"c{i}" for i in range(30)]
    edges = [Relation(rng.choice(ids), "to", rng.choice(ids)) for _ in range(45)]
    graph = KnowledgeGraph([Concept(i, i) for i in ids], edges, name="random")
    distance = {"c0": 0}
    while True:  # relax until nothing changes
        better = {}
        for r in edges:
            for one, two in ((r.head, r.tail), (r.tail, r.head)):
                if one in distance and distance[one] + 1 < distance.get(two, 99):
                    better[two] = distance[one] + 1
        if not better:
            break
        distance.update(better)
    for target, steps in distance.items():
        assert len(graph.shortest_path("c0", target)) == steps + 1


def test_subgraph_is_a_networkx_multigraph(graph: KnowledgeGraph) -> None:
    near = graph.subgraph(["abscess"], depth=1)
    assert set(near.nodes) == {"abscess", "cavity"}
    assert list(near.edges(keys=True)) == [("abscess", "cavity", "is_a")]
    assert set(graph.subgraph(["abscess"], depth=2).nodes) == {"abscess", "cavity", "nodule", "opacity"}
    assert set(graph.subgraph(["coin lesion"], depth=0).nodes) == {"nodule"}
    whole = graph.subgraph()
    assert (whole.number_of_nodes(), whole.number_of_edges()) == (6, 5)
    assert whole.nodes["nodule"]["synonyms"] == ("coin lesion", "Röntgen spot")
    assert whole["nodule"]["lung"]["located_in"]["type"] == "located_in"


def test_content_hash_sees_content_and_not_order(graph: KnowledgeGraph) -> None:
    turned = KnowledgeGraph(reversed(CONCEPTS), reversed(RELATIONS), name="other", version="2", licence="x")
    assert turned.content_hash == graph.content_hash
    assert len(graph.content_hash) == 64
    fewer = KnowledgeGraph(CONCEPTS, RELATIONS[1:], name="small")
    assert fewer.content_hash != graph.content_hash
    other = (Concept("opacity", "lung opacity", synonyms=("shadow",), semantic_types=("finding",)), *CONCEPTS[1:])
    assert KnowledgeGraph(other, RELATIONS, name="small").content_hash != graph.content_hash


def test_content_hash_does_not_confuse_fields() -> None:
    one = KnowledgeGraph([Concept("a", "n", synonyms=("x",))], [], name="g")
    two = KnowledgeGraph([Concept("a", "n", descriptions=("x",))], [], name="g")
    three = KnowledgeGraph([Concept("a", "n", synonyms=("x", "y"))], [], name="g")
    four = KnowledgeGraph([Concept("a", "n", synonyms=("x, y",))], [], name="g")
    assert len({g.content_hash for g in (one, two, three, four)}) == 4


@pytest.mark.parametrize(
    ("concepts", "message"),
    [
        ([Concept("a", "x"), Concept("a", "y")], "concept id 'a' is used twice"),
        ([Concept("", "x")], "no id or no name"),
        ([Concept("a", "  ")], "no id or no name"),
        ([Concept("a", "x", number="many")], "number 'many'; expected count, mass, plural"),
    ],
)
def test_unusable_concepts_are_refused(concepts: list[Concept], message: str) -> None:
    with pytest.raises(KnowledgeError, match=message):
        KnowledgeGraph(concepts, [], name="g")


def test_loading_chest_needs_no_heavy_module() -> None:
    code = (
        "import sys; from kvlp.knowledge.graph import KnowledgeGraph; KnowledgeGraph.load('chest').concept('ett');"
        "print([m for m in ('torch', 'pandas', 'numpy', 'pyarrow', 'networkx', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
