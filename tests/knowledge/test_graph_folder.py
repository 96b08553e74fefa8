"""Graph folders: Arrow and CSV, and what is said of damaged ones."""

import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from kvlp.errors import KnowledgeError
from kvlp.knowledge.graph import Concept, KnowledgeGraph, Relation
from kvlp.knowledge.sources.csv_folder import write_folder

GRAPH = KnowledgeGraph(
    [
        Concept(
            "a",
            "änne",
            synonyms=("one", "two, and\nmore"),
            definition='Says "so".',
            descriptions=("a thing", "that"),
            semantic_types=("finding", "disease"),
            source_ids=("UMLS:C0000001",),
            number="mass",
        ),
        Concept("b", "bee"),
        Concept("c", "cee", semantic_types=("anatomy",)),
    ],
    [Relation("a", "is_a", "b", "kvlp"), Relation("a", "located_in", "c"), Relation("b", "located_in", "c")],
    name="tiny",
    version="3",
    licence="CC0",
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    pytest.importorskip("pyarrow", exc_type=ImportError)
    return GRAPH.save(tmp_path / "graph")


def test_arrow_round_trip(saved: Path) -> None:
    back = KnowledgeGraph.load(saved)
    assert back.concepts == GRAPH.concepts
    assert back.relations == GRAPH.relations
    assert (back.name, back.version, back.licence) == ("tiny", "3", "CC0")
    assert back.content_hash == GRAPH.content_hash
    header = json.loads((saved / "graph.json").read_text())
    assert header["counts"] == {"concepts": 3, "surfaces": 5, "relations": 3}
    assert header["content_hash"] == GRAPH.content_hash


def test_adjacency_is_csr_over_relation_rows(saved: Path) -> None:
    from kvlp.knowledge.graph_io import adjacency

    indptr, rows = adjacency(saved)
    assert indptr.tolist() == [0, 2, 3, 3]
    assert rows.tolist() == [0, 1, 2]
    indptr, rows = adjacency(saved, "in")
    assert indptr.tolist() == [0, 0, 1, 3]
    assert rows.tolist() == [0, 1, 2]
    assert isinstance(rows, np.memmap)


def test_empty_graph_round_trip(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", exc_type=ImportError)
    KnowledgeGraph([], [], name="none").save(tmp_path / "g")
    assert len(KnowledgeGraph.load(tmp_path / "g")) == 0


def test_saving_over_a_folder_and_refusing_a_file(saved: Path, tmp_path: Path) -> None:
    KnowledgeGraph([Concept("x", "ex")], [], name="next").save(saved)
    assert [c.id for c in KnowledgeGraph.load(saved)] == ["x"]
    (tmp_path / "file").write_text("")
    with pytest.raises(KnowledgeError, match="expected a folder"):
        GRAPH.save(tmp_path / "file")


def test_an_unsound_graph_is_not_saved(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", exc_type=ImportError)
    with pytest.raises(KnowledgeError, match="no concept 'z'"):
        KnowledgeGraph([Concept("a", "a")], [Relation("a", "is_a", "z")], name="bad").save(tmp_path / "g")
    assert not (tmp_path / "g").exists()


FILES = ["concepts.arrow", "words.arrow", "relations.arrow", "out_indptr.npy", "surface_hash.npy", "in_relations.npy"]


@pytest.mark.parametrize("name", [*FILES, "graph.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "garbage", "directory"])
def test_damaged_folders_get_one_clear_error(saved: Path, name: str, damage: str) -> None:
    path = saved / name
    raw = path.read_bytes()
    path.unlink()
    if damage == "directory":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes({"empty": b"", "truncated": raw[: len(raw) // 2], "garbage": b"\xff\xfe" * 300}[damage])
    with pytest.raises(KnowledgeError) as caught:
        KnowledgeGraph.load(saved)
    assert str(saved) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_flipped_byte_is_refused_or_harmless(saved: Path) -> None:
    for path, step in ((saved / "concepts.arrow", 29), (saved / "graph.json", 31), (saved / "surface_hash.npy", 7)):
        _flip_bytes(path, step)


def _flip_bytes(path: Path, step: int) -> None:
    saved, raw = path.parent, path.read_bytes()
    for at in range(0, len(raw), step):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 0x41]) + raw[at + 1 :])
        with contextlib.suppress(KnowledgeError):
            assert KnowledgeGraph.load(saved).content_hash == GRAPH.content_hash
    path.write_bytes(raw)


def test_altered_content_is_noticed(saved: Path) -> None:
    header = json.loads((saved / "graph.json").read_text())
    (saved / "graph.json").write_text(json.dumps({**header, "content_hash": "0" * 64}))
    with pytest.raises(KnowledgeError, match="does not fit its hash"):
        KnowledgeGraph.load(saved)
    assert len(KnowledgeGraph.load(saved, check=False)) == 3
    (saved / "graph.json").write_text(json.dumps({**header, "format": 99}))
    with pytest.raises(KnowledgeError, match="expected format 2, got 99"):
        KnowledgeGraph.load(saved)


def test_large_folders_are_read_only_when_asked(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kvlp.knowledge import graph_io

    path = saved / "concepts.arrow"
    raw = path.read_bytes()
    assert raw.count(b"bee") == 1
    path.write_bytes(raw.replace(b"bee", b"bea"))
    with pytest.raises(
        KnowledgeError, match=r"concepts.arrow: not as it was written: its hash in graph.json is another"
    ):
        KnowledgeGraph.load(saved)
    monkeypatch.setattr(graph_io, "READ_ALL", 0)
    graph = KnowledgeGraph.load(saved)
    assert graph["b"].name == "bea"
    with pytest.raises(KnowledgeError, match=r"concepts.arrow: not as it was written"):
        KnowledgeGraph.load(saved, check="full")
    (problem,) = graph.validate()
    assert (problem.kind, problem.severity, problem.where) == ("altered", "error", str(path))


def test_a_damaged_text_or_row_in_an_unread_folder_gets_one_line(saved: Path) -> None:
    path = saved / "concepts.arrow"
    path.write_bytes(path.read_bytes().replace(b"bee", b"\xffee"))
    with pytest.raises(KnowledgeError, match="a graph table holds a damaged text; `kvlp kg validate` names the file"):
        KnowledgeGraph.load(saved, check=False)["b"]


@pytest.mark.parametrize("name", ["out_relations", "id_row", "source_row", "surface_entry", "word_postings"])
def test_numbers_that_point_to_nothing_get_one_line(saved: Path, name: str) -> None:
    path = saved / f"{name}.npy"
    np.save(path, np.full_like(np.load(path), 7_000))
    graph = KnowledgeGraph.load(saved, check=False)

    def ask() -> None:
        graph["b"], graph.neighbours("a"), graph.concept("C0000001"), graph.concept("one"), graph.find("o")

    with pytest.raises(
        KnowledgeError, match=r"graph: a number points to nothing; `kvlp kg validate` names the damaged"
    ):
        ask()


def test_a_folder_of_an_older_format_is_refused(saved: Path) -> None:
    (saved / "graph.json").write_text(json.dumps({"format": 1, "name": "old", "content_hash": "0" * 64}))
    with pytest.raises(KnowledgeError, match=r"expected format 2, got 1; build the graph again with this version"):
        KnowledgeGraph.load(saved)


def test_swapped_tables_are_noticed(saved: Path) -> None:
    shutil.copy(saved / "relations.arrow", saved / "concepts.arrow")
    with pytest.raises(KnowledgeError, match=r"concepts.arrow: expected \d+ bytes, got \d+; is it cut off\?"):
        KnowledgeGraph.load(saved)
    header = json.loads((saved / "graph.json").read_text())
    header["files"]["concepts.arrow"] = header["files"]["relations.arrow"]
    (saved / "graph.json").write_text(json.dumps(header))
    with pytest.raises(KnowledgeError, match=r"concepts.arrow: expected the columns"):
        KnowledgeGraph.load(saved, check=False)


def test_no_such_graph_suggests_a_bundled_one(tmp_path: Path) -> None:
    with pytest.raises(KnowledgeError, match=r"no graph 'chets': expected a folder or .* 'chest'"):
        KnowledgeGraph.load("chets")
    with pytest.raises(KnowledgeError, match="expected a graph folder"):
        KnowledgeGraph.load(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(KnowledgeError, match="expected a graph folder"):
        KnowledgeGraph.load(tmp_path / "file")


def test_csv_round_trip(tmp_path: Path) -> None:
    write_folder(GRAPH, tmp_path / "csv")
    back = KnowledgeGraph.load(tmp_path / "csv")
    assert back.content_hash == GRAPH.content_hash
    assert (back.name, back.version, back.licence) == ("tiny", "3", "CC0")


@pytest.fixture
def csv_folder(tmp_path: Path) -> Path:
    return write_folder(GRAPH, tmp_path / "csv")


def test_csv_only_needs_two_files_and_two_columns(tmp_path: Path) -> None:
    (tmp_path / "concepts.csv").write_bytes("\ufeffid,name\r\n007,nodule\r\n\r\n".encode())
    (tmp_path / "relations.csv").write_text("head,type,tail\n")
    graph = KnowledgeGraph.from_csv(tmp_path)
    assert graph["007"] == Concept("007", "nodule")
    assert graph.name == tmp_path.name


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("concepts.csv", "id,nmae\na,x\n", r"missing name"),
        ("concepts.csv", "id,name,synonym\na,x,y\n", r"unknown column 'synonym'; did you mean 'synonyms'\?"),
        ("concepts.csv", "id,name\na,x\nb\n", r"line 3: expected 2 cells, got 1"),
        ("concepts.csv", 'id,name\na,"x\n', r"line 2: not readable as CSV .* is it cut off\?"),
        ("concepts.csv", "id,name\na,\n", r"line 2: column 'name' is empty"),
        ("concepts.csv", "", r"expected the columns id, name; missing id, name"),
        ("concepts.csv", "id,name\na,x\0\n", r"NUL bytes"),
        ("concepts.csv", "id,name\na,x\na,y\n", r"concept id 'a' is used twice"),
        ("concepts.csv", "id,name,number\na,x,some\n", r"number 'some'; expected count, mass, plural"),
        ("concepts.csv", "id,name,name\na,x,y\n", r"used twice"),
        ("relations.csv", "head,type,tail\na,is_a,bb\n", r"no concept 'bb'"),
        ("relations.csv", "head,type,tail\na,is_a,b\nb,is_a,a\n", r"is_a goes in a circle: a is_a b is_a a"),
        ("relations.csv", "head,type,tail\na,is_a,a\n", r"relates a concept to itself"),
        ("descriptions.csv", "concept,description\naa,x\n", r"line 2: concept 'aa' is not in concepts.csv"),
        ("ids.csv", "concept,source_id\nq,x\n", r"line 2: concept 'q' is not in concepts.csv"),
        ("graph.json", "{", r"not readable as JSON"),
        ("graph.json", "[]", r"expected an object"),
    ],
)
def test_bad_csv_folders_name_file_and_line(csv_folder: Path, name: str, text: str, message: str) -> None:
    (csv_folder / name).write_text(text)
    with pytest.raises(KnowledgeError, match=message) as caught:
        KnowledgeGraph.load(csv_folder)
    assert "\n" not in str(caught.value)


def test_csv_that_is_not_utf8(csv_folder: Path) -> None:
    (csv_folder / "concepts.csv").write_bytes("id,name\na,Röntgen\n".encode("latin-1"))
    with pytest.raises(KnowledgeError, match=r"concepts.csv: not UTF-8 \(byte 11\); save the file as UTF-8"):
        KnowledgeGraph.load(csv_folder)


def test_csv_folder_without_relations(csv_folder: Path) -> None:
    (csv_folder / "relations.csv").unlink()
    with pytest.raises(KnowledgeError, match=r"relations.csv: no such file"):
        KnowledgeGraph.load(csv_folder)
    with pytest.raises(KnowledgeError, match="expected a folder"):
        KnowledgeGraph.from_csv(csv_folder / "concepts.csv")
