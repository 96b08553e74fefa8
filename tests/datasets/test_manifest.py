"""The manifest: what goes in comes out, ids stay strings, and bad files get one line that names the fault."""

from __future__ import annotations

import csv
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvlp.datasets.manifest import Manifest, Record, format_labels, label_problem, parse_labels
from kvlp.datasets.tables import FORMATS
from kvlp.errors import ManifestError

RECORDS = [
    Record(
        id="007",
        image="a/1.png",
        text='No effusion.\nSecond line, with "quotes".',
        patient_id="0012",
        study_id="1",
        view="PA",
        split="train",
        labels={"Edema": 0.0, "Mass": -1.0, "Pneumonia": 1.0},
        source="here",
        licence="CC0",
        extra={"difficulty": "2"},
    ),
    Record(id="1e5", image="é.png", findings="Clear.", impression="Normal.", extra={"difficulty": ""}),
    Record(id="=1+1", image="b.png", text="-  small effusion", extra={"difficulty": "'=x"}),
    Record(id="4", image="c.png", labels={"A=b": 1.0}, extra={"difficulty": "-1.5"}),
]


@pytest.mark.parametrize("ending", FORMATS)
def test_save_and_load_give_the_same_records(tmp_path: Path, ending: str) -> None:
    if ending == ".parquet":
        pytest.importorskip("pyarrow", exc_type=ImportError)
    Manifest(RECORDS, tmp_path).save(tmp_path / f"m{ending}")
    loaded = Manifest.load(tmp_path / f"m{ending}")
    assert list(loaded) == RECORDS
    assert loaded.root == tmp_path
    assert loaded.content_hash == Manifest(RECORDS).content_hash


_CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=20)


@given(text=_CELLS, extra=_CELLS, value=st.sampled_from([1.0, 0.0, -1.0]))
def test_any_text_survives_csv_and_jsonl(
    tmp_path_factory: pytest.TempPathFactory, text: str, extra: str, value: float
) -> None:
    folder = tmp_path_factory.mktemp("m")
    record = Record(id="x", image="i.png", text=text, labels={"L": value}, extra={"note": extra})
    for ending in (".csv", ".jsonl"):
        Manifest([record]).save(folder / f"m{ending}")
        assert Manifest.load(folder / f"m{ending}")[0] == record


def test_a_spreadsheet_finds_no_formula_in_a_saved_csv(tmp_path: Path) -> None:
    Manifest([Record(id="x", image="i", text='=HYPERLINK("evil")', view="@x", split="-2")]).save(tmp_path / "m.csv")
    with (tmp_path / "m.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert row["text"].startswith("'=")
    assert row["view"] == "'@x"
    assert row["split"] == "-2"


def test_label_spellings() -> None:
    assert parse_labels("Pneumonia; Viral Pneumonia") == {"Pneumonia": 1.0, "Viral Pneumonia": 1.0}
    assert parse_labels("Edema=0;Mass=-1;Rest=1.0;Not=nan") == {"Edema": 0.0, "Mass": -1.0, "Rest": 1.0}
    assert parse_labels("") == {}
    assert format_labels({"A": 1.0, "B": 1.0}) == "A;B"
    assert format_labels({"A": 1.0, "B": 0.0, "C": -1.0, "D": math.nan}) == "A=1;B=0;C=-1"
    for bad in ("A;A", "=1", "A=x"):
        with pytest.raises(ManifestError):
            parse_labels(bad)
    with pytest.raises(ManifestError, match="';'"):
        format_labels({"a;b": 1.0})
    assert label_problem({"A": 1.0, "B": math.nan}) == ""
    assert "'A' is 2" in label_problem({"A": 2.0})


def test_label_columns_and_json_objects_mean_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,image,label:Edema,label:Mass\n007,x.png,1.0,\n008,y.png,-1,0\n")
    (tmp_path / "b.jsonl").write_text(
        '{"id": "007", "image": "x.png", "labels": {"Edema": 1, "Mass": null}}\n'
        '{"id": "008", "image": "y.png", "labels": {"Edema": -1, "Mass": 0}}\n'
    )
    one, other = Manifest.load(tmp_path / "a.csv"), Manifest.load(tmp_path / "b.jsonl")
    assert list(one) == list(other)
    assert one[0].labels == {"Edema": 1.0}
    assert one[0].id == "007"


def test_byte_order_mark_and_windows_line_ends_do_not_matter(tmp_path: Path) -> None:
    plain = "id,image,text\n007,x.png,Clear\n"
    (tmp_path / "a.csv").write_text(plain)
    (tmp_path / "b.csv").write_bytes(b"\xef\xbb\xbf" + plain.replace("\n", "\r\n").encode())
    assert list(Manifest.load(tmp_path / "a.csv")) == list(Manifest.load(tmp_path / "b.csv"))


BAD_FILES = {
    "empty": (b"", "the file is empty"),
    "blank lines": (b"\n\n", "header line"),
    "header only": (b"id,image\n", "no rows"),
    "latin-1": (b"id,image\n1,x.png\n2,\xe9.png\n", "line 3: byte 0xE9 is not UTF-8"),
    "utf-16": ("id,image\n1,x\n".encode("utf-16"), "UTF-16"),
    "nul": (b"id,image\n1,x\0.png\n", "line 2: holds a NUL"),
    "ragged, short": (b"id,image,text\n1,x.png\n", "row 1: line 2: expected 3 cells, got 2"),
    "ragged, long": (b"id,image\n1,x.png\n2,y.png,z\n", "row 2: line 3: expected 2 cells, got 3"),
    "doubled header": (b"id,image,id\n1,x,2\n", "two columns are called 'id'"),
    "nameless header": (b",image\n0,x\n", "column 1 has no name"),
    "no known column": (b"name,path\n1,x.png\n", "rename 'path' to 'image'"),
    "open quote": (b'id,image\n1,"x.png\n', "not CSV"),
    "huge cell": (b"id,image\n1," + b"x" * 200_000 + b"\n", "not CSV: field larger"),
    "label value": (b"id,image,labels\n1,x.png,Edema=yes\n", "row 1: label 'Edema': expected 1, 0, -1"),
    "label range": (b"id,image,labels\n1,x.png,Edema=1\n2,y.png,Edema=3\n", "row 2: label 'Edema' is 3"),
    "no id": (b"id,image\n ,x.png\n", "row 1: the id is empty"),
    "png": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "NUL"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_csv_is_answered_with_one_line(tmp_path: Path, name: str) -> None:
    data, message = BAD_FILES[name]
    (tmp_path / "m.csv").write_bytes(data)
    with pytest.raises(ManifestError) as caught:
        Manifest.load(tmp_path / "m.csv")
    assert message in str(caught.value)
    assert "m.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "row 1: line 1: not JSON"),
        ("[1]", "one JSON object a line, got list"),
        ('{"id": "1", "id": "2", "image": "x"}', "a key occurs twice"),
        ('{"image": ["x"]}', "column 'image': expected a string or number, got list"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_bad_jsonl_is_answered_with_one_line(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "m.jsonl").write_text(line + '\n{"id": "1", "image": "x.png"}\n')
    with pytest.raises(ManifestError, match=message):
        Manifest.load(tmp_path / "m.jsonl")
    assert len(Manifest.load(tmp_path / "m.jsonl", strict=False)) == 2


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "m.xlsx").write_bytes(b"PK")
    for name, message in (
        ("folder.csv", "got a folder"),
        ("pipe.csv", "not a regular file"),
        ("m.xlsx", "ending in .csv, .jsonl, .parquet, got '.xlsx'"),
        ("none.csv", "cannot be opened"),
    ):
        with pytest.raises(ManifestError, match=message):
            Manifest.load(tmp_path / name)


def test_bad_parquet_is_answered_with_one_line(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", exc_type=ImportError)
    pq = pytest.importorskip("pyarrow.parquet", exc_type=ImportError)
    (tmp_path / "m.parquet").write_bytes(b"PAR1 this is none PAR1")
    with pytest.raises(ManifestError, match="not a Parquet file"):
        Manifest.load(tmp_path / "m.parquet")
    pq.write_table(pa.table({"image": [b"x"]}), tmp_path / "n.parquet")
    with pytest.raises(ManifestError, match="column 'image': expected strings or numbers, got binary"):
        Manifest.load(tmp_path / "n.parquet")
    pq.write_table(pa.table({"id": [7], "image": ["x"], "label:A": [1.0]}), tmp_path / "o.parquet")
    assert Manifest.load(tmp_path / "o.parquet")[0] == Record(id="7", image="x", labels={"A": 1.0})


def test_a_load_that_is_not_strict_keeps_good_rows_and_names_the_faulty(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("id,image,labels\n1,x.png,A\n2,y.png\n3,z.png,A=q\n4,w.png,A=0\n")
    loaded = Manifest.load(tmp_path / "m.csv", strict=False)
    assert [record.id for record in loaded] == ["1", "2", "3", "4"]
    assert [(p.row, p.kind) for p in loaded.problems] == [(2, "ragged_row"), (3, "bad_label")]
    assert loaded[3].labels == {"A": 0.0}


def test_subset_studies_and_report() -> None:
    rows = [
        Record(id="1", image="1", patient_id="a", study_id="1", split="train", source="x", impression="Normal."),
        Record(id="2", image="2", patient_id="b", study_id="1", split="dev", source="x"),
        Record(id="3", image="3", patient_id="a", study_id="1", split="train", source="y"),
        Record(id="4", image="4", split="dev", source="y"),
        Record(id="5", image="5", split="dev", source="y"),
    ]
    manifest = Manifest(rows)
    assert [r.id for r in manifest.subset("dev", source="y")] == ["4", "5"]
    assert [r.id for r in manifest.subset(where=lambda r: r.patient_id == "a")] == ["1", "3"]
    with pytest.raises(ManifestError, match="no record has split 'test'; the manifest has: dev, train"):
        manifest.subset("test")
    # one study number of two patients is two studies; a row without one stands alone
    assert [[r.id for r in study.records] for study in manifest.studies()] == [["1", "3"], ["2"], ["4"], ["5"]]
    assert manifest.studies()[0].report == "IMPRESSION: Normal."
    assert [r.id for r in manifest[1:3]] == ["2", "3"]
    with pytest.raises(ManifestError, match="no image"):
        manifest.path_of(Record(id="t", text="x"))
    assert manifest.path_of(Record(id="t", image="/abs/x.png")) == Path("/abs/x.png")


def test_content_hash_ignores_order_and_folder_and_sees_every_value() -> None:
    base = Manifest(RECORDS)
    assert Manifest(RECORDS[::-1], "/elsewhere").content_hash == base.content_hash
    changed = [Record(id="007", image="a/1.png"), *RECORDS[1:]]
    assert Manifest(changed).content_hash != base.content_hash
    assert (
        Manifest([Record(id="1", labels={"A": 1.0})]).content_hash
        == Manifest([Record(id="1", labels={"A": 1, "B": math.nan})]).content_hash
    )


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    Manifest(RECORDS).save(path)
    before = path.read_bytes()
    with pytest.raises(ManifestError):
        Manifest([Record(id="1", labels={"a;b": 1.0})]).save(path)
    with pytest.raises(UnicodeEncodeError):
        Manifest([Record(id="\ud800")]).save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.csv"]
