"""Benchmarks of labelled radiographs on small folders in the layout that users download.

The pictures tell their labels to the planted model (see conftest): pixel 0 cardiomegaly, pixel 1 pleural effusion.
"""

import json
import sys
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from kvlp.cli import main
from kvlp.datasets.readers import get_reader
from kvlp.errors import DataError
from kvlp.eval.benchmarks import load_card, run_benchmark
from kvlp.eval.evaluate import EvalOptions
from kvlp.eval.results import read_results
from kvlp.knowledge.graph import KnowledgeGraph

QUICK = EvalOptions(resamples=10, negation=False)


def draw(path, heart=False, fluid=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(str(path))).integers(30, 90, size=(24, 24), dtype=np.uint8)
    pixels[0, :3] = np.where([heart, fluid, False], 250, 5)
    Image.fromarray(pixels).save(path)


def write_chestxray14(root):
    """Two images a patient; the table has more columns, as published; the last patient is of the training part."""
    rows = ["Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Sex,View Position,OriginalImage["
            "Width,Height],OriginalImagePixelSpacing[x,y],"]  # fmt: skip
    tested = []
    said = ["Cardiomegaly|Effusion", "Cardiomegaly", "Effusion", "No Finding", "Mass", "No Finding", "Effusion"]
    for patient, finding in enumerate(said):
        for number in range(2):
            name = f"{patient:08}_{number:03}.png"
            rows.append(f"{name},{finding},{number},{patient},060,F,PA,2500,2048,0.168,0.168,")
            draw(root / f"images_{patient % 2 + 1:03}" / "images" / name, "Cardio" in finding, "Eff" in finding)
            tested += [name] if patient < len(said) - 1 else []
    root.joinpath("Data_Entry_2017_v2020.csv").write_text("\n".join(rows) + "\n")
    root.joinpath("test_list.txt").write_text("\n".join(tested))
    return root


def write_chexpert(root, *, by_image=False):
    """Four studies; the second has two frontal images, each has a lateral one."""
    header = "No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Pleural Effusion"
    labels = ["0,1,1,0,1", "1,0,0,0,0", "0,0,0,1,1", "0,1,1,0,0"]
    rows = []
    for number, cells in enumerate(labels):
        study = f"test/patient6474{number}/study1"
        views = ["view1_frontal", "view2_lateral", *(["view3_frontal"] if number == 1 else [])]
        for view in views:
            draw(root / study / f"{view}.jpg", cells.split(",")[2] == "1", cells.split(",")[4] == "1")
        rows += [f"{study}/{view}.jpg,{cells}" for view in views] if by_image else [f"CheXpert-v1.0/{study},{cells}"]
    table, key = ("test_labels.csv", "Path") if by_image else ("groundtruth.csv", "Study")
    root.joinpath(table).write_text("\n".join([f"{key},{header}", *rows]) + "\n")
    return root


LAYOUTS = {"chestxray14": write_chestxray14, "chexpert": write_chexpert}


@pytest.fixture(scope="session")
def graph():
    return KnowledgeGraph.load("chest")


def test_chestxray14_splits_by_the_official_list_and_denies_only_what_no_finding_denies(tmp_path):
    manifest = get_reader("chestxray14")(write_chestxray14(tmp_path), tmp_path / "out")
    assert [r.split for r in manifest] == ["test"] * 12 + ["train"] * 2
    assert (manifest[0].patient_id, manifest[0].view, manifest[0].extra) == ("0", "PA", {"age": "060", "sex": "F"})
    assert manifest[0].labels == {"Cardiomegaly": 1, "Effusion": 1, "No Finding": 0}
    assert manifest[6].labels["No Finding"] == 1
    assert sum(value == 0 for value in manifest[6].labels.values()) == 14
    assert all(manifest.path_of(r).is_file() for r in manifest)
    assert manifest.path_of(manifest[2]).parent.parent.name == "images_002"


def test_one_size_of_the_images_is_asked_for(tmp_path):
    root = write_chestxray14(tmp_path)
    draw(root / "images-224" / "00000000_000.png")
    with pytest.raises(DataError, match="images lie twice, in images-224 and images_001/images; leave one"):
        get_reader("chestxray14")(root, tmp_path / "out")


@pytest.mark.parametrize("by_image", [False, True])
def test_chexpert_takes_frontal_images_of_both_tables(tmp_path, by_image):
    manifest = get_reader("chexpert")(write_chexpert(tmp_path, by_image=by_image), tmp_path / "out")
    assert [r.id for r in manifest] == [
        "patient64740/study1/view1_frontal",
        "patient64741/study1/view1_frontal",
        "patient64741/study1/view3_frontal",
        "patient64742/study1/view1_frontal",
        "patient64743/study1/view1_frontal",
    ]
    assert [r.labels["Pleural Effusion"] for r in manifest] == [1, 0, 0, 1, 0]
    assert manifest[2].patient_id == "patient64741"
    assert manifest[2].labels["No Finding"] == 1


def test_published_zeros_are_counted_as_absent_and_the_class_is_asked_by_its_concept(fakes, tmp_path, graph):
    card = load_card("chestxray14")
    run = run_benchmark(card, write_chestxray14(tmp_path), tmp_path / "out", fakes.Model(), graph, options=QUICK)
    # the training patient is not scored; "Mass" names no effusion, so its two images count as absent for it
    fluid = next(r for r in run.rows if (r.metric, r.target, r.setting) == ("auc", "pleural effusion", "PAIR"))
    assert (fluid.value, fluid.n, fluid.n_positive, fluid.n_groups) == (1.0, 12, 4, 6)
    assert fluid.provenance.split == "test"
    assert run.classes.words["pleural effusion"] == ("Effusion",)
    assert run.remarks[0] == "not the whole benchmark: 12 of 12 listed images found; the whole benchmark has 25,596"


def test_missing_images_are_counted_and_none_at_all_is_an_error(fakes, tmp_path, graph):
    root = write_chestxray14(tmp_path)
    for path in (root / "images_001").rglob("*.png"):
        path.unlink()
    run = run_benchmark(load_card("chestxray14"), root, tmp_path / "out", fakes.Model(), graph, options=QUICK)
    assert (run.coverage.found, run.coverage.listed) == (6, 12)
    assert not run.coverage.whole
    for path in root.rglob("*.png"):
        path.unlink()
    with pytest.raises(
        DataError, match=r"ChestX-ray14: none of 14 listed images lies below .*; looked for images/0000"
    ):
        run_benchmark(load_card("chestxray14"), root, tmp_path / "out", fakes.Model(), graph, options=QUICK)


def test_the_mean_of_the_five_is_given_beside_the_others(fakes, tmp_path, graph):
    run = run_benchmark(
        load_card("chexpert"), write_chexpert(tmp_path), tmp_path / "o", fakes.Model(), graph, options=QUICK
    )
    macro = {r.group: r for r in run.rows if (r.metric, r.target, r.setting) == ("auc", "macro", "POS")}
    assert set(macro) == {"five of the competition", "the others", "all"}
    assert macro["five of the competition"].value == 1.0  # cardiomegaly and effusion; the other three have no column
    assert "consolidation" in " ".join(macro["five of the competition"].notes)


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_a_wrong_layout_is_one_line_that_says_what_was_looked_for_and_where(name, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"looked for .* in .*data and 2 levels below; it holds notes\.txt$"):
        get_reader(name)(tmp_path / "data", tmp_path / "out")
    with pytest.raises(DataError, match="expected a folder, got nothing"):
        get_reader(name)(tmp_path / "gone", tmp_path / "out")


def test_a_table_of_another_kind_is_named_with_its_columns(tmp_path):
    root = write_chestxray14(tmp_path)
    (root / "Data_Entry_2017_v2020.csv").write_text("Image Index,Labels\na.png,Mass\n")
    with pytest.raises(DataError, match=r"expected the column 'Finding Labels'; its columns are Image Index, Labels$"):
        get_reader("chestxray14")(root, tmp_path / "out")
    write_chexpert(tmp_path / "c").joinpath("groundtruth.csv").write_text(
        "Study,Cardiomegaly,Pleural Effusion\nCheXpert-v1.0/valid/patient1/study1,1,0\n"
    )
    with pytest.raises(DataError, match="expected paths such as test/patient64741/study1"):
        get_reader("chexpert")(tmp_path / "c", tmp_path / "out")


def run_cli(*args):
    try:
        main([str(a) for a in args])
    except SystemExit as done:
        return done.code or 0
    return 0


@pytest.fixture
def planted(fakes, monkeypatch):
    checkpoints = ModuleType("kvlp.checkpoints")
    checkpoints.load = lambda name, device="cpu": fakes.Model()
    monkeypatch.setitem(sys.modules, "kvlp.checkpoints", checkpoints)


@pytest.mark.usefixtures("planted")
def test_the_command_writes_rows_page_and_what_was_scored(tmp_path, capsys):
    out = tmp_path / "out"
    args = ["eval", "chexpert", "--data", write_chexpert(tmp_path / "d"), "--model", "ckpt", "--out", out, "--seed", 3]
    assert run_cli(*args, "--resamples", 10, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert [row.to_dict() for row in read_results(out / "results.jsonl")] == document["rows"]
    assert document["benchmark"] == json.loads((out / "benchmark.json").read_text())
    assert document["benchmark"]["found"] == 5
    assert {row["seed"] for row in document["rows"]} == {3}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Dataset Research Use Agreement" in page
    assert (out / "manifest.csv").is_file()


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        (["chexpert", "--data", ".", "--out", "o"], 2, "needs a model"),
        (["ckpt", "--data", ".", "--out", "o", "--model", "m"], 2, "is none (--list)"),
        (["ckpt", "--out", "o"], 2, "--data"),
        ([], 2, "benchmark's name"),
        (["--card", "chexprt"], 1, "did you mean 'chexpert'?"),
    ],
)
def test_wrong_use_is_told(capsys, args, status, message):
    assert run_cli("eval", *args) == status
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert message in said
    assert "Traceback" not in said
