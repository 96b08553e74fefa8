"""A graph that stays on disk answers as the same graph in memory does, and finds what a slow search finds."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow", exc_type=ImportError)
hypothesis = pytest.importorskip("hypothesis")

import pyarrow as pa  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from kvlp.errors import KnowledgeError  # noqa: E402
from kvlp.knowledge import table_store  # noqa: E402
from kvlp.knowledge.circles import in_circles, peel  # noqa: E402
from kvlp.knowledge.graph import Concept, KnowledgeGraph, Relation  # noqa: E402
from kvlp.knowledge.lookup import HashIndex, fold_texts, hash_text, hash_texts, upper_texts  # noqa: E402
from kvlp.knowledge.surfaces import fold  # noqa: E402
from kvlp.knowledge.table_store import TableStore  # noqa: E402
from kvlp.knowledge.tables import LazyRows, Texts, tables_of  # noqa: E402

WORDS = ("lung", "lungs", "Node", "nodule", "left", "é", "Röntgen", "of", "X-ray", "o'clock", "it", "a")


def random_graph(rng: random.Random) -> KnowledgeGraph:
    """A graph without self loops and is_a circles; surfaces are shared, ids are not."""

    def text() -> str:
        return rng.choice((" ", "-", "  ", "_")).join(rng.choices(WORDS, k=rng.randint(1, 4)))

    count = rng.randint(1, 9)
    ids = rng.sample(["c1", "c10", "C1", 'q"', "a b", "a", "ab", "é", "n_1", "n 2"], count)
    concepts = [
        Concept(
            id=i,
            name=text(),
            synonyms=tuple(text() for _ in range(rng.randrange(3))),
            definition=rng.choice(("", "What it is.")),
            descriptions=tuple(text() for _ in range(rng.randrange(2))),
            semantic_types=tuple(rng.sample(("finding", "disease", "anatomy"), rng.randrange(3))),
            source_ids=tuple(rng.sample(("UMLS:C1", "UMLS:C22", "HP:1", "hp:é", "C22"), rng.randrange(3))),
            number=rng.choice(("count", "mass", "plural")),
        )
        for i in ids
    ]
    pairs = [sorted(rng.sample(range(count), 2)) for _ in range(rng.randrange(12) if count > 1 else 0)]
    kinds, sources = ("is_a", "of", "may_cause"), ("", "kvlp")
    return KnowledgeGraph(
        concepts,
        [Relation(ids[b], rng.choice(kinds), ids[a], rng.choice(sources)) for a, b in pairs],
        name="g",
        licence="CC0",
    )


def answers(graph: KnowledgeGraph) -> list[Any]:
    """What every public method says."""

    def said(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except KnowledgeError as error:
            return str(error)

    ids = [c.id for c in graph.concepts]
    keys = [*ids, *(s for c in graph for s in (*c.surfaces, *c.source_ids)), "C1", "c22", "Rontgen", "nodul", "l", "zz"]
    keys += ["lung no", "left l", "a", "of it", "", "- ", "lung zz", "lung zz zz"]
    found: list[Any] = [ids, list(graph.concepts), list(graph.relations), len(graph), repr(graph), graph.content_hash]
    found += [said(lambda key=key: graph.concept(key)) for key in keys]
    found += [said(lambda key=key: graph[key]) for key in keys]
    found += [key in graph for key in keys]
    found += [graph.find(key, k=k) for key in keys for k in (1, 3, 20)]
    for i in ids:
        found += [graph.neighbours(i, kind, side) for kind in (None, "is_a", "x") for side in ("out", "in", "both")]
        found += [graph.parents(i), graph.children(i), graph.ancestors(i), graph.descendants(i)]
        found += [said(lambda i=i, other=other: graph.shortest_path(i, other)) for other in ids]
        around = graph.subgraph([i], depth=2)
        found += [list(around.nodes(data=True)), list(around.edges(keys=True, data=True))]
    found += [list(graph.subgraph().edges(keys=True, data=True)), graph.validate()]
    shuffled = graph.shuffled(3)
    found += [list(shuffled.concepts), list(shuffled.relations), graph.renamed("other").name]
    return found


@settings(max_examples=10)
@given(st.randoms(use_true_random=False))
def test_tables_answer_as_memory_does(rng: random.Random) -> None:
    graph = random_graph(rng)
    store = TableStore(tables_of(graph.concepts, graph.relations))
    assert answers(KnowledgeGraph.of_store(store, name="g", licence="CC0")) == answers(graph)


def test_a_saved_folder_answers_as_memory_does(tmp_path: Path) -> None:
    for seed in range(3):
        graph = random_graph(random.Random(seed))
        loaded = KnowledgeGraph.load(graph.save(tmp_path / str(seed)), check="full")
        assert isinstance(loaded.store, TableStore)
        assert answers(loaded) == answers(graph)
        assert graph.concepts == loaded.concepts
        assert loaded.relations == graph.relations


def test_chest_stays_itself(tmp_path: Path) -> None:
    chest = KnowledgeGraph.load("chest")
    loaded = KnowledgeGraph.load(chest.save(tmp_path / "chest"))
    assert isinstance(loaded.store, TableStore)
    assert loaded.store.content_hash() == chest.content_hash == loaded.content_hash
    for text in ("effusion", "air in", "opac", "left lung", "pneumothorx", "of the lung"):
        assert [c.id for c in loaded.find(text)] == [c.id for c in chest.find(text)]
    for concept in chest:
        assert loaded.ancestors(concept.id) == chest.ancestors(concept.id)


def test_the_content_hash_is_what_older_versions_wrote() -> None:
    graph = KnowledgeGraph(
        [Concept("b", "bee", ("x", "é")), Concept("a", 'A "q"', definition="d", source_ids=("UMLS:C1",))],
        [Relation("b", "is_a", "a", "kvlp")],
        name="g",
    )
    assert graph.content_hash == "2f2113ac3b23a77f377fb90171cdaa81ddc9ffa6be109804b77064d1cbc02816"


def test_saving_a_loaded_graph_copies_it(tmp_path: Path) -> None:
    first = KnowledgeGraph.load(random_graph(random.Random(5)).save(tmp_path / "one"))
    first.renamed("two").save(tmp_path / "two")
    first.save(tmp_path / "one")  # onto the folder that it reads from
    one, two = KnowledgeGraph.load(tmp_path / "one"), KnowledgeGraph.load(tmp_path / "two")
    assert (one.name, two.name) == ("g", "two")
    assert one.concepts == two.concepts == first.concepts
    assert one.content_hash == two.content_hash


def test_tables_with_a_circle_or_a_loop_are_not_sound() -> None:
    concepts = [Concept(i, i) for i in "abc"]
    circle = [Relation("a", "is_a", "b"), Relation("b", "is_a", "a"), Relation("c", "x", "c"), Relation("c", "x", "c")]
    in_memory = KnowledgeGraph(concepts, circle, name="g")
    in_tables = KnowledgeGraph.of_store(TableStore(tables_of(concepts, circle)), name="g")
    assert [p.kind for p in in_tables.validate()] == ["self_loop", "self_loop", "cycle", "duplicate_relation"]
    assert in_tables.validate() == in_memory.validate()
    with pytest.raises(KnowledgeError, match="relates a concept to itself"):
        in_tables.save("nowhere")


def test_opening_and_looking_up_imports_nothing_heavy(tmp_path: Path) -> None:
    random_graph(random.Random(5)).save(tmp_path)
    code = (
        "import sys; from kvlp.knowledge.graph import KnowledgeGraph; g = KnowledgeGraph.load(sys.argv[1]);"
        "c = g.concepts[0]; g.concept(c.name); g.find('lung'); g.find('lnug'); g.ancestors(c.id); g.neighbours(c.id);"
        "print([m for m in ('torch', 'pandas', 'networkx', 'pyarrow.compute', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_graphs_go_to_other_processes(tmp_path: Path) -> None:
    graph = random_graph(random.Random(5))
    loaded = KnowledgeGraph.load(graph.save(tmp_path))
    in_tables = KnowledgeGraph.of_store(TableStore(tables_of(graph.concepts, graph.relations)), name="g")
    for one in (graph, loaded, in_tables):
        other = pickle.loads(pickle.dumps(one))
        assert other.concepts == graph.concepts
        assert other.find("lung") == graph.find("lung")
    assert len(pickle.dumps(loaded)) < 1000


def test_many_faults_are_counted_not_listed() -> None:
    concepts = [Concept(f"c{i}", "same name") for i in range(1203)]
    for graph in (
        KnowledgeGraph(concepts, [], name="g"),
        KnowledgeGraph.of_store(TableStore(tables_of(concepts, [])), name="g"),
    ):
        problems = graph.validate()
        assert len(problems) == 1001
        assert problems[-1].message == "202 more of this kind (duplicate_surface)"


def test_equal_hashes_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a hash that knows only lengths, every lookup must still answer by the text."""
    from kvlp.knowledge import lookup, tables

    def poor(texts: pa.Array) -> Any:
        return np.asarray([len(t) for t in texts.to_pylist()], np.uint64)

    monkeypatch.setattr(lookup, "hash_text", lambda text: np.uint64(len(text)))
    monkeypatch.setattr(tables, "hash_texts", poor)
    for seed in range(5):
        graph = random_graph(random.Random(seed))
        in_tables = KnowledgeGraph.of_store(
            TableStore(tables_of(graph.concepts, graph.relations)), name="g", licence="CC0"
        )
        assert answers(in_tables) == answers(graph)


def test_misspelt_words_are_found_without_reading_every_surface(monkeypatch: pytest.MonkeyPatch) -> None:
    words, rng = ("pleural", "cardiac", "left", "mass", "fluid", "node"), random.Random(1)
    names = sorted({"fluid mass pleural", *(" ".join(rng.choices(words, k=3)) for _ in range(60))})
    graph = KnowledgeGraph.of_store(TableStore(tables_of([Concept(n, n) for n in names], [])), name="g")
    monkeypatch.setattr(table_store, "FUZZY_LIMIT", 40)
    assert graph.find("fluud maass pluural")[0].name == "fluid mass pleural"
    with pytest.raises(KnowledgeError, match=r"did you mean fluid mass pleural"):
        graph.concept("fluud maass pluural")


TEXTS = st.lists(
    st.text(alphabet=st.one_of(st.sampled_from("aB-_/ '`’‐\t\x0b\x1céßİ  "), st.characters(codec="utf-8")))
)


@given(TEXTS)
def test_folding_all_at_once_is_folding_one_by_one(texts: list[str]) -> None:
    array = pa.array(["skipped", *texts], pa.large_string()).slice(1)
    assert fold_texts(array).to_pylist() == [fold(t) for t in texts]
    assert upper_texts(array).to_pylist() == [t.upper() for t in texts]
    alone = [hash_text(t) for t in texts]
    assert hash_texts(array).tolist() == alone
    assert len(set(alone)) == len(set(texts))


def test_hash_index_keeps_the_order_of_equal_texts() -> None:
    index = HashIndex.of(hash_texts(pa.array(["x", "y", "x", "z"], pa.large_string())))
    assert index.candidates("x") == [0, 2]
    assert index.candidates("w") == []


def test_the_least_come_first_and_each_once() -> None:
    rng = np.random.default_rng(0)
    for size, most in ((0, 5), (5, 3), (3000, 40), (3000, 10**9), (9000, 2)):
        keys = rng.integers(0, most, size)
        order = list(table_store._ascending(keys))
        assert sorted(order) == list(range(size))
        assert keys[order].tolist() == sorted(keys.tolist())


def test_peeling_leaves_the_circles() -> None:
    import networkx as nx

    rng = random.Random(2)
    for _ in range(60):
        edges = np.asarray([(rng.randrange(9), rng.randrange(9)) for _ in range(rng.randrange(1, 16))])
        graph = nx.DiGraph((int(a), int(b)) for a, b in edges if a != b)
        parts = [p for p in nx.strongly_connected_components(graph) if len(p) > 1]
        expected = [any(a in p and b in p for p in parts) and a != b for a, b in edges.tolist()]
        assert in_circles(edges[:, 0], edges[:, 1]).tolist() == expected
        assert set(np.flatnonzero(expected)) <= set(peel(edges[:, 0], edges[:, 1]).tolist())
        if not parts:
            assert peel(edges[:, 0], edges[:, 1]).size == 0


def test_lazy_rows_are_a_sequence() -> None:
    rows = LazyRows(5, lambda first, last: [i * i for i in range(first, last)])
    assert (rows[2], rows[-1], rows[1:3], list(reversed(rows)), len(rows)) == (4, 16, (1, 4), [16, 9, 4, 1, 0], 5)
    assert rows == (0, 1, 4, 9, 16)
    assert rows != (0, 1, 4, 9)
    assert rows != (0, 1, 4, 9, 17)
    assert rows != 5
    with pytest.raises(IndexError):
        rows[5]


def test_texts_slice_and_bounds() -> None:
    texts = Texts(pa.array(["z", "é", "", "end"], pa.large_string()).slice(1))
    assert (list(texts), texts[0:2], len(texts)) == (["é", "", "end"], ["é", ""], 3)
    with pytest.raises(IndexError):
        texts[3]
