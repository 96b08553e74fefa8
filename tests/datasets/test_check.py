"""Planted faults are each named with their row and kind; sound rows are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kvlp.datasets.check import check_manifest
from kvlp.datasets.manifest import Manifest, Record

Y, X = np.mgrid[:64, :64] / 64


def radiograph(seed: int) -> np.ndarray:
    """A chest in the roughest way, a little different for each seed."""
    lungs = sum(np.exp(-(((X - c) / 0.13) ** 2) - ((Y - 0.45) / 0.27) ** 2) for c in (0.28, 0.72))
    noise = np.random.default_rng(seed).normal(0, 2, (64, 64))
    return np.clip(200 - 150 * lungs + noise, 0, 255).astype(np.uint8)


@pytest.fixture
def sound(tmp_path: Path) -> Manifest:
    records = []
    for number in range(8):
        Image.fromarray(radiograph(number)).save(tmp_path / f"{number}.png")
        patient, split = f"p{number // 2}", "train" if number < 4 else "dev"
        records.append(Record(f"{number}", f"{number}.png", f"Report {number}.", patient_id=patient, split=split))
    return Manifest(records, tmp_path)


def edited(manifest: Manifest, row: int, **changes: object) -> Manifest:
    records = list(manifest)
    records[row - 1] = replace(records[row - 1], **changes)  # type: ignore[arg-type]
    return Manifest(records, manifest.root)


def found(manifest: Manifest, **options: object) -> list[tuple[int, str, str]]:
    report = check_manifest(manifest, **options)  # type: ignore[arg-type]
    return [(p.row, p.kind, p.severity) for p in report.problems]


def test_a_sound_manifest_has_no_problems(sound: Manifest) -> None:
    report = check_manifest(sound)
    assert report.problems == []
    assert report.ok
    assert report.to_dict()["rows"] == 8


def test_each_planted_fault_is_named(sound: Manifest) -> None:
    root = sound.root
    (root / "cut.png").write_bytes((root / "1.png").read_bytes()[:-40])
    Image.fromarray(radiograph(1)).save(root / "copy.png", compress_level=1)
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(root / "black.png")
    cases = [
        (edited(sound, 3, image="none.png"), [(3, "missing_image", "error")]),
        (edited(sound, 3, image=""), [(3, "missing_image", "error")]),
        (edited(sound, 3, image="cut.png"), [(3, "corrupt_image", "error")]),
        (edited(sound, 3, image="."), [(3, "corrupt_image", "error")]),
        (edited(sound, 3, image="x\0y"), [(3, "missing_image", "error")]),
        (edited(sound, 3, image="black.png"), [(3, "not_radiograph", "warning")]),
        (edited(sound, 3, image="copy.png"), [(3, "duplicate_image", "error")]),
        (edited(sound, 3, id="0"), [(3, "duplicate_id", "error")]),
        (edited(sound, 3, text=" "), [(3, "empty_text", "error")]),
        (edited(sound, 3, labels={"Edema": 2.0}), [(3, "label_range", "error")]),
        (edited(sound, 4, split="dev"), [(4, "split_leak", "error")]),
        (edited(sound, 4, patient_id="p2"), [(5, "split_leak", "error"), (6, "split_leak", "error")]),
        (Manifest([*sound, replace(sound[2], id="9")], root),
         [(9, "duplicate_image", "error"), (9, "duplicate_row", "error")]),
    ]  # fmt: skip
    for manifest, expected in cases:
        assert found(manifest) == expected


def test_messages_name_the_other_row_and_no_patient(sound: Manifest) -> None:
    manifest = edited(edited(sound, 4, split="dev"), 3, text="")
    messages = [p.message for p in check_manifest(manifest).problems]
    assert "its patient is in split 'dev' and, in row 3, in 'train'" in messages
    assert not any("p1" in message or "Report" in message for message in messages)


def test_a_copy_in_another_split_says_so(sound: Manifest) -> None:
    Image.fromarray(radiograph(1)).save(sound.root / "copy.png")
    problem = check_manifest(edited(sound, 7, image="copy.png")).problems[0]
    assert problem.message == "the same pixels as row 2 in another split ('train', 'dev')"


def test_studies_leak_where_no_patient_is_given(sound: Manifest) -> None:
    bare = Manifest([replace(r, patient_id="", study_id="s1") for r in sound], sound.root)
    assert {(row, kind) for row, kind, _ in found(bare)} == {(row, "split_leak") for row in range(5, 9)}


def test_empty_text_counts_by_what_the_manifest_is(sound: Manifest) -> None:
    labelled = Manifest([replace(r, text="", labels={"Edema": 1.0}) for r in sound], sound.root)
    assert found(labelled) == []
    assert found(edited(labelled, 2, labels={})) == [(2, "empty_text", "warning")]


def test_allowed_kinds_become_warnings(sound: Manifest) -> None:
    report = check_manifest(edited(sound, 3, image="none.png"), allow=["missing_image"])
    assert report.ok
    assert report.problems[0].severity == "warning"


def test_faulty_rows_of_the_file_are_listed_beside_the_others(sound: Manifest) -> None:
    path = sound.root / "m.csv"
    path.write_text("id,image,text,labels\n0,0.png,A,Edema=9\n1,1.png,B\n2,2.png,C,Edema=?\n")
    report = check_manifest(Manifest.load(path, strict=False))
    assert [(p.row, p.kind) for p in report.problems] == [(1, "label_range"), (2, "ragged_row"), (3, "bad_label")]


def test_without_images_only_presence_is_checked(sound: Manifest) -> None:
    (sound.root / "1.png").write_bytes(b"junk")
    (sound.root / "2.png").unlink()
    assert found(sound, images=False) == [(3, "missing_image", "error")]


def test_texts_alone_are_a_manifest_too() -> None:
    assert found(Manifest([Record("1", text="Clear.")])) == [(1, "no_images", "warning")]
