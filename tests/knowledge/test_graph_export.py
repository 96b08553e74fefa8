"""Export to CSV, GraphML and networkx, and pictures: read back by the programs that they are for."""

import json
import warnings
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from kvlp.errors import KnowledgeError
from kvlp.knowledge.draw import draw_neighbourhood
from kvlp.knowledge.export import FORMATS, export
from kvlp.knowledge.graph import Concept, KnowledgeGraph, Relation
from kvlp.knowledge.neighbourhood import neighbourhood

ODD = KnowledgeGraph(
    [
        Concept("a", "=HYPERLINK(1)", synonyms=("x; y", "\x1b[31mred"), definition='Says "$x_1$" & <b>.'),
        Concept("b", "bee", semantic_types=("finding", "disease"), source_ids=("UMLS:C0000001",)),
    ],
    [Relation("a", "is_a", "b", "me"), Relation("a", "located_in", "b"), Relation("b", "located_in", "a")],
    name="odd",
)


@pytest.fixture(scope="module")
def chest() -> KnowledgeGraph:
    return KnowledgeGraph.load("chest")


def test_graphml_is_read_back_by_networkx(tmp_path: Path, chest: KnowledgeGraph) -> None:
    back = nx.read_graphml(export(chest, tmp_path / "g.graphml", "graphml"))
    assert set(back) == {c.id for c in chest}
    assert back.number_of_edges() == len(chest.relations)
    assert back.nodes["pneumothorax"]["name"] == "pneumothorax"
    assert "ptx" in back.nodes["pneumothorax"]["synonyms"].split("; ")
    assert {(h, d["type"], t) for h, t, d in back.edges(data=True)} == {
        (r.head, r.type, r.tail) for r in chest.relations
    }


def test_graphml_holds_what_xml_cannot(tmp_path: Path) -> None:
    path = export(ODD, tmp_path / "new" / "g.graphml", "graphml")
    ElementTree.parse(path)
    back = nx.read_graphml(path)
    assert back.nodes["a"]["synonyms"] == "x\\; y; \ufffd[31mred"
    assert back.nodes["a"]["definition"] == 'Says "$x_1$" & <b>.'


def test_node_link_json_is_read_back_by_networkx(tmp_path: Path, chest: KnowledgeGraph) -> None:
    path = export(chest, tmp_path / "g.json", "networkx")
    back = nx.node_link_graph(json.loads(path.read_text(encoding="utf-8")), edges="links")
    assert isinstance(back, nx.MultiDiGraph)
    assert set(back.edges(keys=True)) == set(chest.subgraph().edges(keys=True))
    assert tuple(back.nodes["pneumothorax"]["source_ids"]) == chest["pneumothorax"].source_ids
    assert back.graph["content_hash"] == chest.content_hash


def test_csv_comes_back_and_holds_no_formula(tmp_path: Path) -> None:
    folder = export(ODD, tmp_path / "g", "csv")
    assert KnowledgeGraph.load(folder).content_hash == ODD.content_hash
    assert ",'=HYPERLINK" in (folder / "concepts.csv").read_text()


def test_unknown_formats_and_taken_names(tmp_path: Path) -> None:
    with pytest.raises(KnowledgeError, match=r"unknown format 'grapml': expected csv, .*did you mean 'graphml'\?"):
        export(ODD, tmp_path / "g", "grapml")
    (tmp_path / "file").write_text("")
    with pytest.raises(KnowledgeError, match="format csv writes a folder"):
        export(ODD, tmp_path / "file", "csv")
    with pytest.raises(KnowledgeError, match="format graphml writes a file"):
        export(ODD, tmp_path, "graphml")
    assert sorted(FORMATS) == ["csv", "graphml", "networkx"]


# ---- pictures --------------------------------------------------------------------------------------------------------


def test_neighbours_in_groups(chest: KnowledgeGraph) -> None:
    groups = neighbourhood(chest, "pleural_effusion", limit=4)
    assert [(g.type, g.out) for g in groups[:2]] == [("is_a", True), ("is_a", False)]
    assert {c.id for c in groups[0].concepts} == set(chest.parents("pleural_effusion"))
    shown = {(g.type, g.out): len(g.concepts) + g.more for g in groups if g.type}
    for (kind, out), count in shown.items():
        relations = chest.neighbours("pleural_effusion", kind, "out" if out else "in")
        assert count == len({r.tail if out else r.head for r in relations})
    causes = next(g for g in groups if (g.type, g.out) == ("may_cause", False))
    assert (len(causes.concepts), causes.title) == (3, "may cause this")
    assert causes.more > 1


def test_relations_beyond_the_limit_are_counted() -> None:
    many = [Concept(f"n{i}", f"n{i}") for i in range(9)]
    graph = KnowledgeGraph(many, [Relation("n0", f"r{i}", f"n{i}") for i in range(1, 9)], name="many")
    groups = neighbourhood(graph, "n0", relations=3)
    assert [(g.type, g.more) for g in groups] == [("r1", 0), ("r2", 0), ("r3", 0), ("", 5)]


@pytest.mark.slow
def test_a_picture_is_drawn_the_same_each_time(tmp_path: Path, chest: KnowledgeGraph) -> None:
    one = draw_neighbourhood(chest, "C0032227", tmp_path / "one.svg")
    two = draw_neighbourhood(chest, "pleural effusion", tmp_path / "two.svg")
    assert one.read_bytes() == two.read_bytes()


def test_a_png_is_large_enough_to_read(tmp_path: Path, chest: KnowledgeGraph) -> None:
    from PIL import Image

    with Image.open(draw_neighbourhood(chest, "lung abscess", tmp_path / "g.png")) as image:
        assert image.format == "PNG"
        assert 600 < image.width < 4000
        assert 300 < image.height < 4000


def test_the_picture_names_concept_neighbours_relations_and_types(tmp_path: Path, chest: KnowledgeGraph) -> None:
    root = ElementTree.parse(draw_neighbourhood(chest, "C0032227", tmp_path / "g.svg", limit=4)).getroot()
    words = {"".join(e.itertext()).strip() for e in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"pleural effusion", "pleural abnormality", "may cause this", "located in", "finding", "anatomy"} <= words
    assert any(w.startswith("+") and w.endswith(" more") for w in words)


def test_the_boxes_do_not_overlap(tmp_path: Path, chest: KnowledgeGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    from kvlp.knowledge import draw

    for key in ("pneumothorax", "lung"):
        boxes = []
        monkeypatch.setattr(draw, "_draw", lambda axes, box, boxes=boxes: boxes.append(box))
        draw_neighbourhood(chest, key, tmp_path / "g.svg")
        at = np.array([[b.x - b.width / 2, b.x + b.width / 2, b.y - b.height / 2, b.y + b.height / 2] for b in boxes])
        apart = (
            (at[:, None, 0] > at[None, :, 1])
            | (at[:, None, 1] < at[None, :, 0])
            | (at[:, None, 2] > at[None, :, 3])
            | (at[:, None, 3] < at[None, :, 2])
        )
        assert apart[~np.eye(len(boxes), dtype=bool)].all()


def test_odd_names_are_drawn_as_they_are(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        name = "$\\frac{1}{2$ 胸水 \x1b[31m <b> " + "very long words " * 20
        graph = KnowledgeGraph([Concept("a", name), Concept("b", "$")], [Relation("a", "$x_", "b")], name="$n")
        path = draw_neighbourhood(graph, "a", tmp_path / "new" / "g.svg")
    assert "\x1b" not in path.read_text(encoding="utf-8")
    assert "\\frac" in path.read_text(encoding="utf-8")


def test_a_concept_alone_and_other_files(tmp_path: Path) -> None:
    graph = KnowledgeGraph([Concept("a", "a")], [], name="one")
    assert draw_neighbourhood(graph, "a", tmp_path / "g.pdf").stat().st_size > 500
    with pytest.raises(KnowledgeError, match=r"a picture ends in \.png, \.svg, \.pdf, got '\.gif'"):
        draw_neighbourhood(graph, "a", tmp_path / "g.gif")
    with pytest.raises(KnowledgeError, match="no concept 'q'"):
        draw_neighbourhood(graph, "q", tmp_path / "g.png")
