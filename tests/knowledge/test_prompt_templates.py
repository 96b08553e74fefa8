"""Files of templates and of attribute rules: the user's own are read and used, bad ones get one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvlp.errors import ConfigError, KnowledgeError
from kvlp.knowledge.graph import Concept, KnowledgeGraph, Relation
from kvlp.knowledge.prompts import Prompts
from kvlp.knowledge.prompts.rules import AttributeRules
from kvlp.typing import Assertion

P, A, U = Assertion.PRESENT, Assertion.ABSENT, Assertion.UNCERTAIN
STYLE = "styles:\n  mine:\n    present: [{}]\n    absent: ['no {{x}}']\n    uncertain: ['{{x}}?']\n"


def graph() -> KnowledgeGraph:
    tumor = Concept("tumor", "enlarged mass", definition="A growth.", semantic_types=("finding",))
    lung = Concept("lung", "lung base", semantic_types=("anatomy",))
    return KnowledgeGraph([tumor, lung], [Relation("tumor", "located_in", "lung")], name="small")


def write(folder: Path, content: str | bytes) -> Path:
    file = folder / "own.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def test_an_own_style_is_said_beside_the_bundled_ones(tmp_path: Path) -> None:
    mine = STYLE.format("'{A} {is} here {location}', '{X}: {a:severity}'")
    prompts = Prompts(graph(), templates=write(tmp_path, mine))
    assert prompts.sentences("tumor", P, style="mine") == [
        "There is an enlarged mass.",
        "An enlarged mass is here at the lung base",
        "Enlarged mass: a small enlarged mass",
        "Enlarged mass: a large enlarged mass",
    ]
    assert prompts.sentences("tumor", U, style="mine") == ["There may be an enlarged mass.", "enlarged mass?"]
    assert prompts.sentences("tumor", style="plain") == Prompts(graph()).sentences("tumor", style="plain")


def test_own_templates_leave_the_rest_as_it_is(tmp_path: Path) -> None:
    file = write(tmp_path, "templates: {present: ['{A}!'], absent: ['{x}: none'], uncertain: ['{x}?']}")
    prompts = Prompts(templates=file)
    assert prompts.sentences("opacity", P) == ["An opacity!"]
    assert prompts.sentences("No Finding", P)[0] == "No acute cardiopulmonary abnormality."
    assert prompts.sentences("opacity", A, style="words") == ["no opacity"]
    assert prompts.content_hash != Prompts().content_hash


def test_a_group_says_its_members_in_order(tmp_path: Path) -> None:
    file = write(tmp_path, "styles: {both: [severity, location]}")
    said = Prompts(graph(), templates=file).sentences("tumor", style="both")
    assert said == [
        "There is an enlarged mass.",
        "There is a small enlarged mass.",
        "There is a large enlarged mass.",
        "There is an enlarged mass at the lung base.",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe", "expected UTF-8 text, got another encoding"),
        ("a: [", r"no valid YAML \(line 1\)"),
        ("- a\n", "expected keys with values below them, got list"),
        ("template: {}", "key 'template' is unknown; did you mean 'templates'"),
        ("templates: {}", "templates: no sentence for present, absent, uncertain"),
        ("templates: {present: ['{x}']}", "templates: no sentence for absent, uncertain"),
        ("templates: {present: ['{x}'], abscent: ['{x}']}", "assertion 'abscent' is unknown; did you mean 'absent'"),
        ("templates: {present: '{x}', absent: ['{x}'], uncertain: ['{x}']}", "present: expected a list, got str"),
        (STYLE.format("no"), "style 'mine': present: entry 1: expected text, got bool; quote no"),
        (STYLE.format("''"), "style 'mine': present: entry 1"),
        (STYLE.format("'{x', 'b'"), "style 'mine': present, sentence 1: .*write {{ and }}"),
        (STYLE.format("'{x}', '{locaton}'"), "sentence 2: field 'locaton' is unknown; did you mean 'location'"),
        (STYLE.format("'{}'"), "present, sentence 1: field '' is unknown"),
        (STYLE.format("'{x.y}'"), "field 'x.y' is unknown"),
        (STYLE.format("'{a:severty}'"), "{a:severty} is not understood; behind the colon: did you mean 'severity'"),
        (STYLE.format("'{a:location}'"), "{a:location} is not understood"),
        (STYLE.format("'{a!r}'"), "not understood"),
        (STYLE.format("'{sign:a}'"), "{sign:a} is not understood; behind the colon: expected x, is"),
        (STYLE.format("'{side:x}'"), "{side:x} is not understood; write {side}"),
        ("styles: {plain: [location]}", "style 'plain': this name is taken"),
        ("styles: {mine: [locaton]}", "style 'mine': style 'locaton' is unknown; did you mean 'location'"),
        ("styles: {mine: [attributes]}", "style 'mine': style 'attributes' is unknown"),
        ("styles: [a]", "styles: expected keys with values below them, got list"),
        ("templates: {present: ['{side}'], absent: ['{x}'], uncertain: ['{x}']}", "attributes belong into a style"),
        ("special: {}", "special: expected a list, got dict"),
        ("special: [{names: [x], present: [a]}]", "special, entry 1: no sentence for absent, uncertain"),
        ("number: {mass_head: [air]}", "number: list 'mass_head' is unknown; did you mean 'mass_heads'"),
        ("number: {mass_heads: [no]}", "number: mass_heads: entry 1: expected text, got bool"),
    ],
)  # fmt: skip
def test_bad_template_files_get_one_clear_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(KnowledgeError, match=message) as told:
        Prompts(templates=write(tmp_path, content))
    assert "\n" not in str(told.value)
    assert str(tmp_path) in str(told.value)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(KnowledgeError, match="expected a YAML file of templates"):
            Prompts(templates=path)


def test_unknown_styles_are_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="style 'atributes' is unknown; did you mean 'attributes'"):
        Prompts().sentences("opacity", style="atributes")
    with pytest.raises(ConfigError, match="style 'words' says no attributes; use one of location, "):
        Prompts().attribute_sentences("opacity", style="words")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff", "expected UTF-8"),
        ("graf: {}", "key 'graf' is unknown; did you mean 'graph'"),
        ("graph: []", "graph: expected keys"),
        ("graph: {at: base}", "graph: at: expected a list, got str"),
        ("graph: {severity: [{heads: [mass]}]}", "severity, entry 1: words: expected a list, got NoneType"),
        ("definition: {negation: [none]}", "definition: key 'negation' is unknown; did you mean 'negations'"),
        ("definition: {negations: [no]}", "negations: entry 1: expected text, got bool"),
        ("definition: {color: {white: pale}}", "definition: color: white: expected a list, got str"),
        ("masked: {colour: {question: '{x} {mask}'}}", "attribute 'colour' is unknown; did you mean 'color'"),
        ("masked: {color: {question: 'Of what color is {x}?'}}", "expected {x}, and {mask} once"),
        ("masked: {color: {question: '{x} {mask} {mask}'}}", "expected {x}, and {mask} once"),
        ("masked: {color: {question: '{x} {masc}'}}", "field 'masc' is unknown; did you mean 'mask'"),
        ("masked: {color: {question: '{x} {mask'}}", "masked: color: question: "),
        ("masked: {color: {question: '{x} {mask}', candidates: [1]}}", "candidates: entry 1: expected text, got int"),
        ("masked: {color: {}}", "masked: color: expected a question"),
    ],
)  # fmt: skip
def test_bad_rule_files_get_one_clear_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(KnowledgeError, match=message) as told:
        AttributeRules(write(tmp_path, content))
    assert "\n" not in str(told.value)


def test_a_rule_file_changes_only_what_it_names(tmp_path: Path) -> None:
    own = AttributeRules(write(tmp_path, "graph: {sides: [left]}"))
    bundled = AttributeRules()
    assert own.graph == {**bundled.graph, "sides": ["left"]}
    assert own.definition == bundled.definition
    assert own.content_hash != bundled.content_hash == AttributeRules().content_hash
