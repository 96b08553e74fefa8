"""kvlp link: JSON, colours, bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kvlp.cli import main
from kvlp.cli.link import coloured
from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.knowledge.linking import EntityLinker

KEYS = {
    *("concept", "name", "surface", "start", "end", "assertion", "trigger", "trigger_start", "trigger_end"),
    *("section", "score", "doubt", "cui", "side", "location", "severity", "change", "status", "cues"),
}


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["link", *args])
    out = capsys.readouterr()
    return int(stop.value.code or 0), out.out, out.err


def test_json_list(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "Small left effusion. No pneumothorax.", "--json", "--types", "finding")
    rows = json.loads(out)
    assert status == 0
    assert [(r["concept"], r["assertion"]) for r in rows] == [
        ("pleural_effusion", "present"),
        ("pneumothorax", "absent"),
    ]
    assert all(set(r) == KEYS for r in rows)
    assert rows[1]["trigger"] == "No"
    assert (rows[1]["trigger_start"], rows[1]["trigger_end"]) == (21, 23)


def test_nothing_found_is_an_empty_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(run(capsys, "Nothing of note here.", "--json", "--types", "finding")[1]) == []
    assert "no concept" in run(capsys, "qwerty")[1]


def test_text_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "No pneumothorax.")
    assert status == 0
    assert out.splitlines()[0] == "No pneumothorax."
    assert "absent" in out


def test_brackets_in_a_report_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "Edema [bold] seen [/x].")
    assert status == 0
    assert "Edema [bold] seen [/x]." in out


def test_colours_follow_the_assertion() -> None:
    report = "No pneumothorax. Possible pneumonia."
    text = coloured(report, EntityLinker(KnowledgeGraph.load("chest"), types=["finding", "disease"])(report))
    styles = {(report[s.start : s.end], str(s.style)) for s in text.spans}
    assert {("pneumothorax", "green"), ("No", "underline"), ("pneumonia", "yellow")} <= styles


def test_file_offsets_hold_for_windows_line_ends(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "report.txt"
    raw = "FINDINGS:\r\nNo effusion.\r\nIMPRESSION:\r\nÖdem? No edema.\r\n"
    file.write_bytes(raw.encode())
    rows = json.loads(run(capsys, "--file", str(file), "--json")[1])
    assert [raw[r["start"] : r["end"]] for r in rows] == [r["surface"] for r in rows] == ["effusion", "edema"]
    assert [r["section"] for r in rows] == ["findings", "impression"]


def test_bad_files_get_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    latin = tmp_path / "latin.txt"
    latin.write_bytes("\xd6dem".encode("latin-1"))
    for path, words in (
        (latin, "expected UTF-8 text"),
        (tmp_path, "directory"),
        (tmp_path / "none.txt", "No such file"),
    ):
        status, out, err = run(capsys, "--file", str(path))
        assert (status, out, err.count("\n")) == (1, "", 1), path
        assert words in err


def test_unknown_graph_gets_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "x", "--graph", "chst")
    assert status == 1
    assert err.count("\n") == 1
    assert "chest" in err


def test_text_and_file_together_are_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys)[0] == 2
    assert run(capsys, "x", "--file", "y")[0] == 2


def test_a_large_text_is_read(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "large.txt"
    file.write_text("No effusion. " * 1500, encoding="utf-8")
    assert len(json.loads(run(capsys, "--file", str(file), "--json")[1])) == 1500


def test_attributes_are_shown_and_go_to_json(capsys: pytest.CaptureFixture[str]) -> None:
    text = "Unchanged small effusion in the left base. History of pneumonia."
    status, out, _ = run(capsys, text, "--types", "finding,disease")
    assert status == 0
    assert {"unchanged", "historical"} <= set(out.split("section")[1].split())
    effusion, pneumonia = json.loads(run(capsys, text, "--types", "finding,disease", "--json")[1])
    assert {k: effusion[k] for k in ("side", "location", "severity", "change", "status")} == {
        "side": "left", "location": ["lung_base"], "severity": "small", "change": "unchanged", "status": "current",
    }  # fmt: skip
    words = {name: text[start:end] for name, start, end in effusion["cues"]}
    assert words == {"change": "Unchanged", "severity": "small", "location": "left base"}
    assert pneumonia["status"] == "historical"


def test_another_language_is_refused_by_name_unless_told_to(capsys: pytest.CaptureFixture[str]) -> None:
    text = "Kein Nachweis einer Pneumonie, kleiner Pleuraerguss links, ein Pneumothorax ist nicht zu sehen."
    status, out, err = run(capsys, text)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert "this looks like German" in err
    rows = json.loads(run(capsys, text, "--any-language", "--json")[1])
    assert [r["concept"] for r in rows] == ["pneumothorax"]
