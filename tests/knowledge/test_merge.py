"""Merging: what becomes one, what stays apart, circles, and where each part came from."""

import itertools
from pathlib import Path

import pytest

from kvlp.errors import KnowledgeError
from kvlp.knowledge.graph import Concept, KnowledgeGraph, Relation
from kvlp.knowledge.merge import Merged, merge
from kvlp.knowledge.provenance import Origin, read_origins
from kvlp.knowledge.sources.report import SourceReport


def graph(name: str, *concepts: Concept, relations: tuple[tuple[str, str, str], ...] = ()) -> KnowledgeGraph:
    return KnowledgeGraph(concepts, [Relation(*r) for r in relations], name=name, version="1", licence=f"of {name}")


def concept(key: str, name: str, *ids: str, **more: object) -> Concept:
    return Concept(key, name, source_ids=ids, **more)  # type: ignore[arg-type]


def parts(merged: Merged) -> set[frozenset[tuple[str, str]]]:
    """Which concepts became one, as sets of (graph, id)."""
    found: dict[str, set[tuple[str, str]]] = {}
    for o in merged.origins:
        if o.part == "id":
            found.setdefault(o.concept, set()).add((o.graph, o.text))
    return {frozenset(p) for p in found.values()}


A = graph(
    "a",
    concept("A:1", "effusion", "UMLS:C0000001", synonyms=("fluid",), semantic_types=("finding",)),
    concept("A:2", "lung thing", "UMLS:C0000002"),
    relations=(("A:1", "is_a", "A:2"),),
)
B = graph(
    "b",
    concept(
        "B:1",
        "Effusion",
        "UMLS:C0000001",
        synonyms=("Fluid", "hydrothorax"),
        definition="Water.",
        semantic_types=("d",),
    ),
    concept("B:2", "thorax disease", "UMLS:C0000009"),
    relations=(("B:1", "is_a", "B:2"),),
)


def test_shared_ids_make_one_concept_with_all_that_is_known() -> None:
    merged = merge([A, B]).graph
    assert [c.id for c in merged] == ["A:1", "A:2", "B:2"]
    effusion = merged["A:1"]
    assert (effusion.name, effusion.synonyms, effusion.definition) == ("effusion", ("fluid", "hydrothorax"), "Water.")
    assert effusion.semantic_types == ("finding", "d")
    assert effusion.source_ids == ("UMLS:C0000001", "B:1")
    assert merged.parents("A:1") == ["A:2", "B:2"]
    assert merged.concept("B:1").id == "A:1"
    assert (merged.name, merged.version, merged.licence) == ("a+b", "a 1; b 1", "a: of a; b: of b")


def test_each_part_tells_its_graph() -> None:
    said = {(o.part, o.text): o.graph for o in merge([A, B]).origins if o.concept == "A:1"}
    assert said == {
        ("id", "A:1"): "a",
        ("id", "B:1"): "b",
        ("name", "effusion"): "a",
        ("definition", ""): "b",
        ("synonym", "fluid"): "a",
        ("synonym", "hydrothorax"): "b",
        ("type", "finding"): "a",
        ("type", "d"): "b",
        ("source_id", "UMLS:C0000001"): "a",
        ("source_id", "B:1"): "b",
    }


def test_sharing_goes_on_from_graph_to_graph() -> None:
    one = graph("one", concept("x", "x", "UMLS:C0000001"))
    two = graph("two", concept("y", "y", "UMLS:C0000001", "UMLS:C0000002"))
    three = graph("three", concept("z", "z", "UMLS:C0000002"))
    assert len(merge([one, two, three]).graph) == 1
    assert len(merge([one, three]).graph) == 2


def test_what_counts_as_the_same_id() -> None:
    umls = graph("umls", concept("C0000001", "x", "UMLS:C0000001"), concept("C0000002", "plain"))
    hpo = graph("hpo", concept("HP:1", "y", "UMLS:C0000001", "MESH:D1"), concept("HP:2", "w", "UMLS:C0000002"))
    slug = graph("slug", concept("z", "z", "HP:1"), concept("m", "m", "MESH:D1"))
    assert parts(merge([umls, hpo])) == {
        frozenset({("umls", "C0000001"), ("hpo", "HP:1")}),
        frozenset({("umls", "C0000002"), ("hpo", "HP:2")}),
    }
    assert frozenset({("hpo", "HP:1"), ("slug", "z")}) in parts(merge([hpo, slug]))
    assert frozenset({("slug", "m")}) in parts(merge([hpo, slug]))
    other = graph("other", concept("m", "m", "mesh:D1"))
    assert frozenset({("hpo", "HP:1"), ("other", "m")}) in parts(merge([hpo, other], on=("mesh",)))


def test_plain_ids_are_the_same_only_with_the_same_name() -> None:
    one, two = graph("one", concept("7", "nodule")), graph("two", concept("7", "fracture"), concept("8", "x"))
    report = SourceReport()
    merged = merge([one, two], report=report).graph
    assert [(c.id, c.name) for c in merged] == [("7", "nodule"), ("two/7", "fracture"), ("8", "x")]
    assert report.named == {"renamed": ["7 of two is two/7"]}
    assert len(merge([one, graph("three", concept("7", "Nodule"))]).graph) == 1


def test_a_graph_that_tells_two_things_apart_is_heeded() -> None:
    apart = graph("apart", concept("P:1", "big", "UMLS:C0000001"), concept("P:2", "Small thing", "UMLS:C0000002"))
    both = graph("both", concept("Q:1", "small thing", "UMLS:C0000001", "UMLS:C0000002"))
    report = SourceReport()
    merged = merge([apart, both], report=report)
    assert parts(merged) == {
        frozenset({("apart", "P:1")}),
        frozenset({("apart", "P:2"), ("both", "Q:1")}),
    }
    assert report.named == {"conflict": ["P:1 and Q:1"]}


def test_which_concepts_are_one_does_not_hang_on_the_order() -> None:
    graphs = [
        graph("a", concept("A:1", "n", "UMLS:C0000001"), concept("A:2", "m", "UMLS:C0000002")),
        graph("b", concept("B:1", "m", "UMLS:C0000001", "UMLS:C0000002"), concept("B:2", "q", "UMLS:C0000003")),
        graph("c", concept("C:1", "n", "UMLS:C0000002", "UMLS:C0000003"), concept("C:2", "k", "UMLS:C0000001")),
    ]
    ways = {frozenset(parts(merge(order))) for order in itertools.permutations(graphs)}
    assert len(ways) == 1
    again = merge(graphs)
    assert (merge(graphs).graph.content_hash, merge(graphs).origins) == (again.graph.content_hash, again.origins)


def test_relations_tell_all_their_sources_and_none_is_lost() -> None:
    one = graph("one", concept("X:1", "x"), concept("X:2", "y"), relations=(("X:1", "r", "X:2"),))
    two = KnowledgeGraph(one.concepts, [Relation("X:1", "r", "X:2", "book")], name="two")
    assert list(merge([one, two]).graph.relations) == [Relation("X:1", "r", "X:2", "one; book")]


def test_a_circle_is_broken_at_the_less_trusted_graph_and_named() -> None:
    ids = (concept("X:1", "x"), concept("X:2", "y"), concept("X:3", "z"))
    one = graph("one", *ids, relations=(("X:1", "is_a", "X:2"), ("X:2", "is_a", "X:3")))
    two = graph("two", *ids, relations=(("X:3", "is_a", "X:1"), ("X:3", "part_of", "X:1")))
    report = SourceReport()
    merged = merge([one, two], report=report).graph
    assert [(r.head, r.type, r.tail) for r in merged.relations] == [
        ("X:1", "is_a", "X:2"),
        ("X:2", "is_a", "X:3"),
        ("X:3", "part_of", "X:1"),
    ]
    assert report.named == {"cycle": ["X:3 is_a X:1 is_a X:2 is_a X:3 (left out: X:3 is_a X:1, two)"]}
    assert not [p for p in merged.validate() if p.severity == "error"]
    other_way = merge([two, one]).graph
    assert ("X:2", "is_a", "X:3") not in {(r.head, r.type, r.tail) for r in other_way.relations}


def test_a_relation_between_what_became_one_is_reported() -> None:
    one = graph("one", concept("X:1", "x", "UMLS:C0000001"), concept("X:2", "y"), relations=(("X:2", "is_a", "X:1"),))
    two = graph("two", concept("Y:1", "x", "UMLS:C0000001"), concept("X:2", "y"), relations=(("Y:1", "r", "X:2"),))
    assert [(r.head, r.tail) for r in merge([one, two]).graph.relations] == [("X:2", "X:1"), ("X:1", "X:2")]


def test_one_graph_comes_back_as_it_was() -> None:
    chest = KnowledgeGraph.load("chest")
    assert KnowledgeGraph.merge(chest, name="chest").content_hash == chest.content_hash


def test_no_graph_and_two_of_one_name() -> None:
    with pytest.raises(KnowledgeError, match="at least one"):
        merge([])
    with pytest.raises(KnowledgeError, match="two graphs are called 'a'"):
        merge([A, A])


def test_provenance_is_saved_and_handed_on(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", exc_type=ImportError)
    merged = merge([A, B], name="ab")
    folder = merged.save(tmp_path / "ab")
    assert read_origins(folder) == list(merged.origins)
    assert KnowledgeGraph.load(folder).content_hash == merged.graph.content_hash
    third = graph("c", concept("C:1", "water", "UMLS:C0000001"))
    again = merge([KnowledgeGraph.load(folder), third], before={"ab": read_origins(folder)})
    assert Origin("A:1", "synonym", "hydrothorax", "b") in again.origins
    assert Origin("A:1", "synonym", "water", "c") in again.origins
    assert Origin("A:1", "definition", "", "b") in again.origins
    assert read_origins(tmp_path) == []
