"""Leaks that are planted are found whole, and what only looks like one is not."""

import pytest

from kvlp.datasets.leaks import find_leaks
from kvlp.datasets.manifest import Manifest, Record
from kvlp.errors import ConfigError, DataError

LONG = "the lungs are clear and the heart is of normal size and there is no effusion on either side"


def kinds(report):
    return {kind: count for kind, count in report.counts.items() if count}


def rows(report, kind):
    return [dict(leak.rows) for leak in report.rows if leak.kind == kind]


def test_patients_and_studies_on_two_sides():
    manifest = Manifest(
        [
            Record("1", patient_id="a", study_id="s", split="train"),
            Record("2", patient_id="a", study_id="t", split="test"),
            Record("3", patient_id="a", study_id="s", split="test"),
            Record("4", patient_id="b", study_id="s", split="test"),
            Record("5", patient_id="", study_id="u", split="dev"),
            Record("6", patient_id="", study_id="u", split="train"),
            Record("7", patient_id="", split="train"),
        ]
    )
    report = find_leaks(manifest)
    assert rows(report, "patient") == [{"train": (1,), "test": (2, 3)}], "b and the unnamed are on one side"
    assert rows(report, "study") == [{"train": (1,), "test": (3,)}, {"train": (6,), "dev": (5,)}], "s of b is another"
    assert report.sides == {"train": 3, "test": 3, "dev": 1}
    assert report.affected("test") == (2, 3)
    assert not report.ok


def test_reports_are_compared_without_case_and_spacing():
    texts = {1: LONG, 2: LONG.upper().replace(" ", "  \n"), 3: LONG.replace("no effusion", "an effusion"), 4: "", 5: ""}
    manifest = Manifest(
        Record(str(n), text=text, patient_id=str(n), split="test" if n in (2, 5) else "train")
        for n, text in texts.items()
    )
    report = find_leaks(manifest)
    assert rows(report, "report") == [{"train": (1,), "test": (2,)}]
    assert kinds(report) == {"report": 1}, "empty texts are no texts"


@pytest.mark.parametrize(
    "text, patients, leak",
    [
        (LONG, 2, True),
        (LONG, 3, False),
        ("no acute findings", 2, False),
        (" ".join([LONG] * 4), 5, True),
    ],
)
def test_boilerplate_is_told_apart(text, patients, leak):
    manifest = Manifest(
        Record(str(n), text=text, patient_id=str(n), split="train" if n else "test") for n in range(patients)
    )
    report = find_leaks(manifest)
    assert (len(report.rows), len(report.boilerplate)) == ((1, 0) if leak else (0, 1))
    assert report.ok is not leak


def test_what_cannot_be_looked_at_is_not_zero():
    report = find_leaks(Manifest([Record("1", text=LONG, split="a"), Record("2", text=LONG + " too", split="b")]))
    assert report.counts == {"report": 0}
    assert "no row of a or of b has a value in the column patient_id" in report.unknown["patient"]
    assert set(report.unknown) == {"patient", "study", "pixels", "near_duplicate"}
    assert report.ok


def test_one_split_alone_and_unknown_kinds_are_refused():
    one = Manifest([Record("1", patient_id="a", split="train")])
    with pytest.raises(DataError, match=r"all 1 rows are of one split \(train\)"):
        find_leaks(one)
    with pytest.raises(DataError, match="there is no row"):
        find_leaks(Manifest([]))
    with pytest.raises(ConfigError, match="skip 'pixel': expected one of patient, study"):
        find_leaks(one, one, skip=["pixel"])
