"""`kvlp data leaks` from the outside."""

import json

import numpy as np
import pytest
from PIL import Image

from kvlp.cli import main


def run(capsys, *args):
    with pytest.raises(SystemExit) as caught:
        main([str(a) for a in args])
    captured = capsys.readouterr()
    return int(caught.value.code or 0), captured.out, captured.err


@pytest.fixture
def folder(tmp_path):
    """Three films in train and two in test; the second of test is the first of train in another file."""
    rng = np.random.default_rng(0)
    rows = ["id,image,text,patient_id,split"]
    for number in range(5):
        grey = np.kron(rng.integers(0, 255, (16, 16)), np.ones((5, 5))).astype(np.uint8)
        Image.fromarray(grey).save(tmp_path / f"{number}.png")
        split = "train" if number < 3 else "test"
        rows.append(
            f"{number},{number}.png,A long enough text that stands in row {number} alone.,private-{number},{split}"
        )
    with Image.open(tmp_path / "0.png") as first:
        first.save(tmp_path / "4.png", compress_level=0)
    (tmp_path / "m.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "train.csv").write_text("\n".join(rows[:4]) + "\n")
    (tmp_path / "test.csv").write_text("\n".join([rows[0], *rows[4:]]) + "\n")
    return tmp_path


def test_a_leak_is_named_by_its_rows(folder, capsys):
    code, out, err = run(capsys, "data", "leaks", folder / "m.csv")
    assert code == 1
    assert out.splitlines() == [
        "pixels: train row 1; test row 5",
        "study: not known: no row of train or of test has a value in the column study_id",
        "train 3, test 2 rows: 0 patient, 1 pixels, 0 near_duplicate, 0 report leaks",
    ]
    assert "private" not in out + err
    assert "long enough" not in out + err


def test_json_names_images_and_what_was_not_looked_at(folder, capsys):
    code, out, _ = run(capsys, "data", "leaks", folder / "test.csv", "--against", folder / "train.csv", "--json")
    document = json.loads(out)
    assert code == 1
    assert document["rows"] == [
        {
            "kind": "pixels",
            "rows": {"manifest": [2], "against": [1]},
            "images": {"manifest": ["4.png"], "against": ["0.png"]},
        }
    ]
    assert (document["counts"]["pixels"], document["affected"]) == (1, {"manifest": 1, "against": 1})
    assert document["against"] == str(folder / "train.csv")
    assert set(document["unknown"]) == {"study"}
    assert "private" not in out


def test_without_images_nothing_is_found_and_that_is_said(folder, capsys):
    code, out, _ = run(capsys, "data", "leaks", folder / "m.csv", "--no-images")
    assert code == 0
    assert "pixels: not looked for" in out
    assert out.endswith("train 3, test 2 rows: 0 patient, 0 report leaks\n")


def test_bad_input_is_one_line(folder, capsys):
    code, _, err = run(capsys, "data", "leaks", folder / "train.csv")
    assert (code, len(err.strip().splitlines())) == (1, 1)
    assert "all 3 rows are of one split (train); name another manifest" in err
    code, _, err = run(capsys, "data", "leaks", folder / "m.csv", "--skip", "pixel")
    assert (code, "skip 'pixel': expected one of patient" in err) == (1, True)
