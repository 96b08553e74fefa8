"""Readers write a manifest that points to the images, keep what the source says, and never lose a manifest."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kvlp.datasets.manifest import Manifest
from kvlp.datasets.readers import READERS, get_reader
from kvlp.errors import ConfigError, DataError, ManifestError


@pytest.fixture
def cxr(tmp_path: Path) -> Path:
    """A small copy of the layout of cxr-real."""
    root = tmp_path / "cxr"
    (root / "images" / "a").mkdir(parents=True)
    rows = ["image,source,patient_id,view,labels,text,licence,split"]
    for number, licence in enumerate(("CC BY 4.0", "CC BY-NC-SA", "not stated")):
        Image.fromarray(np.full((8, 8), number * 9, np.uint8)).save(root / "images" / "a" / f"{number}.jpg")
        text = "Note." if number == 0 else ""
        rows.append(f"images/a/{number}.jpg,a,007,PA,Pneumonia;Viral Pneumonia,{text},{licence},train")
    (root / "manifest.csv").write_text("\n".join(rows) + "\n")
    return root


def test_cxr_real_keeps_everything_and_points_to_the_images(cxr: Path, tmp_path: Path) -> None:
    READERS["cxr-real"](cxr, tmp_path / "out")
    loaded = Manifest.load(tmp_path / "out" / "manifest.csv")
    first = loaded[0]
    assert (first.id, first.patient_id, first.split, first.source) == ("a/0", "007", "train", "a")
    assert first.labels == {"Pneumonia": 1.0, "Viral Pneumonia": 1.0, "No Finding": 0.0}
    assert [r.text for r in loaded] == ["Note.", "", ""]
    assert loaded.path_of(first).resolve() == (cxr / "images" / "a" / "0.jpg").resolve()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["manifest.csv"]


def test_cxr_real_denies_only_what_its_sources_rule_out(tmp_path: Path) -> None:
    rows = [
        "image,source,patient_id,view,labels,text,licence,split",
        "a,kermany-paediatric,1,AP,Pneumonia;Viral Pneumonia,,x,train",
        "b,kermany-paediatric,2,AP,Pneumonia;Bacterial Pneumonia,,x,train",
        "c,kermany-paediatric,3,AP,No Finding,,x,train",
        "d,kermany-paediatric,4,AP,Pneumonia,,x,train",
        "e,nih-cxr14,5,PA,Pneumonia;Edema,,x,train",
        "f,nih-cxr14,6,PA,No Finding,,x,train",
        "g,nih-cxr14,7,PA,,,x,train",
    ]
    (tmp_path / "manifest.csv").write_text("\n".join(rows) + "\n")
    labels = [record.labels for record in READERS["cxr-real"](tmp_path, tmp_path / "out")]
    assert labels == [
        {"Pneumonia": 1, "Viral Pneumonia": 1, "Bacterial Pneumonia": 0, "No Finding": 0},
        {"Pneumonia": 1, "Viral Pneumonia": 0, "Bacterial Pneumonia": 1, "No Finding": 0},
        {"Pneumonia": 0, "Viral Pneumonia": 0, "Bacterial Pneumonia": 0, "No Finding": 1},
        {"Pneumonia": 1, "No Finding": 0},
        {"Pneumonia": 1, "Edema": 1, "No Finding": 0},
        {"Pneumonia": 0, "Edema": 0, "No Finding": 1},
        {},
    ]


def test_copied_images_stand_on_their_own(cxr: Path, tmp_path: Path) -> None:
    READERS["cxr-real"](cxr, tmp_path / "out", copy=True)
    loaded = Manifest.load(tmp_path / "out" / "manifest.csv")
    assert loaded[1].image == "images/a/1.jpg"
    assert loaded.path_of(loaded[1]).read_bytes() == (cxr / "images" / "a" / "1.jpg").read_bytes()


def test_a_row_that_points_outside_is_not_copied(cxr: Path, tmp_path: Path) -> None:
    with (cxr / "manifest.csv").open("a") as file:
        file.write("../secret.jpg,a,008,PA,,,x,train\n")
    with pytest.raises(DataError, match="outside"):
        READERS["cxr-real"](cxr, tmp_path / "out", copy=True)


def test_licence_filter(cxr: Path, tmp_path: Path) -> None:
    kept = READERS["cxr-real"](cxr, tmp_path / "out", licence="cc by*")
    assert [r.licence for r in kept] == ["CC BY 4.0", "CC BY-NC-SA"]
    with pytest.raises(DataError, match="no record is left with a licence like 'MIT'"):
        READERS["cxr-real"](cxr, tmp_path / "none", licence="MIT")


def test_a_manifest_that_differs_is_kept_unless_told(cxr: Path, tmp_path: Path) -> None:
    read = READERS["cxr-real"]
    read(cxr, tmp_path / "out")
    read(cxr, tmp_path / "out")  # the same again is no loss
    before = (tmp_path / "out" / "manifest.csv").read_bytes()
    with pytest.raises(DataError, match="--overwrite"):
        read(cxr, tmp_path / "out", licence="CC BY 4.0")
    assert (tmp_path / "out" / "manifest.csv").read_bytes() == before
    assert len(read(cxr, tmp_path / "out", licence="CC BY 4.0", overwrite=True)) == 1


def test_wrong_sources_are_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("image\nx.png\n")
    with pytest.raises(ManifestError, match="expected the columns source, patient_id"):
        READERS["cxr-real"](tmp_path, tmp_path / "out")
    with pytest.raises(DataError, match="expected a folder, got nothing"):
        READERS["cxr-real"](tmp_path / "none", tmp_path / "out")
    with pytest.raises(DataError, match="no file ends in"):
        READERS["folder"](tmp_path, tmp_path / "out")
    with pytest.raises(ConfigError, match="did you mean 'cxr-real'"):
        get_reader("cxr_real")


def test_iu_xray_with_and_without_images(tmp_path: Path) -> None:
    rows = [
        "uid,indication,findings,impression,gold_Effusion,gold_Pleural_Thickening,gold_normal,images,split",
        "01,Cough,Clear lungs.,Normal.,0,0,1,Frontal:1_a.png;Lateral:1_b.png,train",
        "02,,Effusion.,,1,0,0,Frontal:2_a.png;Frontal:2_c.png,dev",
    ]
    (tmp_path / "iu_xray_reports.csv").write_text("\n".join(rows) + "\n")
    texts = READERS["iu-xray"](tmp_path, tmp_path / "texts")
    assert [(r.id, r.image, r.study_id, r.split) for r in texts] == [("01", "", "01", "train"), ("02", "", "02", "dev")]
    assert texts[0].labels == {"Effusion": 0.0, "Pleural Thickening": 0.0, "No Finding": 1.0}
    assert texts[1].labels == {"Effusion": 1.0, "Pleural Thickening": 0.0}
    assert texts[0].report == "FINDINGS: Clear lungs.\nIMPRESSION: Normal."
    (tmp_path / "images").mkdir()
    for name in ("1_a", "1_b", "2_a", "2_c"):
        Image.new("L", (4, 4)).save(tmp_path / "images" / f"{name}.png")
    both = READERS["iu-xray"](tmp_path / "iu_xray_reports.csv", tmp_path / "both", lateral=True)
    assert [(r.id, r.view, r.study_id) for r in both] == [
        ("01-0", "frontal", "01"),
        ("01-1", "lateral", "01"),
        ("02-0", "frontal", "02"),
        ("02-1", "frontal", "02"),
    ]
    frontal = READERS["iu-xray"](tmp_path, tmp_path / "frontal")
    assert [r.id for r in frontal] == ["01-0", "02-0", "02-1"]
    assert frontal.path_of(frontal[0]).resolve() == tmp_path / "images" / "1_a.png"


def test_folder_takes_images_and_their_texts(tmp_path: Path) -> None:
    root = tmp_path / "in"
    (root / "sub").mkdir(parents=True)
    for name in ("b.png", "a.JPG", "sub/c.jpeg", "sub/c.png"):
        Image.new("L", (8, 8)).save(root / name)
    (root / "b.txt").write_text("  No effusion.\n")
    (root / "notes.md").write_text("x")
    (root / ".hidden.png").write_bytes(b"x")
    (root / "link.png").symlink_to("/etc/hostname")
    loaded = READERS["folder"](root, tmp_path / "out")
    expected = [("a", ""), ("b", "No effusion."), ("sub/c.jpeg", ""), ("sub/c.png", "")]
    assert [(r.id, r.text) for r in loaded] == expected
    assert all(loaded.path_of(r).exists() for r in loaded)


def test_folder_reads_dicom_facts_without_the_patient(kvlp_data: Path, tmp_path: Path) -> None:
    folder = kvlp_data / "dicom" / "chest"
    if not folder.is_dir():
        pytest.skip("no DICOM samples")
    loaded = READERS["folder"](folder, tmp_path / "out")
    assert len(loaded) == 4
    assert all(len(r.patient_id) in (0, 16) for r in loaded)


def test_the_phantom_reader_wants_a_number(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="number of patients, such as 500; got 'x'"):
        READERS["phantom"]("x", tmp_path)
    (tmp_path / "manifest.csv").write_text("kept")
    with pytest.raises(DataError, match="--overwrite"):
        READERS["phantom"]("3", tmp_path)
    assert (tmp_path / "manifest.csv").read_text() == "kept"


def test_the_phantom_reader_draws(tmp_path: Path) -> None:
    drawn = READERS["phantom"]("3", tmp_path, seed=1)
    assert list(Manifest.load(tmp_path / "manifest.csv")) == list(drawn)
    assert len({r.patient_id for r in drawn}) == 3
    assert all(drawn.path_of(r).exists() for r in drawn)


def test_real_sets_are_read_whole(kvlp_data: Path, tmp_path: Path) -> None:
    source = kvlp_data / "cxr-real"
    if not (source / "manifest.csv").exists():
        pytest.skip("no cxr-real")
    loaded = READERS["cxr-real"](source, tmp_path / "out")
    with (source / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(loaded) == len(rows)
    assert [(r.split, r.licence, r.text) for r in loaded] == [(x["split"], x["licence"], x["text"]) for x in rows]
    present = [sorted(name for name, value in r.labels.items() if value == 1) for r in loaded]
    assert present == [sorted(filter(None, x["labels"].split(";"))) for x in rows]
    assert all(record.labels or not x["labels"] for record, x in zip(loaded, rows))
    assert len({r.id for r in loaded}) == len(rows)
    assert loaded.path_of(loaded[-1]).exists()
    assert not {r.patient_id for r in loaded.subset("train")} & {r.patient_id for r in loaded.subset("dev")}
