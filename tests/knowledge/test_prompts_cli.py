"""kvlp prompts: sentences, attributes with provenance, JSON, bad input in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kvlp.cli import main
from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.knowledge.prompts import Prompts
from kvlp.typing import Assertion


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["prompts", *args])
    out = capsys.readouterr()
    return int(stop.value.code or 0), out.out, out.err


def test_sentences_of_the_default_style_are_those_of_the_library(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "effusion", "--json")
    said = json.loads(out)
    prompts = Prompts(KnowledgeGraph.load("chest"))
    assert status == 0
    assert said["concept"] == "pleural_effusion"
    assert said["style"] == "ensemble"
    for assertion in Assertion:
        assert said[assertion.value] == prompts.sentences("pleural_effusion", assertion)
    assert said["attributes"] == []
    assert said["provenance"] == {"template_hash": prompts.content_hash, "backends": []}


def test_attributes_come_with_where_they_are_from(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    args = ("pneumothorax", "--style", "location", "--assertion", "absent", "--no-synonyms", "--cache", str(tmp_path))
    status, out, _ = run(capsys, *args, "--json")
    said = json.loads(out)
    assert status == 0
    assert "present" not in said
    assert said["absent"][:2] == ["There is no pneumothorax.", "There is no pneumothorax in the pleural space."]
    assert {row["kind"] for row in said["attributes"]} == {"location"}
    assert said["attributes"][0]["source"] == "located_in pleural_space"
    assert [p["backend"] for p in said["provenance"]["backends"]] == ["graph", "definition"]
    assert said["provenance"]["backends"][0]["graph_hash"] == KnowledgeGraph.load("chest").content_hash
    assert len(list(tmp_path.iterdir())) == 2
    assert run(capsys, *args, "--json")[1] == out
    _, shown, _ = run(capsys, *args, "--limit", "2")
    assert shown.startswith(
        "absent:\n  There is no pneumothorax.\n  There is no pneumothorax in the pleural space.\nattributes:\n"
    )
    assert "  location: in the pleural space  (1; located_in pleural_space)\n" in shown


def test_styles_are_listed_and_free_words_taken(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "x", "--styles", "--graph", "none")[1].split()[:2] == ["ensemble", "plain"]
    status, out, _ = run(capsys, "left basal opacity", "--graph", "none", "--style", "words")
    assert (status, out.splitlines()[1]) == (0, "  left basal opacity")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("effusion", "--style", "visul"), "style 'visul' is unknown; did you mean 'visual'?"),
        (("effusion", "--assertion", "maybe"), "--assertion: expected present, absent, uncertain, got 'maybe'"),
        (("effusion", "--backend", "masked"), "backend 'masked' needs model=FOLDER"),
        (("effusion", "--backend", "mask"), "backend 'mask' is unknown; did you mean 'masked'?"),
        (("effusion", "--templates", "none.yaml"), "none.yaml: expected a YAML file of templates"),
        (("effusion", "--graph", "none", "--backend", "masked", "--model", "none", "--style", "color"),
         "none: expected the local folder of a masked language model"),
        (("", "--graph", "none"), "at least one word"),
    ],
)  # fmt: skip
def test_bad_input_gets_one_line(capsys: pytest.CaptureFixture[str], args: tuple[str, ...], message: str) -> None:
    status, out, err = run(capsys, *args)
    assert status == 1
    assert out == ""
    assert message in err
    assert err.count("\n") == 1
