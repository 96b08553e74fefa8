"""A user's own tables: triples, names, definitions; what is wrong is named with its line."""

import gzip
from pathlib import Path

import pytest

from kvlp.errors import KnowledgeError
from kvlp.knowledge.graph import KnowledgeGraph, Relation
from kvlp.knowledge.sources.report import SourceReport
from kvlp.knowledge.sources.tables import Columns, join_list, read_rows, split_list, write_rows
from kvlp.knowledge.sources.triples import read_triples

TRIPLES = "head,relation,tail\nC0032227,located in,pleura\nempyema,subclass of,C0032227\n"
NAMES = """id,name,synonyms,types
C0032227,pleural effusion,effusion; fluid,finding
pleura,pleura,,anatomy
empyema,empyema,,
"""


def _write(folder: Path, **texts: str) -> dict[str, Path]:
    paths = {name: folder / f"{name}.csv" for name in texts}
    for name, text in texts.items():
        paths[name].write_text(text, encoding="utf-8")
    return paths


def test_triples_alone(tmp_path: Path) -> None:
    path = _write(tmp_path, mine=TRIPLES)["mine"]
    graph = KnowledgeGraph.from_triples(path)
    assert [c.id for c in graph] == ["C0032227", "pleura", "empyema"]
    assert list(graph.relations) == [
        Relation("C0032227", "located in", "pleura", "mine"),
        Relation("empyema", "is_a", "C0032227", "mine"),
    ]
    assert graph.name == "mine"
    assert graph["C0032227"].source_ids == ("UMLS:C0032227",)


def test_names_and_definitions(tmp_path: Path) -> None:
    said = "cui\tdef\nC0032227\tFluid around the lung.\nC0032227\tSecond.\n"
    files = _write(tmp_path, t=TRIPLES, names=NAMES + "x,never related,,\n", d=said)
    graph = KnowledgeGraph.from_triples(files["t"], names=files["names"], definitions=files["d"], name="own")
    effusion = graph["C0032227"]
    assert (effusion.name, effusion.synonyms) == ("pleural effusion", ("effusion", "fluid"))
    assert (effusion.definition, effusion.semantic_types) == ("Fluid around the lung.", ("finding",))
    assert graph.parents("empyema") == ["C0032227"]
    assert (graph.name, len(graph)) == ("own", 4)


@pytest.mark.parametrize(
    "header", ["subject\tpredicate\tobject", "h\tr\tt", "Head\tRelation\tTail", "head\ttype\ttail\tsource"]
)
def test_other_headers_tabs_and_gzip(tmp_path: Path, header: str) -> None:
    cells = "a\tcauses\tb" + ("\tbook" if "source" in header else "")
    path = tmp_path / "t.tsv.gz"
    path.write_bytes(gzip.compress(f"{header}\n{cells}\n".encode()))
    assert [(r.head, r.type, r.tail) for r in KnowledgeGraph.from_triples(path).relations] == [("a", "causes", "b")]


def test_repeated_triples_count_once_and_self_loops_are_reported(tmp_path: Path) -> None:
    files = _write(tmp_path, one="head,relation,tail\na,r,b\na,r,a\n", two="head,relation,tail\na,r,b\nb,r,c\n")
    report = SourceReport()
    graph = read_triples([files["one"], files["two"]], report=report)
    assert [(r.head, r.tail, r.source) for r in graph.relations] == [("a", "b", "one"), ("b", "c", "two")]
    assert report.named == {"self_loop": ["a r a"]}


@pytest.mark.parametrize(
    ("triples", "names", "definitions", "message"),
    [
        ("head,releation,tail\n", None, None, r"missing relation; is 'releation' meant to be 'relation'\?"),
        ("head,relation,tail,sourse\na,b,c,d\n", None, None, r"unknown column 'sourse'; did you mean 'source'\?"),
        ("head,relation,tail\na,b\n", None, None, r"t\.csv line 2: expected 3 cells, got 2"),
        ("head,relation,tail\na,,b\n", None, None, r"line 2: column 'relation' is empty"),
        ('head,relation,tail\na,b,"c\n', None, None, r"line 2: not readable as CSV .* is it cut off\?"),
        ("head,relation,tail\na,is a,b\nb,isa,a\n", None, None, r"is_a goes in a circle: a is_a b is_a a"),
        (TRIPLES, NAMES.replace("empyema,empyema", "empyma,x"), None, r"line 3: 'empyema' is not in .*mean 'empyma'\?"),
        (TRIPLES, NAMES + "pleura,lining,,\n", None, r"line 5: id 'pleura' is there twice; put other names in"),
        (TRIPLES, NAMES, "id,definition\npleurra,x\n", r"line 2: 'pleurra' is not in the names .*mean 'pleura'\?"),
        ("", None, None, r"expected the columns head, relation, tail"),
    ],
)
def test_what_is_wrong_is_named(
    tmp_path: Path, triples: str, names: str | None, definitions: str | None, message: str
) -> None:
    texts = {"t": triples, "names": names, "defs": definitions}
    files = _write(tmp_path, **{k: v for k, v in texts.items() if v is not None})
    with pytest.raises(KnowledgeError, match=message) as caught:
        KnowledgeGraph.from_triples(files["t"], names=files.get("names"), definitions=files.get("defs"))
    assert "\n" not in str(caught.value)


def test_latin_1_cut_off_and_missing(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("head,relation,tail\nRöntgen,r,b\n".encode("latin-1"))
    with pytest.raises(KnowledgeError, match=r"not UTF-8 \(byte 20\); save the file as UTF-8 \(line 2 is not\)"):
        KnowledgeGraph.from_triples(path)
    short = tmp_path / "t.csv.gz"
    short.write_bytes(gzip.compress(TRIPLES.encode())[:-9])
    with pytest.raises(KnowledgeError, match="is it cut off or damaged"):
        KnowledgeGraph.from_triples(short)
    with pytest.raises(KnowledgeError, match="no such file; expected a table of triples"):
        KnowledgeGraph.from_triples(tmp_path / "none.csv")
    with pytest.raises(KnowledgeError, match="at least one file"):
        KnowledgeGraph.from_triples()


# ---- cells -----------------------------------------------------------------------------------------------------------

FORMULAS = ["=1+1", "+cmd", "-itis", "@x", "'=x", "''=x", "\tx", "-5", "+1.5e3", "plain", "a=b", "'quoted'"]


def test_cells_that_a_spreadsheet_would_run_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    write_rows(path, ["id", "name"], [[str(i), cell] for i, cell in enumerate(FORMULAS)])
    raw = path.read_text()
    for cell in ("=1+1", "+cmd", "-itis", "@x"):
        assert f",'{cell}\n" in raw
    assert ",-5\n" in raw
    back = [row["name"] for _, row in read_rows(path, Columns(("id", "name")))]
    assert back == FORMULAS


@pytest.mark.parametrize("parts", [(), ("a",), ("a; b", "c"), ("back\\", "x;"), ("\\;", ";\\"), ("1, 2", "ü")])
def test_lists_in_a_cell_come_back(parts: tuple[str, ...]) -> None:
    assert split_list(join_list(parts)) == parts


def test_unusual_line_ends_inside_a_cell(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    rows = [["a", "one\u2028two\x0bthree"], ["b", "one\r\ntwo"]]
    write_rows(path, ["id", "name"], rows)
    assert [[row["id"], row["name"]] for _, row in read_rows(path, Columns(("id", "name")))] == rows
