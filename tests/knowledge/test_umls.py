"""UMLS tables: rows that are made up in the layout of a release, and a made-up release counted line by line."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow", exc_type=ImportError)

from kvlp.errors import KnowledgeError
from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.knowledge.sources.umls_relations import meaning
from kvlp.knowledge.surfaces import fold
from kvlp.knowledge.table_store import TableStore


def _conso(
    cui: str,
    text: str,
    *,
    ts: str = "P",
    stt: str = "PF",
    pref: str = "Y",
    lat: str = "ENG",
    sup: str = "N",
    sab: str = "MADEUP",
    tty: str = "PT",
    code: str = "",
) -> str:
    return f"{cui}|{lat}|{ts}|L1|{stt}|S1|{pref}|A1||M1|D1|{sab}|{tty}|{code or 'X-' + cui}|{text}|0|{sup}|256|"


def _rel(cui1: str, rel: str, cui2: str, rela: str = "", *, sup: str = "N", sab: str = "MADEUP") -> str:
    return f"{cui1}|A1|CUI|{rel}|{cui2}|A2|CUI|{rela}|R1||{sab}|{sab}|||{sup}||"


def _write(path: Path, rows: list[str]) -> None:
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8", newline="\n")


NAMES = [
    _conso("C1", "mass in lung", ts="S"),
    _conso("C1", 'A "lung" mass'),
    _conso("C1", "A “lung” mass; big", ts="S", stt="VO"),
    _conso("C1", "a-LUNG  mass; big", ts="S", stt="VO"),
    _conso("C1", 'a "LUNG" mass', ts="S", code="other"),
    _conso("C1", "masse pulmonaire", lat="FRE", sab="MADEFRE", code="F1"),
    _conso("C1", "old name", sup="O"),
    _conso("C2", "lesion", sab="MTH"),
    _conso("C2", "Läsion", ts="S", sab="SECOND", code="NOCODE"),
    _conso("C3", '"'),
    _conso("C4", "loop one"),
    _conso("C5", "seulement", lat="FRE", sab="MADEFRE"),
]
RELATIONS = [
    _rel("C2", "CHD", "C1", "isa"),
    _rel("C1", "PAR", "C2", "inverse_isa"),
    _rel("C1", "PAR", "C2"),
    _rel("C2", "RO", "C3", "caused_by"),
    _rel("C2", "SIB", "C3", "sib_in_isa"),
    _rel("C9", "CHD", "C1", "isa"),
    _rel("C3", "RO", "C3", "same_as"),
    _rel("C3", "PAR", "C4"),
    _rel("C4", "PAR", "C3"),
    _rel("C1", "RO", "C3", "obsolete_rel", sup="O"),
    _rel("C1", "RB", "C3"),
    _rel("C5", "RO", "C3", "seen_in"),
    _rel("C1", "PAR", "C2", sab="SECOND"),
]


@pytest.fixture
def umls(tmp_path: Path) -> Path:
    folder = tmp_path / "META"
    folder.mkdir()
    _write(folder / "MRCONSO.RRF", NAMES)
    _write(folder / "MRREL.RRF", RELATIONS)
    _write(
        folder / "MRSTY.RRF",
        ["C1|T033|A2.2|Finding|AT1||", "C1|T191|B2|Neoplastic Process|AT1||", "C1|T033|A2.2|Finding|AT2||"]
        + ["C3|T047|B2|Disease or Syndrome|AT1||", "C9|T033|A2.2|Finding|AT1||"],
    )
    _write(
        folder / "MRDEF.RRF",
        ["C1|A1|AT1||MADEFRE|Une masse.|N||", "C1|A1|AT1||MADEUP|Withdrawn.|O||", 'C1|A1|AT1||MADEUP|A "lump"; é.|N||']
        + ["C1|A1|AT1||MADEUP|Second.|N||", "C8|A1|AT1||MADEUP|Nobody's.|N||"],
    )
    return folder


def _triples(graph: KnowledgeGraph) -> set[tuple[str, str, str]]:
    return {(r.head, r.type, r.tail) for r in graph.relations}


def test_names_types_definitions(umls: Path) -> None:
    graph = KnowledgeGraph.from_umls(umls)
    assert [c.id for c in graph] == ["C1", "C2", "C3", "C4"]
    mass = graph["C1"]
    assert mass.name == 'A "lung" mass'
    assert mass.synonyms == ("mass in lung", "A “lung” mass; big", "a-LUNG  mass; big")
    assert mass.semantic_types == ("Finding", "Neoplastic Process")
    assert mass.definition == 'A "lump"; é.'
    assert mass.source_ids == ("UMLS:C1", "MADEUP:X-C1", "MADEUP:other")
    assert graph["C2"].source_ids == ("UMLS:C2",)  # neither the vocabulary MTH nor NOCODE is a code
    assert graph["C3"].name == '"'
    assert graph.concept("lasion").id == graph.concept("umls:c2").id == "C2"
    assert graph.name == "META"
    assert "UMLS" in graph.licence
    assert "not to be redistributed" in graph.licence
    assert [p for p in graph.validate() if p.severity == "error"] == []


def test_rows_of_relations_read_from_right_to_left(umls: Path) -> None:
    graph = KnowledgeGraph.from_umls(umls)
    assert _triples(graph) == {("C1", "is_a", "C2"), ("C3", "caused_by", "C2")}
    assert [(r.type, r.source) for r in graph.neighbours("C1")] == [("is_a", "MADEUP"), ("is_a", "SECOND")]
    assert graph.parents("C1") == ["C2"]
    assert graph.children("C2") == ["C1"]


@pytest.mark.parametrize(
    ("rel", "rela", "expected"),
    [
        ("CHD", "isa", ("is_a", False)),
        ("CHD", "", ("is_a", False)),
        ("PAR", "inverse_isa", ("is_a", True)),
        ("PAR", "", ("is_a", True)),
        ("RN", "isa", ("is_a", False)),
        ("PAR", "part_of", ("part_of", False)),
        ("RO", "finding_site_of", ("finding_site_of", False)),
        ("RO", "", ("", False)),
        ("SY", "translation_of", ("", False)),
    ],
)
def test_what_a_row_means(rel: str, rela: str, expected: tuple[str, bool]) -> None:
    assert meaning(rel, rela) == expected


def test_what_is_left_out_is_counted_and_named(umls: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    with caplog.at_level(logging.WARNING, logger="kvlp"):
        report: Any = KnowledgeGraph.from_umls(umls, out=tmp_path / "g").build_report
    assert report["read"] == {"MRCONSO.RRF": 12, "MRREL.RRF": 13, "MRSTY.RRF": 5, "MRDEF.RRF": 5}
    assert report["kept"] == {"concepts": 4, "names": 8, "definitions": 1, "relations": 3}
    assert report["left_out"]["MRCONSO.RRF"] == {"language": 2, "suppressed": 1}
    assert report["left_out"]["MRDEF.RRF"] == {"vocabulary": 1, "suppressed": 1, "not_kept": 1}
    assert report["left_out"]["MRREL.RRF"] == {
        "untyped": 2,
        "suppressed": 1,
        "dangling": 1,
        "self_loop": 1,
        "not_kept": 1,
        "circle": 2,
    }
    assert report["examples"]["dangling"] == ["'C9 CHD C1 isa' in line 6"]
    assert json.loads((tmp_path / "g" / "graph.json").read_text())["build_report"] == report
    (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert "1 rows name a CUI that is not in MRCONSO.RRF (such as 'C9 CHD C1 isa' in line 6)" in line
    assert "1 relate a concept to itself (such as 'C3 RO C3 same_as' in line 7)" in line
    assert "2 is_a relations went in circles (such as C3 is_a C4)" in line


def test_only_what_closes_a_circle_is_cut(umls: Path) -> None:
    ring = [("C1", "C2"), ("C2", "C3"), ("C3", "C1"), ("C4", "C1"), ("C3", "C4")]  # A PAR B: A is_a B
    _write(umls / "MRREL.RRF", [_rel(a, "PAR", b) for a, b in ring])
    assert _triples(KnowledgeGraph.from_umls(umls)) == set()
    _write(umls / "MRREL.RRF", [_rel(a, "PAR", b) for a, b in [*ring[:3], ring[3], ("C2", "C1")]])
    kept = {("C4", "is_a", "C1"), ("C2", "is_a", "C3"), ("C3", "is_a", "C1")}  # the contradiction opened the ring
    assert _triples(KnowledgeGraph.from_umls(umls)) == kept


def test_filters(umls: Path) -> None:
    read = KnowledgeGraph.from_umls
    assert [c.id for c in read(umls, languages=None)] == ["C1", "C2", "C3", "C4", "C5"]
    french = read(umls, languages=("FRE", "ENG"))
    assert french["C1"].name == "masse pulmonaire"
    assert 'A "lung" mass' in french["C1"].synonyms
    assert french["C1"].definition == "Une masse."
    assert [c.id for c in read(umls, vocabularies=["SECOND"])] == ["C2"]
    assert _triples(read(umls, vocabularies=["MADEUP", "MTH"])) == {("C1", "is_a", "C2"), ("C3", "caused_by", "C2")}
    assert [c.id for c in read(umls, semantic_types=["T047"])] == ["C3"]
    finding = read(umls, semantic_types=["Finding"])
    assert [(c.id, c.semantic_types) for c in finding] == [("C1", ("Finding", "Neoplastic Process"))]
    assert _triples(read(umls, relations=["caused_by"])) == {("C3", "caused_by", "C2")}
    kept = read(umls, suppressed=True)
    assert "old name" in kept["C1"].synonyms
    assert ("C3", "obsolete_rel", "C1") in _triples(kept)
    assert kept["C1"].definition == "Withdrawn."


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"languages": ["EN"]}, r"MRCONSO.RRF: no language 'EN'; did you mean 'ENG'\?"),
        ({"vocabularies": ["MADEUPP"]}, r"no vocabulary 'MADEUPP'; did you mean 'MADEUP'\?"),
        ({"vocabularies": ["q"]}, r"no vocabulary 'q'; there are MADEFRE, MADEUP, MTH, SECOND"),
        ({"semantic_types": ["Findings"]}, r"MRSTY.RRF: no semantic type 'Findings'; did you mean 'Finding'\?"),
        ({"relations": ["isa"]}, r"MRREL.RRF: no relation 'isa'; did you mean 'is_a'\?"),
        ({"languages": "ENG"}, r"languages: expected a list of at least one, or None for all; got 'ENG'"),
        ({"vocabularies": []}, r"vocabularies: expected a list"),
        ({"vocabularies": ["MADEFRE"]}, r"no row is left; the filters fit nothing together"),
    ],
)
def test_filters_that_fit_nothing(umls: Path, chosen: dict[str, Any], message: str) -> None:
    with pytest.raises(KnowledgeError, match=message) as caught:
        KnowledgeGraph.from_umls(umls, **chosen)
    assert "\n" not in str(caught.value)


def test_preferred_names_follow_mrrank(umls: Path) -> None:
    rows = [_conso("C1", "first"), _conso("C1", "second", tty="PN"), _conso("C1", "third", sab="B")]
    _write(umls / "MRCONSO.RRF", rows)
    assert KnowledgeGraph.from_umls(umls)["C1"].name == "first"
    _write(umls / "MRRANK.RRF", ["0100|MADEUP|PT|N|", "0900|MADEUP|PN|N|", "1000|OTHER|PT|N|"])
    assert KnowledgeGraph.from_umls(umls)["C1"].name == "second"
    _write(umls / "MRRANK.RRF", ["high|MADEUP|PT|N|"])
    with pytest.raises(KnowledgeError, match=r"MRRANK.RRF: expected numbers in the first column"):
        KnowledgeGraph.from_umls(umls)


def test_names_alone_are_enough(umls: Path) -> None:
    for name in ("MRREL.RRF", "MRSTY.RRF", "MRDEF.RRF"):
        (umls / name).unlink()
    graph = KnowledgeGraph.from_umls(umls)
    assert (len(graph), len(graph.relations)) == (4, 0)
    with pytest.raises(KnowledgeError, match=r"MRSTY\.RRF: missing; choosing semantic types needs it"):
        KnowledgeGraph.from_umls(umls, semantic_types=["Finding"])
    (umls / "MRCONSO.RRF").unlink()
    with pytest.raises(KnowledgeError, match=r"expected a UMLS folder with MRCONSO\.RRF"):
        KnowledgeGraph.from_umls(umls)


def test_rows_may_come_in_any_order_and_with_any_line_end(umls: Path) -> None:
    before = KnowledgeGraph.from_umls(umls)
    path = umls / "MRREL.RRF"
    path.write_bytes(b"\r\n".join(reversed(path.read_bytes().splitlines())))  # no line end after the last row either
    after = KnowledgeGraph.from_umls(umls)
    assert list(after.relations) == list(before.relations)
    assert after.content_hash == before.content_hash
    names = (umls / "MRCONSO.RRF").read_bytes().splitlines(keepends=True)
    (umls / "MRCONSO.RRF").write_bytes(b"".join([*names[7:], *names[:7]]))
    assert KnowledgeGraph.from_umls(umls).content_hash == before.content_hash


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: raw[:-9], r"line 12: expected 18 columns, each ended by '\|', got 1[0-9]; is the file cut off\?"),
        (lambda raw: raw.replace(b"lesion", b"l\xe9sion"), r"line 8: not UTF-8; RRF tables are UTF-8"),
        (lambda raw: raw.replace(b"lesion", b"le|sion"), r"line 8: expected 18 columns, each ended by '\|', got 19"),
        (lambda raw: raw.replace(b"|lesion|", b"|"), r"line 8: expected 18 columns, each ended by '\|', got 17"),
        (lambda raw: raw.replace(b"lesion", b"le\rsion"), r"line 8: holds a carriage return within the row"),
        (lambda raw: raw.replace(b"lesion", b"le\n\nsion"), r"line 8: expected 18 columns"),
        (lambda raw: raw.replace(b"|256|\nC2", b"|256|x\nC2", 1), r"line 7: expected 18 columns"),
        (lambda raw: raw.replace(b"C4|", b"|"), r"line 11: expected a CUI of at most 8 characters, got ''"),
        (lambda raw: raw.replace(b"C4|", b"C00000004|"), r"line 11: expected a CUI .* got 'C00000004'"),
        (lambda raw: b"", r"the file is empty; expected rows of 18 columns"),
        (lambda raw: b"\x00\x01garbage" * 50, r"line 1: expected 18 columns"),
    ],
)
def test_damaged_tables_get_one_line_that_names_the_place(umls: Path, damage: Any, message: str) -> None:
    path = umls / "MRCONSO.RRF"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(KnowledgeError, match=message) as caught:
        KnowledgeGraph.from_umls(umls)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["MRREL.RRF", "MRSTY.RRF", "MRDEF.RRF"])
def test_the_other_tables_are_looked_at_as_closely(umls: Path, name: str) -> None:
    path = umls / name
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(KnowledgeError, match=rf"{name} line \d+: expected \d+ columns"):
        KnowledgeGraph.from_umls(umls)


def test_out_is_the_same_graph_on_disk(umls: Path, tmp_path: Path) -> None:
    said: list[str] = []
    in_memory = KnowledgeGraph.from_umls(umls)
    on_disk = KnowledgeGraph.from_umls(umls, out=tmp_path / "g", progress=said.append)
    assert on_disk.concepts == in_memory.concepts
    assert on_disk.relations == in_memory.relations
    assert on_disk.content_hash == in_memory.content_hash
    assert on_disk.content_hash == KnowledgeGraph(in_memory.concepts, in_memory.relations, name="x").content_hash
    assert KnowledgeGraph.load(in_memory.save(tmp_path / "h"), check="full").licence == on_disk.licence
    assert said[0] == "MRCONSO.RRF: 12 rows"
    assert said[-1] == "written"


# ---- a made-up release, counted line by line -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from kvlp.eval.bench.rrf import write_release

    folder = tmp_path_factory.mktemp("release")
    counts = write_release(folder, concepts=2_000, names=8_500, relations=25_000, seed=7)
    for name, count in counts.items():
        assert len((folder / name).read_bytes().splitlines()) == count
    return folder


def _rows(path: Path) -> list[list[str]]:
    return [line.split("|") for line in path.read_text(encoding="utf-8").split("\n") if line]


@pytest.mark.parametrize("languages", [("ENG",), None])
def test_counts_of_a_release(release: Path, languages: tuple[str, ...] | None) -> None:
    graph = KnowledgeGraph.from_umls(release, languages=languages)
    assert isinstance(graph.store, TableStore)
    names: dict[str, dict[str, str]] = {}
    for row in _rows(release / "MRCONSO.RRF"):
        if (languages is None or row[1] in languages) and row[16] not in "OEY":
            names.setdefault(row[0], {}).setdefault(fold(row[14]), row[14])
    assert [c.id for c in graph] == sorted(names)
    assert sum(len(c.surfaces) for c in graph) == sum(map(len, names.values()))
    assert all({fold(s) for s in c.surfaces} == set(names[c.id]) for c in graph)
    expected = _expected_relations(release, set(names))
    assert Counter(r.type for r in graph.relations) == Counter(kind for _, kind, _, _ in expected)
    assert {(r.head, r.type, r.tail, r.source) for r in graph.relations} == expected
    assert len(graph.relations) == len(expected)


def _expected_relations(release: Path, known: set[str]) -> set[tuple[str, str, str, str]]:
    """Row by row, as the manual tells; circles through networkx."""
    import networkx as nx

    found = set()
    for c1, _, _, rel, c2, _, _, rela, _, _, sab, _, _, _, suppress, _, _ in _rows(release / "MRREL.RRF"):
        if suppress in "OEY" or c1 not in known or c2 not in known or c1 == c2:
            continue
        if rela == "isa" or (rel, rela) == ("CHD", ""):
            found.add((c2, "is_a", c1, sab))
        elif rela == "inverse_isa" or (rel, rela) == ("PAR", ""):
            found.add((c1, "is_a", c2, sab))
        elif rela and rel not in ("SIB", "AQ", "QB", "SY", "XR", "DEL"):
            found.add((c2, rela, c1, sab))
    above = {(h, t) for h, kind, t, _ in found if kind == "is_a"}
    above = {(h, t) for h, t in above if (t, h) not in above}
    part = {i: n for n, p in enumerate(nx.strongly_connected_components(nx.DiGraph(above))) for i in p}
    straight = {(h, t) for h, t in above if part[h] != part[t]}
    return {r for r in found if r[1] != "is_a" or (r[0], r[2]) in straight}


def test_a_release_is_the_same_for_a_seed(release: Path, tmp_path: Path) -> None:
    from kvlp.eval.bench.rrf import write_release

    write_release(tmp_path, concepts=2_000, names=8_500, relations=25_000, seed=7)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (release / path.name).read_bytes()
    text = (tmp_path / "MRCONSO.RRF").read_text(encoding="utf-8")
    assert '"' in text
    assert not text.isascii()
    assert {row[1] for row in _rows(tmp_path / "MRCONSO.RRF")} >= {"ENG", "SPA", "JPN"}
