"""kvlp kg: what it prints, as text and as JSON, and how it fails."""

import json
from pathlib import Path

import pytest

from kvlp.cli import main
from kvlp.knowledge.graph import Concept, KnowledgeGraph, Relation
from kvlp.knowledge.sources.csv_folder import write_folder


def _run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as done:
        main(["kg", *args])
    out, err = capsys.readouterr()
    return int(done.value.code or 0), out, err


def test_show_by_name_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _run(capsys, "show", "ETT")
    assert code == 0
    assert out.startswith("endotracheal tube  [endotracheal_tube]  device")
    code, out, _ = _run(capsys, "show", "pneumothorax", "--json")
    data = json.loads(out)
    assert data["id"] == "pneumothorax"
    assert {"head": "tension_pneumothorax", "type": "is_a", "tail": "pneumothorax", "source": "kvlp"} in data[
        "relations"
    ]


def test_unknown_concept_is_one_line_and_exit_1(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = _run(capsys, "show", "pneumothrax")
    assert (code, out) == (1, "")
    assert (
        err
        == "kvlp: error: graph 'chest' has no concept 'pneumothrax'; did you mean pneumothorax, hydropneumothorax?\n"
    )


def test_find_path_stats_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(_run(capsys, "find", "effusion", "--json", "-k", "3")[1])
    assert next(c["id"] for c in found) == "pleural_effusion"
    assert len(found) == 3
    path = json.loads(_run(capsys, "path", "rib fracture", "mediastinal shift", "--json")[1])
    assert path["path"] == ["rib_fracture", "pneumothorax", "mediastinal_shift"]
    assert [r["type"] for r in path["relations"]] == ["may_cause", "may_cause"]
    stats = json.loads(_run(capsys, "stats", "--json")[1])
    assert stats["concepts"] == len(KnowledgeGraph.load("chest"))
    assert stats["content_hash"] == KnowledgeGraph.load("chest").content_hash


def test_validate_chest_strictly(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(capsys, "validate", "chest", "--strict") == (0, "0 errors, 0 warnings\n", "")


def test_validate_lists_all_faults_and_exits_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    concepts = [Concept("a", "a", semantic_types=("finding",)), Concept("b", "b")]
    faulty = KnowledgeGraph(concepts, [Relation("a", "is_a", "b"), Relation("b", "is_a", "a")], name="bad")
    write_folder(faulty, tmp_path)
    code, out, _ = _run(capsys, "validate", str(tmp_path), "--json")
    assert code == 1
    assert [(p["kind"], p["severity"]) for p in json.loads(out)] == [("cycle", "error"), ("no_definition", "warning")]
    write_folder(KnowledgeGraph(concepts, [], name="thin"), tmp_path)
    assert _run(capsys, "validate", str(tmp_path))[0] == 0
    assert _run(capsys, "validate", str(tmp_path), "--strict")[0] == 1


def test_build_from_csv_and_open_again(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", exc_type=ImportError)
    write_folder(KnowledgeGraph([Concept("a", "alpha")], [], name="one"), tmp_path / "csv")
    code, out, _ = _run(capsys, "build", "--csv", str(tmp_path / "csv"), "--out", str(tmp_path / "g"), "--json")
    assert code == 0
    assert json.loads(out)["concepts"] == 1
    assert KnowledgeGraph.load(tmp_path / "g")["a"].name == "alpha"
    _run(capsys, "build", "--csv", str(tmp_path / "csv"), "--out", str(tmp_path / "g"), "--name", "two")
    assert KnowledgeGraph.load(tmp_path / "g").name == "two"


def test_build_wants_exactly_one_source(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert _run(capsys, "build", "--out", str(tmp_path / "g"))[0] == 1
    code, _, err = _run(capsys, "build", "--csv", "x", "--umls", "y", "--out", str(tmp_path / "g"))
    assert code == 1
    assert "exactly one source" in err
