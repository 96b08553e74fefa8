"""RadGraph's JSON: the reports here are made up, the layout is that of the data set and of the later packages."""

import json
from pathlib import Path
from typing import Any

import pytest

from kvlp.errors import KnowledgeError
from kvlp.knowledge.graph import KnowledgeGraph, Relation
from kvlp.knowledge.linking import Mention
from kvlp.knowledge.sources.radgraph import radgraph_graph, read_radgraph
from kvlp.knowledge.sources.report import SourceReport
from kvlp.typing import Assertion


def entity(tokens: str, label: str, start: int, end: int, *relations: tuple[str, str]) -> dict[str, Any]:
    return {
        "tokens": tokens,
        "label": label,
        "start_ix": start,
        "end_ix": end,
        "relations": [list(r) for r in relations],
    }


#       0     1    2       3        4 5  6            7 8        9         10
TEXT = "Small left pleural effusion . No pneumothorax . Possible pneumonia ."
ENTITIES = {
    "1": entity("Small", "OBS-DP", 0, 0, ("modify", "4")),
    "2": entity("left", "ANAT-DP", 1, 1, ("modify", "3")),
    "3": entity("pleural", "ANAT-DP", 2, 2),
    "4": entity("effusion", "OBS-DP", 3, 3, ("located_at", "3")),
    "5": entity("pneumothorax", "OBS-DA", 6, 6),
    "6": entity("pneumonia", "OBS-U", 9, 9),
}
REPORT = {"text": TEXT, "entities": ENTITIES, "data_source": None, "data_split": "train"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return _saved(tmp_path, {"r1.txt": REPORT})


@pytest.fixture(scope="module")
def chest() -> KnowledgeGraph:
    return KnowledgeGraph.load("chest")


def _saved(folder: Path, document: object) -> Path:
    path = folder / "reports.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def test_entities_have_spans_and_assertions(path: Path) -> None:
    found = read_radgraph(path)["r1.txt"]
    assert [TEXT[e.start : e.end] for e in found] == [
        "Small",
        "left",
        "pleural",
        "effusion",
        "pneumothorax",
        "pneumonia",
    ]
    assert [(e.kind, e.assertion) for e in found[3:]] == [
        ("finding", Assertion.PRESENT),
        ("finding", Assertion.ABSENT),
        ("finding", Assertion.UNCERTAIN),
    ]
    assert found[1].kind == "anatomy"
    assert found[3].relations == (("located_at", "3"),)
    assert {e.concept for e in found} == {""}


def test_entities_are_linked_alone_and_with_what_stands_beside_them(path: Path, chest: KnowledgeGraph) -> None:
    by_key = {e.key: e.concept for e in read_radgraph(path, chest)["r1.txt"]}
    assert by_key["4"] == "pleural_effusion"
    assert by_key["5"] == "pneumothorax"
    assert by_key["6"] == "pneumonia"
    assert by_key["1"] != "pleural_effusion"
    mention = next(e for e in read_radgraph(path, chest)["r1.txt"] if e.key == "5").mention()
    assert isinstance(mention, Mention)
    assert (mention.concept, mention.surface, mention.assertion) == ("pneumothorax", "pneumothorax", Assertion.ABSENT)


def test_the_whole_phrase_decides_only_if_it_is_related(tmp_path: Path, chest: KnowledgeGraph) -> None:
    text = "enlarged heart"
    related = {"1": entity("enlarged", "OBS-DP", 0, 0, ("located_at", "2")), "2": entity("heart", "ANAT-DP", 1, 1)}
    apart = {"1": entity("enlarged", "OBS-DP", 0, 0), "2": entity("heart", "ANAT-DP", 1, 1)}
    path = _saved(tmp_path, {"a": {"text": text, "entities": related}, "b": {"text": text, "entities": apart}})
    read = read_radgraph(path, chest)
    assert [e.concept for e in read["a"]] == ["cardiomegaly", "heart"]
    assert [e.concept for e in read["b"]][1] == "heart"
    assert read["b"][0].concept != "cardiomegaly"


def test_an_entity_of_several_words_and_one_that_only_qualifies(tmp_path: Path, chest: KnowledgeGraph) -> None:
    whole = {"1": entity("pleural effusion", "OBS-DP", 2, 3)}
    qualified = {"1": entity("pleural", "OBS-DP", 2, 2, ("modify", "2")), "2": entity("effusion", "OBS-DP", 3, 3)}
    path = _saved(tmp_path, {"a": {"text": TEXT, "entities": whole}, "b": {"text": TEXT, "entities": qualified}})
    read = read_radgraph(path, chest)
    assert [(e.surface, e.concept) for e in read["a"]] == [("pleural effusion", "pleural_effusion")]
    assert read["b"][0].concept != "pleural_effusion"
    assert read["b"][1].concept == "pleural_effusion"


def test_raw_white_space_is_counted_as_it_stands(tmp_path: Path) -> None:
    text = "  Small\n\neffusion ."
    path = _saved(tmp_path, {"a": {"text": text, "entities": {"1": entity("effusion", "OBS-DP", 1, 1)}}})
    found = read_radgraph(path)["a"][0]
    assert (found.start, found.end, text[found.start : found.end]) == (9, 17, "effusion")


@pytest.mark.parametrize(
    ("document", "ids"),
    [
        ({"p10/p1/s1.txt": REPORT, "p10/p1/s2.txt": REPORT}, ["p10/p1/s1.txt", "p10/p1/s2.txt"]),
        ({"p10": {"p1": {"s1": REPORT}}, "p11": {"p2": {"s2": REPORT}}}, ["p10/p1/s1", "p11/p2/s2"]),
        ({"t": {"text": TEXT, "labeler_1": {"entities": ENTITIES}, "labeler_2": {"entities": {}}}}, ["t"]),
    ],
)
def test_layouts_of_inference_and_test_files(tmp_path: Path, document: object, ids: list[str]) -> None:
    read = read_radgraph(_saved(tmp_path, document))
    assert list(read) == ids
    assert all(len(entities) == 6 for entities in read.values())


def test_the_other_labeler_and_long_labels(tmp_path: Path) -> None:
    long = {"1": entity("pneumothorax", "Observation::definitely absent", 6, 6)}
    path = _saved(tmp_path, {"t": {"text": TEXT, "labeler_1": {"entities": {}}, "labeler_2": {"entities": long}}})
    found = read_radgraph(path, labeler="labeler_2")["t"][0]
    assert (found.kind, found.assertion) == ("finding", Assertion.ABSENT)
    with pytest.raises(
        KnowledgeError, match="report 1: has neither 'entities' nor 'labeler_3'; there are labeler_1, lab"
    ):
        read_radgraph(path, labeler="labeler_3")


def test_what_does_not_stand_where_the_file_says_is_reported(tmp_path: Path) -> None:
    wrong = {
        "1": entity("effusion", "OBS-DP", 2, 2),
        "2": entity("effusion", "OBS-DP", 99, 99),
        "3": entity("effusion", "OBS-DP", 3, 3, ("located_at", "77")),
    }
    report = SourceReport()
    read = read_radgraph(_saved(tmp_path, {"secret-17": {"text": TEXT, "entities": wrong}}), report=report)
    assert [e.key for e in read["secret-17"]] == ["3"]
    assert report.named == {
        "misplaced": ["report 1 entity 1", "report 1 entity 2"],
        "dangling_entity": ["report 1 located_at"],
    }
    del wrong["3"]
    with pytest.raises(KnowledgeError, match="no entity stands where its offsets say"):
        read_radgraph(_saved(tmp_path, {"secret-17": {"text": TEXT, "entities": wrong}}))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "expected RadGraph's JSON, an object of reports; got list"),
        ({}, "found none"),
        ({"secret-17": 3}, "expected an object for each report, got int"),
        ({"secret-17": {"entities": {}}}, "report 1: expected 'text' as a text"),
        ({"secret-17": {"text": TEXT}}, "report 1: has neither 'entities' nor 'labeler_1'"),
        ({"secret-17": {"text": TEXT, "entities": {"1": {}}}}, "report 1 entity 1: expected tokens, label.*KeyError"),
        ({"secret-17": {"text": TEXT, "entities": {"1": entity("a", "OBS-DP", 0.5, 1)}}}, "TypeError at reading them"),
        (
            {"secret-17": {"text": TEXT, "entities": {"1": entity("Small", "OBS-XX", 0, 0)}}},
            "unknown label 'OBS-XX'; expected ANAT-DP, OBS-DP, OBS-U or OBS-DA",
        ),
    ],
)
def test_bad_files_are_one_line_without_ids_or_text(tmp_path: Path, document: object, message: str) -> None:
    with pytest.raises(KnowledgeError, match=message) as caught:
        read_radgraph(_saved(tmp_path, document))
    assert "secret" not in str(caught.value)
    assert "effusion" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_files(path: Path) -> None:
    whole = path.read_bytes()
    for raw, message in (
        (whole[:-40], r"line 1: not readable as JSON \(JSONDecodeError\); is it cut off\?"),
        (whole.replace(b"Small", b"Kl\xe4in", 1), "not UTF-8"),
        (b"[" * 100_000, "not readable as JSON"),
        (b"", "not readable as JSON"),
    ):
        path.write_bytes(raw)
        with pytest.raises(KnowledgeError, match=message):
            read_radgraph(path)


def test_as_a_graph_with_counts(tmp_path: Path) -> None:
    path = _saved(tmp_path, {"a": REPORT, "b": REPORT, "c": {"text": TEXT, "entities": {"1": ENTITIES["3"]}}})
    graph = KnowledgeGraph.from_radgraph(path, name="rg")
    assert [c.id for c in graph] == ["effusion", "left", "pleural", "pneumonia", "pneumothorax", "small"]
    assert graph["pleural"].semantic_types == ("anatomy",)
    assert list(graph.relations) == [
        Relation("effusion", "located_at", "pleural", "rg (2)"),
        Relation("left", "modify", "pleural", "rg (2)"),
        Relation("small", "modify", "effusion", "rg (2)"),
    ]
    report = SourceReport()
    assert [c.id for c in radgraph_graph([path], min_reports=3, report=report)] == ["pleural"]
    assert report.counts() == {"rare": 5}


def test_as_a_graph_in_another_graph_s_words(path: Path, chest: KnowledgeGraph) -> None:
    graph = KnowledgeGraph.from_radgraph(path, graph=chest)
    assert graph["pleural_effusion"] == chest["pleural_effusion"]
    assert "pneumothorax" in graph
