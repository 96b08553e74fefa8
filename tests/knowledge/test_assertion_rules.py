"""Every rule of the data file: it is well formed, and its own example shows it at work."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvlp.errors import KnowledgeError
from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.knowledge.linking import EntityLinker, read_rules
from kvlp.knowledge.linking.assertion import Rule
from kvlp.knowledge.linking.dictionary import expand

RULES = read_rules()
ANATOMY = RULES.unasserted_types


@pytest.fixture(scope="module")
def linker() -> EntityLinker:
    return EntityLinker(KnowledgeGraph.load("chest"), types=["finding", "disease"])


@pytest.mark.parametrize("rule", RULES.rules, ids=lambda r: f"{r.name}-{r.looks or r.says}")
def test_the_example_shows_the_rule(linker: EntityLinker, rule: Rule) -> None:
    mentions = linker(rule.example)
    assert mentions, rule.example
    said = {m.assertion.value for m in mentions}
    if rule.says == "nothing":
        assert said == {"present"}
        return
    caused = [m for m in mentions if m.assertion.value == rule.says]
    assert caused, rule.example
    words = {p: w for p, w in RULES.words.items() if rule in (w.forward, w.backward, w.around, w.sentence)}
    assert {" ".join(str(m.trigger).lower().replace("/", " ").split()) for m in caused} <= set(words)


def test_rules_have_names_of_their_own() -> None:
    names = [(r.name, r.looks) for r in RULES.rules]
    assert len(set(names)) == len(names) >= 20


def test_alternatives_are_written_out() -> None:
    assert list(expand(["no (new|) (mass|nodule)"])) == ["no new mass", "no new nodule", "no mass", "no nodule"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff", "expected UTF-8"),
        (b"rules: [", "no valid YAML"),
        (b"rules: []", "expected the parts"),
    ],
)
def test_bad_rule_files_get_one_clear_error(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "rules.yaml"
    file.write_bytes(content)
    with pytest.raises(KnowledgeError, match=message):
        read_rules(file)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("{name: x, says: maybe, looks: forward, phrases: [y]}", "rule 'x' says 'maybe'; expected absent, uncertain"),
        ("{name: x, says: absent, looks: up, phrases: [y]}", "rule 'x' looks 'up'; expected one of forward, backward"),
        (
            "{name: x, says: uncertain, looks: forward, phrases: [y]}",
            "rule 'x' has the doubt ''; .* need one of unlikely",
        ),
        ("{name: x, says: absent, doubt: possible, looks: forward, phrases: [y]}", "others have none"),
    ],
)
def test_a_rule_that_says_something_unknown_is_named(tmp_path: Path, rule: str, message: str) -> None:
    file = tmp_path / "rules.yaml"
    rest = "ends: []\nseparators: {}\nverbs: []\nexistential: []\naffirming: []\nsizes: []\nunasserted_types: []\n"
    file.write_text(f"rules: [{rule}]\n{rest}", encoding="utf-8")
    with pytest.raises(KnowledgeError, match=message):
        read_rules(file)
