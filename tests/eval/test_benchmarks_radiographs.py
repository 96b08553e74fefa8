"""Benchmarks of labelled radiographs on small folders in the layout that users download.

The pictures tell their labels to the planted model (see conftest): pixel 0 cardiomegaly, pixel 1 pleural effusion.
"""

import gzip
import json
import sys
from dataclasses import replace
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


def draw_dicom(path, heart=False, fluid=False):
    """An uncompressed 8-bit DICOM file of the same picture."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    pixels = np.random.default_rng(0).integers(30, 90, size=(24, 24), dtype=np.uint8)
    pixels[0, :3] = np.where([heart, fluid, False], 250, 5)
    file.Rows, file.Columns, file.SamplesPerPixel, file.PixelRepresentation = 24, 24, 1, 0
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PhotometricInterpretation = 8, 8, 7, "MONOCHROME2"
    file.PixelData = pixels.tobytes()
    file.save_as(path, enforce_file_format=True)


def write_rsna(root):
    """Three images: one with two boxes, one normal, one neither; by the mapping the first two are of one patient."""
    draw_dicom(root / "stage_2_train_images" / "aa-1.dcm")
    draw_dicom(root / "stage_2_train_images" / "bb-2.dcm")
    draw_dicom(root / "stage_2_train_images" / "cc-3.dcm")
    boxes = ["aa-1,10.0,20.0,30.0,40.0,1", "aa-1,60.0,20.0,30.0,40.0,1", "bb-2,,,,,0", "cc-3,,,,,0"]
    root.joinpath("stage_2_train_labels.csv").write_text("\n".join(["patientId,x,y,width,height,Target", *boxes]))
    kinds = ["aa-1,Lung Opacity", "aa-1,Lung Opacity", "bb-2,Normal", "cc-3,No Lung Opacity / Not Normal"]
    root.joinpath("stage_2_detailed_class_info.csv").write_text("\n".join(["patientId,class", *kinds]))
    nih = {"aa-1": "00000013_004.png", "bb-2": "00000013_005.png", "cc-3": "00000021_000.png"}
    mapping = [{"img_id": name, "subset_img_id": key, "orig_labels": []} for key, name in nih.items()]
    root.joinpath("pneumonia-challenge-dataset-mappings_2018.json").write_text(json.dumps(mapping))
    return root


def write_siim(root):
    """The header has a blank before its second name, and -1 is no mask, both as published; one image has two masks."""
    for name in ("1.2.1", "1.2.2", "1.2.3"):
        draw_dicom(root / "dicom-images-train" / f"study{name}" / f"series{name}" / f"{name}.dcm")
    rows = ["ImageId, EncodedPixels", "1.2.1, 12 3 40 2", "1.2.1, 90 1", "1.2.2, -1", "1.2.3,-1"]
    root.joinpath("train-rle.csv").write_text("\n".join(rows))
    return root


def write_vindr(root):
    rows = ["image_id,Aortic enlargement,Cardiomegaly,Pleural effusion,Other lesion,No finding"]
    for name, heart, fluid in (("aa", 1, 0), ("bb", 0, 1), ("cc", 0, 0), ("dd", 1, 1)):
        rows.append(f"{name},0,{heart},{fluid},0,{int(not heart and not fluid)}")
        draw_dicom(root / "test" / f"{name}.dicom", heart, fluid)
    (root / "annotations").mkdir()
    root.joinpath("annotations", "image_labels_test.csv").write_text("\n".join(rows))
    return root


def write_chestxdet10(root):
    entries = []
    for number, signs in enumerate((["Effusion", "Effusion", "Mass"], [], ["Nodule"], ["Effusion"])):
        entries.append({"file_name": f"3619{number}.png", "syms": signs, "boxes": [[1, 2, 3, 4]] * len(signs)})
        draw(root / "test_data" / f"3619{number}.png", fluid="Effusion" in signs)
    root.joinpath("test.json").write_text(json.dumps(entries))
    return root


def write_padchest(root):
    """The first column has no name; labels are written as Python lists; PNG files have 16 bit."""
    header = ",ImageID,ImageDir,StudyID,PatientID,PatientBirth,PatientSex_DICOM,Projection,MethodLabel,Labels"
    rows = [header]
    said = [
        ("PA", "Physician", "['cardiomegaly', ' pleural effusion', '']"),
        ("AP_horizontal", "Physician", "['normal']"),
        ("PA", "Physician", "['pleural effusion', 'unchanged']"),
        ("L", "Physician", "['cardiomegaly']"),
        ("PA", "RNN_model", "['cardiomegaly']"),
        ("PA", "Physician", ""),
    ]
    for number, (view, method, labels) in enumerate(said):
        name = f"2168401113669640{number}_00-001-002.png"
        rows.append(f'{number},{name},{number % 2},s{number},p{number},1950,F,{view},{method},"{labels}"')
        path = root / str(number % 2) / name
        draw(path, "cardiomegaly" in labels, "effusion" in labels)
        Image.fromarray(np.asarray(Image.open(path)).astype(np.uint16) * 257).save(path)
    root.joinpath("PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv").write_text("\n".join(rows))
    return root


def write_openi(root, *, views=False):
    """Three reports; the first has a frontal and a lateral image."""
    codes = [["Cardiomegaly/mild", "Pleural Effusion/left"], ["normal"], ["Thickening/pleura/apex"]]
    for uid, (heads, heart) in enumerate(zip(codes, (True, False, False), strict=True), 1):
        names = [f"CXR{uid}_{uid}_IM-0001-{view}" for view in ((4001, 3001) if uid == 1 else (4001,))]
        for name in names:
            draw(root / "NLMCXR_png" / f"{name}.png", heart, heart)
        root.joinpath("ecgen-radiology").mkdir(exist_ok=True)
        root.joinpath("ecgen-radiology", f"{uid}.xml").write_text(
            f"""<?xml version="1.0" encoding="utf-8"?><eCitation><uId id="CXR{uid}"/><MedlineCitation><Article>
            <Abstract><AbstractText Label="COMPARISON">None.</AbstractText>
            <AbstractText Label="FINDINGS">Text {uid}.</AbstractText>
            <AbstractText Label="IMPRESSION">There is {"" if heart else "no "}cardiomegaly.</AbstractText>
            </Abstract></Article></MedlineCitation><MeSH>{"".join(f"<major>{h}</major>" for h in heads)}
            <automatic>ignored</automatic></MeSH>{"".join(f'<parentImage id="{n}"/>' for n in names)}</eCitation>"""
        )
    if views:
        rows = ["uid,filename,projection", "1,1_IM-0001-4001.dcm.png,Frontal", "1,1_IM-0001-3001.dcm.png,Lateral"]
        root.joinpath("indiana_projections.csv").write_text("\n".join(rows))
    return root


FIVE = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")


def write_mimic5x200(root):
    """Two images of each of two classes, one as MIMIC-CXR-JPG lays them, the others elsewhere; pandas' index first."""
    rows = [",study_id,imgpath,ViewPosition,subject_id," + ",".join(FIVE) + ",report"]
    for number, finding in enumerate(("Cardiomegaly", "Cardiomegaly", "Pleural Effusion", "Pleural Effusion")):
        name, patient, study = f"0a-{number}", f"1000003{number // 2}", f"5041426{number}"
        marks = ",".join("1.0" if each == finding else "0.0" for each in FIVE)
        words = "cardiomegaly" if finding == FIVE[1] else "pleural effusion"
        rows.append(f"{number},{study}.0,./data/images/{name}.jpg,PA,{patient},{marks},There is {words} {number}.")
        own = f"files/p10/p{patient}/s{study}/{name}.jpg"
        draw(root / (own if number == 0 else f"elsewhere/{name}.jpg"), finding == FIVE[1], finding == FIVE[4])
    root.joinpath("mimic-5x200-meta.csv").write_text("\n".join(rows))
    return root


LAYOUTS = {
    "chestxray14": write_chestxray14,
    "chestxdet10": write_chestxdet10,
    "chexpert": write_chexpert,
    "mimic5x200": write_mimic5x200,
    "openi": write_openi,
    "padchest": write_padchest,
    "rsna": write_rsna,
    "siim": write_siim,
    "vindr": write_vindr,
}


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


def test_rsna_takes_a_box_as_present_and_patients_from_the_mapping(tmp_path):
    manifest = get_reader("rsna")(write_rsna(tmp_path), tmp_path / "out")
    assert [(r.id, r.patient_id) for r in manifest] == [
        ("aa-1", "00000013"),
        ("bb-2", "00000013"),
        ("cc-3", "00000021"),
    ]
    assert [r.labels for r in manifest] == [
        {"Pneumonia": 1, "No Finding": 0},
        {"Pneumonia": 0, "No Finding": 1},
        {"Pneumonia": 0, "No Finding": 0},
    ]
    for name in ("pneumonia-challenge-dataset-mappings_2018.json", "stage_2_detailed_class_info.csv"):
        (tmp_path / name).unlink()
    manifest = get_reader("rsna")(tmp_path, tmp_path / "bare")
    assert [(r.patient_id, dict(r.labels)) for r in manifest] == [
        ("", {"Pneumonia": 1}),
        ("", {"Pneumonia": 0}),
        ("", {"Pneumonia": 0}),
    ]


def test_siim_takes_minus_one_as_none_and_several_masks_as_one_image(tmp_path):
    manifest = get_reader("siim")(write_siim(tmp_path), tmp_path / "out")
    assert [(r.id, r.labels["Pneumothorax"]) for r in manifest] == [("1.2.1", 1), ("1.2.2", 0), ("1.2.3", 0)]
    assert manifest.path_of(manifest[0]).parent.name == "series1.2.1"
    (tmp_path / "train-rle.csv").write_text("ImageId,EncodedPixels\n1.2.1,none\n")
    with pytest.raises(DataError, match="row 1: expected run lengths or -1 in EncodedPixels, got 'none'"):
        get_reader("siim")(tmp_path, tmp_path / "out")


def test_padchest_keeps_frontal_rows_of_physicians_and_denies_nothing(tmp_path):
    manifest = get_reader("padchest")(write_padchest(tmp_path), tmp_path / "out")
    assert [(r.view, r.patient_id) for r in manifest] == [("PA", "p0"), ("AP_horizontal", "p1"), ("PA", "p2")]
    assert [r.labels for r in manifest] == [
        {"No Finding": 0, "cardiomegaly": 1, "pleural effusion": 1},
        {"No Finding": 1},
        {"No Finding": 0, "pleural effusion": 1, "unchanged": 1},
    ]
    table = tmp_path / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
    table.write_text(table.read_text().replace("['normal']", "__import__('os')"))
    with pytest.raises(DataError, match="row 2: expected Labels such as"):
        get_reader("padchest")(tmp_path, tmp_path / "out")


def test_padchest_is_read_gzipped_too(tmp_path):
    table = write_padchest(tmp_path) / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
    (tmp_path / f"{table.name}.gz").write_bytes(gzip.compress(table.read_bytes()))
    table.unlink()
    assert len(get_reader("padchest")(tmp_path, tmp_path / "out")) == 3
    (tmp_path / f"{table.name}.gz").write_bytes(gzip.compress(b"x" * 99)[:-9])
    with pytest.raises(DataError, match="not a gzipped UTF-8 table"):
        get_reader("padchest")(tmp_path, tmp_path / "out")


def test_openi_gives_reports_codes_and_drops_lateral_images_where_it_can_tell(tmp_path):
    manifest = get_reader("openi")(write_openi(tmp_path), tmp_path / "all")
    assert len(manifest) == 4
    assert manifest[0].labels == {"No Finding": 0, "Cardiomegaly": 1, "Pleural Effusion": 1}
    assert [dict(r.labels) for r in manifest[2:]] == [{"No Finding": 1}, {"No Finding": 0, "Pleural Thickening": 1}]
    assert manifest[0].report == "FINDINGS: Text 1.\nIMPRESSION: There is cardiomegaly."
    assert (manifest[0].patient_id, manifest[0].view) == ("CXR1", "")
    frontal = get_reader("openi")(write_openi(tmp_path, views=True), tmp_path / "frontal")
    assert [(r.id, r.view) for r in frontal][:2] == [("CXR1_1_IM-0001-4001", "frontal"), ("CXR2_2_IM-0001-4001", "")]


def test_openi_refuses_entities(tmp_path):
    path = write_openi(tmp_path) / "ecgen-radiology" / "2.xml"
    path.write_text('<!DOCTYPE x [<!ENTITY a "b">]><eCitation/>')
    with pytest.raises(DataError, match=r"2\.xml: XML with a document type"):
        get_reader("openi")(tmp_path, tmp_path / "out")
    path.write_text("<eCitation>")
    with pytest.raises(DataError, match=r"2\.xml: not XML"):
        get_reader("openi")(tmp_path, tmp_path / "out")


def test_vindr_and_chestxdet10(tmp_path):
    manifest = get_reader("vindr")(write_vindr(tmp_path / "v"), tmp_path / "vo")
    assert [r.labels["No finding"] for r in manifest] == [0, 0, 1, 0]
    assert manifest.path_of(manifest[0]).name == "aa.dicom"
    manifest = get_reader("chestxdet10")(write_chestxdet10(tmp_path / "d"), tmp_path / "do")
    assert [sorted(n for n, v in r.labels.items() if v) for r in manifest] == [
        ["Effusion", "Mass"],
        [],
        ["Nodule"],
        ["Effusion"],
    ]
    assert len(manifest[1].labels) == 10
    (tmp_path / "d" / "test.json").write_text('[{"file_name": "1.png", "syms": ["Hernia"]}]')
    with pytest.raises(DataError, match="entry 1: 'Hernia' is none of Atelectasis"):
        get_reader("chestxdet10")(tmp_path / "d", tmp_path / "do")
    (tmp_path / "d" / "test.json").write_text('[{"file": "1.png"}]')
    with pytest.raises(DataError, match="entry 1 has no 'file_name'; its keys are file"):
        get_reader("chestxdet10")(tmp_path / "d", tmp_path / "do")


def test_mimic_5x200_finds_images_both_ways_and_wants_one_finding_a_row(tmp_path):
    manifest = get_reader("mimic5x200")(write_mimic5x200(tmp_path), tmp_path / "out")
    assert [(r.patient_id, r.study_id) for r in manifest][1:3] == [("10000030", "50414261"), ("10000031", "50414262")]
    assert manifest.path_of(manifest[0]).parent.name == "s50414260"
    assert all(manifest.path_of(r).is_file() for r in manifest)
    table = tmp_path / "mimic-5x200-meta.csv"
    table.write_text(table.read_text().replace("1.0,0.0,0.0,0.0,There", "1.0,0.0,0.0,1.0,There", 1))
    with pytest.raises(DataError, match="row 1: expected exactly one of Atelectasis"):
        get_reader("mimic5x200")(tmp_path, tmp_path / "out")


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_every_benchmark_runs_and_asks_what_its_card_says(name, fakes, tmp_path, chest_graph):
    card = load_card(name)
    if name == "padchest":  # 187 classes take long; what is scored of each is the same
        card = replace(
            card, classes=dict(list(card.classes.items())[:60:12]) | {"pleural effusion": "pleural effusion"}, groups={}
        )
    run = run_benchmark(card, LAYOUTS[name](tmp_path), tmp_path / "out", fakes.Model(), chest_graph, options=QUICK)
    asked = {r.target for r in run.rows if (r.metric, r.setting) == ("auc", "PAIR")} - {"macro"}
    assert asked == set(run.classes.words) - set(run.unlabelled)
    assert sorted(label for labels in run.classes.words.values() for label in labels) == sorted(card.classes)
    assert run.coverage.found == run.coverage.listed == len(run.manifest)
    fluid = [r for r in run.rows if (r.metric, r.target, r.setting) == ("auc", "pleural effusion", "PAIR")]
    assert [r.value for r in fluid] == [1.0] * len(fluid)
    assert fluid or name in ("rsna", "siim")


def test_reports_are_found_by_their_class_and_images_by_their_report(fakes, tmp_path, chest_graph):
    card = load_card("mimic5x200")
    run = run_benchmark(card, write_mimic5x200(tmp_path), tmp_path / "out", fakes.Model(), chest_graph, options=QUICK)
    figures = {(r.metric, r.target, r.setting): r.value for r in run.more}
    # the two reports of a class look the same to the model, so each image finds both before those of the other class
    assert figures["report_precision_at_1", "macro", ""] == figures["report_precision_at_2", "macro", ""] == 1.0
    assert figures["report_precision_at_5", "macro", ""] == 0.5
    assert figures["accuracy", "macro", "POS"] == figures["accuracy", "macro", "PAIR"] == 1.0
    assert figures["recall_at_1", "report to image", ""] == 0.5  # either of two images of the class, by chance
    row = next(r for r in run.more if r.metric == "report_precision_at_1")
    assert "4 reports" in row.definition
    assert (row.n, row.n_groups) == (4, 2)
    assert "atelectasis" in " ".join(row.notes)


def test_published_zeros_are_counted_as_absent_and_the_class_is_asked_by_its_concept(fakes, tmp_path, chest_graph):
    card = load_card("chestxray14")
    run = run_benchmark(card, write_chestxray14(tmp_path), tmp_path / "out", fakes.Model(), chest_graph, options=QUICK)
    # the training patient is not scored; "Mass" names no effusion, so its two images count as absent for it
    fluid = next(r for r in run.rows if (r.metric, r.target, r.setting) == ("auc", "pleural effusion", "PAIR"))
    assert (fluid.value, fluid.n, fluid.n_positive, fluid.n_groups) == (1.0, 12, 4, 6)
    assert fluid.provenance.split == "test"
    assert run.classes.words["pleural effusion"] == ("Effusion",)
    assert run.remarks[0] == "not the whole benchmark: 12 of 12 listed were there; the whole benchmark has 25,596"


def test_missing_images_are_counted_and_none_at_all_is_an_error(fakes, tmp_path, chest_graph):
    root = write_chestxray14(tmp_path)
    for path in (root / "images_001").rglob("*.png"):
        path.unlink()
    run = run_benchmark(load_card("chestxray14"), root, tmp_path / "out", fakes.Model(), chest_graph, options=QUICK)
    assert (run.coverage.found, run.coverage.listed) == (6, 12)
    assert not run.coverage.whole
    for path in root.rglob("*.png"):
        path.unlink()
    with pytest.raises(
        DataError, match=r"ChestX-ray14: none of 14 listed images lies below .*; looked for images/0000"
    ):
        run_benchmark(load_card("chestxray14"), root, tmp_path / "out", fakes.Model(), chest_graph, options=QUICK)


def test_the_mean_of_the_five_is_given_beside_the_others(fakes, tmp_path, chest_graph):
    run = run_benchmark(
        load_card("chexpert"), write_chexpert(tmp_path), tmp_path / "o", fakes.Model(), chest_graph, options=QUICK
    )
    macro = {r.group: r for r in run.rows if (r.metric, r.target, r.setting) == ("auc", "macro", "POS")}
    assert set(macro) == {"five of the competition", "the others", "all"}
    assert macro["five of the competition"].value == 1.0  # cardiomegaly and effusion; the other three have no column
    assert "no label in the data, in no mean: lung lesion, pulmonary edema, consolidation" in " ".join(run.remarks)


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
    args = [
        "eval",
        "chexpert",
        "--data",
        write_chexpert(tmp_path / "d"),
        "--model",
        "ckpt",
        "--out",
        out,
        "--seed",
        3,
        "--graph",
        "none",
    ]
    assert run_cli(*args, "--resamples", 10, "--expect", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert [row.to_dict() for row in read_results(out / "results.jsonl")] == document["rows"]
    assert document["benchmark"] == json.loads((out / "benchmark.json").read_text())
    assert document["benchmark"]["found"] == 5
    carzero = document["benchmark"]["published"][0]
    assert (carzero["model"], carzero["published"], carzero["ours"][:5]) == ("CARZero", 0.923, "1.000")
    assert {row["seed"] for row in document["rows"]} == {3}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Dataset Research Use Agreement" in page
    assert "Published figures beside ours" in page
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
