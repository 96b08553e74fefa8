"""The examples of docs/prompts.md run, and say what stands behind them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.knowledge.prompts import Prompts


def blocks(repository: Path, language: str) -> list[str]:
    text = (repository / "docs" / "prompts.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_examples_run_and_say_what_stands_behind_them(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    compared = 0
    for line in "".join(blocks(repository, "python")).splitlines():
        code, _, comment = line.partition("  #")
        if re.match(r"\s*[\"(\[]", comment):
            assert eval(code, names) == ast.literal_eval(comment.strip()), code
            compared += 1
        else:
            exec(code, names)
    assert compared == 7


def test_the_example_of_a_file_is_sound(repository: Path, tmp_path: Path) -> None:
    (block,) = blocks(repository, "yaml")
    (tmp_path / "own.yaml").write_text(block, encoding="utf-8")
    prompts = Prompts(KnowledgeGraph.load("chest"), templates=tmp_path / "own.yaml")
    assert prompts.sentences("pneumothorax", style="short", synonyms=False)[1:3] == [
        "A pneumothorax in the pleural space.",
        "A small pneumothorax.",
    ]


def test_every_style_is_described(repository: Path) -> None:
    text = (repository / "docs" / "prompts.md").read_text(encoding="utf-8")
    assert not [name for name in Prompts().styles if f"`{name}`" not in text]
