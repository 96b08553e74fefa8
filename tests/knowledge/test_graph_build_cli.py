"""kvlp kg build, merge, export, show --picture: from files to files, and one line for each bad file."""

import gzip
import json
from pathlib import Path

import networkx as nx
import pytest

from kvlp.cli import main
from kvlp.knowledge.graph import Concept, KnowledgeGraph, Relation
from kvlp.knowledge.sources.csv_folder import write_folder

OBO = """format-version: 1.2
ontology: tiny

[Term]
id: HP:1
name: disease of lung

[Term]
id: HP:2
name: pneumothorax
synonym: "PTX" EXACT []
synonym: "air" BROAD []
xref: UMLS:C0032326
xref: MSH:D011030
is_a: HP:1
is_a: HP:9

[Term]
id: HP:3
name: old
is_obsolete: true
"""


def _run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        main(["kg", *map(str, args)])
    out, err = capsys.readouterr()
    return int(done.value.code or 0), out, err


@pytest.fixture
def obo(tmp_path: Path) -> Path:
    pytest.importorskip("obonet")
    pytest.importorskip("pyarrow", exc_type=ImportError)
    path = tmp_path / "tiny.obo"
    path.write_text(OBO, encoding="utf-8")
    return path


@pytest.fixture
def other(tmp_path: Path) -> Path:
    concepts = [
        Concept("ptx", "Pneumothorax", ("collapsed lung",), "Air.", source_ids=("UMLS:C0032326",)),
        Concept("pleura", "pleura", semantic_types=("anatomy",)),
    ]
    return write_folder(
        KnowledgeGraph(concepts, [Relation("ptx", "located_in", "pleura")], name="own"), tmp_path / "own"
    )


def test_build_names_what_was_left_out(capsys: pytest.CaptureFixture[str], obo: Path, tmp_path: Path) -> None:
    code, out, _ = _run(capsys, "build", "--obo", obo, "--out", tmp_path / "g")
    assert code == 0
    assert out.splitlines()[0] == f"tiny: 2 concepts, 1 relations -> {tmp_path / 'g'}"
    assert "  1 obsolete terms left out: HP:3" in out
    assert "  1 relations left out whose other end is in no file: HP:2 is_a HP:9" in out
    data = json.loads(_run(capsys, "build", "--obo", obo, "--out", tmp_path / "g", "--json")[1])
    assert data["left_out"]["dangling"] == {"count": 1, "named": ["HP:2 is_a HP:9"]}
    assert (data["concepts"], data["relations"]) == (2, 1)


def test_options_of_obo(capsys: pytest.CaptureFixture[str], obo: Path, tmp_path: Path) -> None:
    table = tmp_path / "more.csv"
    table.write_text("term,source_id\nHP:1,UMLS:C0024115\n")
    options = ("--synonym-scope", "EXACT", "--synonym-scope", "BROAD", "--vocabulary", "MESH", "--vocabulary", "UMLS")
    assert _run(capsys, "build", "--obo", obo, "--out", tmp_path / "g", "--xrefs", table, *options)[0] == 0
    graph = KnowledgeGraph.load(tmp_path / "g")
    assert graph["HP:2"].synonyms == ("PTX", "air")
    assert graph["HP:2"].source_ids == ("HP:2", "UMLS:C0032326", "MESH:D011030")
    assert graph.concept("C0024115").id == "HP:1"


def test_build_from_triples_and_radgraph(capsys: pytest.CaptureFixture[str], obo: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("head,relation,tail\na,isa,b\n")
    (tmp_path / "n.csv").write_text("id,name\na,alpha\nb,beta\n")
    (tmp_path / "d.csv").write_text("id,definition\na,First.\n")
    tables = ("--triples", tmp_path / "t.csv", "--names", tmp_path / "n.csv", "--definitions", tmp_path / "d.csv")
    assert _run(capsys, "build", *tables, "--out", tmp_path / "g", "--name", "own")[0] == 0
    graph = KnowledgeGraph.load(tmp_path / "g")
    assert (graph.name, graph["a"].definition, graph.parents("a")) == ("own", "First.", ["b"])
    entity = {"tokens": "ptx", "label": "OBS-DA", "start_ix": 1, "end_ix": 1, "relations": []}
    (tmp_path / "r.json").write_text(json.dumps({"1": {"text": "No ptx .", "entities": {"1": entity}}}))
    args = ("build", "--radgraph", tmp_path / "r.json", "--link-to", "chest", "--out", tmp_path / "r")
    assert _run(capsys, *args)[0] == 0
    assert [c.id for c in KnowledgeGraph.load(tmp_path / "r")] == ["pneumothorax"]


def test_umls_filters(capsys: pytest.CaptureFixture[str], obo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "umls"
    folder.mkdir()
    atoms = [("C0000001", "ENG", "MADEUP", "chest"), ("C0000001", "FRE", "MADEUP", "poitrine"),
             ("C0000002", "ENG", "OTHER", "foot")]  # fmt: skip
    rows = [f"{c}|{lang}|P|L1|PF|S1|Y|A1||M1|D1|{sab}|PT|X|{text}|0|N|256|\n" for c, lang, sab, text in atoms]
    (folder / "MRCONSO.RRF").write_text("".join(rows))
    (folder / "MRSTY.RRF").write_text("C0000001|T017|A1|Anatomical Structure|AT1|256|\n")
    build = ("build", "--umls", folder, "--out", tmp_path / "g")
    code, _, err = _run(capsys, *build, "--language", "FRE", "--vocabulary", "MADEUP", "--name", "own")
    assert code == 0
    assert err.startswith("kvlp: ")
    graph = KnowledgeGraph.load(tmp_path / "g")
    assert [(c.id, c.name) for c in graph] == [("C0000001", "poitrine")]
    assert graph.name == "own"
    assert _run(capsys, *build, "--semantic-type", "T017")[0] == 0
    assert [(c.id, c.name) for c in KnowledgeGraph.load(tmp_path / "g")] == [("C0000001", "chest")]
    assert _run(capsys, *build)[0] == 0
    assert len(KnowledgeGraph.load(tmp_path / "g")) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--csv", "x", "--language", "ENG"), "--language goes with --umls, not with --csv"),
        (("--csv", "x", "--synonym-scope", "EXACT"), "--synonym-scope goes with --obo, not with --csv"),
        (("--obo", "x", "--names", "y"), "--names goes with --triples, not with --obo"),
        (("--triples", "x", "--vocabulary", "MESH"), "--vocabulary goes with --umls or --obo, not with --triples"),
        (("--csv", "x", "--radgraph", "y"), "give exactly one source of --obo, --csv, --triples, --radgraph, --umls"),
    ],
)
def test_options_of_another_source(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    code, out, err = _run(capsys, "build", *options, "--out", tmp_path / "g")
    assert (code, out) == (1, "")
    assert message in err


BROKEN = {
    "corrupted": (gzip.compress(OBO.encode())[:40] + b"\xff" * 9 + gzip.compress(OBO.encode())[49:], ".obo.gz"),
    "truncated archive": (gzip.compress(OBO.encode())[:-12], ".obo.gz"),
    "truncated": (OBO.encode()[:200], ".obo"),
    "latin-1": (OBO.replace("old", "früher").encode("latin-1"), ".obo"),
    "cyclic": (OBO.replace("name: disease of lung", "name: disease of lung\nis_a: HP:2").encode(), ".obo"),
    "binary": (bytes(range(256)) * 9, ".obo"),
    "empty": (b"", ".obo"),
    "another format": (b"<?xml version='1.0'?>\n<rdf/>\n", ".obo"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_each_broken_file_gets_one_line(
    capsys: pytest.CaptureFixture[str], obo: Path, tmp_path: Path, fault: str
) -> None:
    raw, suffix = BROKEN[fault]
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(raw)
    code, out, err = _run(capsys, "build", "--obo", path, "--out", tmp_path / "g")
    assert (code, out) == (1, "")
    assert err.startswith(f"kvlp: error: {path}")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert not (tmp_path / "g").exists()


def test_merge_tells_where_each_part_came_from(
    capsys: pytest.CaptureFixture[str], obo: Path, other: Path, tmp_path: Path
) -> None:
    code, out, _ = _run(capsys, "merge", obo, other, "--out", tmp_path / "m", "--name", "both", "--json")
    assert code == 0
    data = json.loads(out)
    assert (data["name"], data["concepts"], data["united"]) == ("both", 3, 1)
    shown = _run(capsys, "show", "C0032326", "--graph", tmp_path / "m")[1]
    assert "  from tiny: id, name, synonym, type, 2 source ids\n" in shown
    assert "  from own: id, definition, synonym, source id\n" in shown
    assert "  HP:2 is_a disease of lung [HP:1]\n" in shown
    assert "  HP:2 located_in pleura\n" in shown
    told = json.loads(_run(capsys, "show", "PTX", "--graph", tmp_path / "m", "--json")[1])["provenance"]
    assert {"concept": "HP:2", "part": "synonym", "text": "collapsed lung", "graph": "own"} in told
    code, _, err = _run(capsys, "merge", obo, "--out", tmp_path / "m2")
    assert (code, err) == (1, "kvlp: error: give at least two graphs to merge\n")


def test_show_draws(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "pleural.svg"
    code, out, _ = _run(capsys, "show", "C0032227", "--picture", path)
    assert code == 0
    assert out.startswith("pleural effusion  [pleural_effusion]  finding\n")
    assert f"picture: {path}" in out
    assert "pleural effusion" in path.read_text(encoding="utf-8")
    assert _run(capsys, "show", "C0032326")[1].startswith("pneumothorax  [pneumothorax]")
    code, _, err = _run(capsys, "show", "C0032227", "--picture", tmp_path / "x.bmp")
    assert code == 1
    assert "a picture ends in .png, .svg, .pdf" in err


@pytest.mark.parametrize("format", ["csv", "graphml", "networkx"])
def test_export(capsys: pytest.CaptureFixture[str], tmp_path: Path, format: str) -> None:
    out = tmp_path / "chest.out"
    code, said, _ = _run(capsys, "export", "chest", "--format", format, "--out", out, "--json")
    assert code == 0
    concepts = json.loads(said)["concepts"]
    if format == "csv":
        assert len(KnowledgeGraph.load(out)) == concepts
    elif format == "graphml":
        assert len(nx.read_graphml(out)) == concepts
    else:
        assert len(nx.node_link_graph(json.loads(out.read_text(encoding="utf-8")), edges="links")) == concepts


def test_a_licence_that_forbids_is_told_at_export(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    graph = KnowledgeGraph([Concept("a", "a")], [], name="u", licence="UMLS: not to be redistributed")
    folder = write_folder(graph, tmp_path / "u")
    code, _, err = _run(capsys, "export", folder, "--format", "networkx", "--out", tmp_path / "u.json")
    assert (code, err) == (0, "note: UMLS: not to be redistributed\n")


def test_what_was_left_out_cannot_steer_a_terminal_either(
    capsys: pytest.CaptureFixture[str], obo: Path, tmp_path: Path
) -> None:
    obo.write_text(OBO.replace("is_a: HP:9", "is_a: HP:\x1b[31m9"), encoding="utf-8")
    code, out, _ = _run(capsys, "build", "--obo", obo, "--out", tmp_path / "g")
    assert code == 0
    assert "HP:2 is_a HP:?[31m9" in out


def test_names_cannot_steer_a_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    evil = "red \x1b[31m \x9b2J \u202e \x07"
    concepts = [Concept("a", evil, (evil + "2",), evil), Concept("b", evil + "3")]
    folder = write_folder(KnowledgeGraph(concepts, [Relation("a", "is_a", "b")], name="e"), tmp_path / "e")
    for args in (("show", "a"), ("find", "red"), ("path", "a", "b"), ("validate", folder), ("stats", folder)):
        graph = () if args[0] in ("validate", "stats") else ("--graph", folder)
        for extra in ((), ("--json",)):
            out = _run(capsys, *args, *graph, *extra)[1]
            assert all(c.isprintable() or c == "\n" for c in out), args
    assert json.loads(_run(capsys, "show", "a", "--graph", folder, "--json")[1])["name"] == evil
