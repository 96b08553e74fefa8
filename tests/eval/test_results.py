"""Result rows: round trip, NaN as null, atomic files, named errors."""

import json
import math

import pytest

from kvlp.errors import DataError
from kvlp.eval.intervals import bootstrap
from kvlp.eval.results import Provenance, Result, hash_of, read_results, versions, write_results


def row(**more):
    interval = bootstrap("auc", [1] * 12 + [0] * 12, range(24), [f"p{i // 2}" for i in range(24)], n=50, seed=3)
    provenance = Provenance("test", "aa", "bb", "cc", "dd", 3, versions())
    return Result.of(
        interval,
        metric="auc",
        target="pneumothorax",
        definition="ROC area",
        setting="POS",
        provenance=provenance,
        **more,
    )


def test_rows_come_back_as_they_went(tmp_path):
    rows = [row(), row(group="seen", task="zero-shot")]
    path = write_results(tmp_path / "deep" / "results.jsonl", rows)
    back = read_results(path)
    assert [r.to_dict() for r in back] == [r.to_dict() for r in rows]
    assert back[0].provenance == rows[0].provenance
    first = json.loads(path.read_text().splitlines()[0])
    assert first["n"] == 24
    assert first["n_groups"] == 12
    assert first["seed"] == 3
    assert first["versions"]["kvlp"]
    assert first["method"] == "percentile bootstrap of patients, 50 resamples"
    assert {"value", "low", "high", "definition", "split_hash", "model_hash", "graph_hash", "prompt_hash"} <= set(first)


def test_undefined_is_null_in_the_file_and_nan_in_python(tmp_path):
    undefined = Result.of(bootstrap("auc", [1, 1], [1, 2], n=5), metric="auc", target="bulla", definition="ROC area")
    path = write_results(tmp_path / "r.jsonl", [undefined])
    assert json.loads(path.read_text())["value"] is None
    assert math.isnan(read_results(path)[0].value)
    assert "undefined" in read_results(path)[0].notes[0]


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = write_results(tmp_path / "r.jsonl", [row()])
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_results(path, [row(), row()])
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["r.jsonl"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 1"),
        ("[1]", "expected an object, got list"),
        ('{"metric": "auc"}', "line 1"),
        ('{"colour": "red"}', "unknown key 'colour'"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, text, message):
    path = tmp_path / "r.jsonl"
    path.write_text(text + "\n")
    with pytest.raises(DataError, match=message):
        read_results(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="not UTF-8"):
        read_results(path)


def test_hashes_depend_on_content_alone():
    assert hash_of({"a": [1, 2], "b": "x"}) == hash_of({"b": "x", "a": [1, 2]})
    assert hash_of(["a", "b"]) != hash_of(["b", "a"])
    assert len(hash_of([])) == 64
