"""Attributes of mentions: the table of our own sentences, each rule's example, properties, bad files of rules.

Run with `-s` to see the accuracy of each attribute.
"""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kvlp.errors import KnowledgeError
from kvlp.knowledge.graph import Concept, KnowledgeGraph, Relation
from kvlp.knowledge.linking import EntityLinker, Mention
from kvlp.knowledge.linking.attribute_words import (
    AttributeRule,
    attribute_words,
    read_attribute_rules,
    unsided,
)
from kvlp.knowledge.linking.dictionary import expand
from kvlp.typing import Assertion

Expected = dict[str, Any]
TABLE: dict[str, list[tuple[str, dict[str, Expected | list[Expected]]]]] = yaml.safe_load(
    Path(__file__).with_name("attribute_sentences.yaml").read_text(encoding="utf-8")
)
RULES = read_attribute_rules()
NOTHING_SAID: Expected = {"side": "", "severity": "", "change": "", "status": "current"}
REQUIRED_SHARE = 0.95


@pytest.fixture(scope="module")
def graph() -> KnowledgeGraph:
    return KnowledgeGraph.load("chest")


@pytest.fixture(scope="module")
def linker(graph: KnowledgeGraph) -> EntityLinker:
    return EntityLinker(graph, types=["finding", "disease", "device", "procedure", "normal", "symptom"], spelling=False)


def value_of(mention: Mention | None, attribute: str) -> Any:
    value = getattr(mention, attribute, None)
    return list(value) if isinstance(value, tuple) else value


def compared(linker: EntityLinker, sentence: str, expected: dict[str, Any]) -> list[tuple[str, str, Any, Any]]:
    """(concept, attribute, wanted, got) for every attribute that a row of the table speaks of."""
    mentions, rows = linker(sentence), []
    for concept, wanted in expected.items():
        all_wanted = wanted if isinstance(wanted, list) else [wanted]
        got: list[Mention | None] = [m for m in mentions if m.concept == concept]
        got = got if len(got) == len(all_wanted) else [None] * len(all_wanted)
        for want, mention in zip(all_wanted, got, strict=True):
            rows += [(concept, a, v, value_of(mention, a)) for a, v in {**NOTHING_SAID, **want}.items()]
    return rows


def test_table_is_large_enough_and_no_sentence_stands_twice() -> None:
    sentences = [sentence for rows in TABLE.values() for sentence, _ in rows]
    assert len(set(sentences)) == len(sentences) >= 150


def test_required_share_of_each_attribute_is_read_right(linker: EntityLinker) -> None:
    right: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    misread = []
    for phenomenon, rows in TABLE.items():
        for sentence, expected in rows:
            for concept, attribute, want, got in compared(linker, sentence, expected):
                asked[attribute] += 1
                right[attribute] += want == got
                if want != got:
                    misread.append(f"{phenomenon}: {sentence!r}: {concept}.{attribute}: expected {want!r}, got {got!r}")
    print("\n" + "\n".join(f"  {a:<9} {right[a]} of {n} right ({right[a] / n:.3f})" for a, n in asked.items()))
    assert all(right[a] >= REQUIRED_SHARE * n for a, n in asked.items()), "\n".join(misread)


@pytest.mark.parametrize("phenomenon", list(TABLE))
def test_no_phenomenon_is_left_behind(linker: EntityLinker, phenomenon: str) -> None:
    rows = TABLE[phenomenon]
    wrong = [s for s, expected in rows if any(want != got for *_, want, got in compared(linker, s, expected))]
    assert len(wrong) <= max(1, len(rows) // 8), wrong


# ---- the data file ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES.rules, ids=lambda r: f"{r.sets}-{r.name}")
def test_the_example_shows_the_rule(linker: EntityLinker, graph: KnowledgeGraph, rule: AttributeRule) -> None:
    mentions = linker(rule.example)
    assert mentions, rule.example
    if rule.sets == "nothing":
        assert {(m.side, m.severity, m.change, m.status) for m in mentions} == {("", "", "", "current")}
        return
    attribute = "location" if rule.sets == "place" else rule.sets
    said = [
        m
        for m in mentions
        for name, start, end in m.cues
        if name == attribute and _is_of(rule, rule.example[start:end])
    ]
    assert said, rule.example
    if rule.sets == "place":
        assert set(said[0].location) == {graph.concept(name).id for name in rule.value}
        assert said[0].side == rule.side
    else:
        assert getattr(said[0], rule.sets) == rule.value


def _is_of(rule: AttributeRule, words: str) -> bool:
    return " ".join(words.lower().replace("-", " ").split()) in set(expand(rule.phrases))


def test_rules_have_names_of_their_own() -> None:
    names = [rule.name for rule in RULES.rules]
    assert len(set(names)) == len(names) >= 30


ROW = "{name: x, sets: side, value: left, phrases: [left]}"
REST = "severities: [small]\nchanges: [new]\nplace_types: []\nplurals: []\nunsided: []\nrenames: []\n"


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (ROW.replace("side", "colour"), "rule 'x' sets 'colour'; expected one of side, severity"),
        (
            ROW.replace("value: left", "value: top"),
            "rule 'x' has the value 'top'; expected one of left, right, bilateral",
        ),
        (ROW.replace("value: left", "worth: left"), "rule 'x' has an unknown or missing key"),
        (ROW.replace("side, value: left", "status, value: family"), "rule 'x' looks ''; a status looks forward or"),
    ],
)
def test_bad_rules_get_one_clear_error(tmp_path: Path, rule: str, message: str) -> None:
    file = tmp_path / "attributes.yaml"
    file.write_text(f"rules: [{rule}]\n{REST}", encoding="utf-8")
    with pytest.raises(KnowledgeError, match=message):
        read_attribute_rules(file)


# ---- places of a graph -----------------------------------------------------------------------------------------------


def small_graph() -> KnowledgeGraph:
    names = {"wing": "wing", "lw": "left wing", "tip": "wing tip", "feather": "primary feather", "lv": "left valve"}
    places = [Concept(i, name, (), semantic_types=("anatomy",)) for i, name in names.items()]
    places[2] = Concept("tip", "wing tip", ("left tip", "right tip", "tips"), semantic_types=("anatomy",))
    spot = Concept("spot", "spot", (), semantic_types=("finding",))
    links = [
        ("lw", "side_of", "wing"),
        ("feather", "part_of", "lw"),
        ("tip", "part_of", "wing"),
        ("spot", "located_in", "wing"),
    ]
    return KnowledgeGraph([*places, spot], [Relation(*link) for link in links], name="bird")


@pytest.mark.parametrize(
    ("surface", "side", "weak"),
    [
        ("left wing", "left", False),
        ("primary feather", "left", False),  # part of what is a side
        ("left tip", "left", False),
        ("tips", "bilateral", True),  # both of a pair
        ("wing tip", "", False),
        ("left valve", "", False),  # a side of nothing
    ],
)
def test_the_graph_tells_which_side_a_place_is_on(surface: str, side: str, weak: bool) -> None:
    from dataclasses import replace

    words = attribute_words(small_graph(), replace(RULES, plurals=("tips",)))
    assert (words[surface].side, words[surface].weak) == (side, weak)


def test_what_lies_in_an_unsided_place_is_unsided_too() -> None:
    assert unsided(small_graph(), ["wing", "no such thing"]) == {"wing", "tip", "spot"}


def test_only_the_nearest_place_is_named() -> None:
    linker = EntityLinker(small_graph(), language=None, spelling=False)
    (mention,) = [m for m in linker("spot on the left wing of the wing") if m.concept == "spot"]
    assert mention.location == ("lw",)


# ---- properties ------------------------------------------------------------------------------------------------------

PIECES = [
    *("left", "right", "bilateral", "small", "moderate", "effusion", "pneumothorax", "opacity", "cardiomegaly"),
    *("and", "or", ",", ";", ":", "(", ")", "in the", "on the", "base", "lower lobe", "is", "are", "unchanged", "new"),
    *("has resolved", "no", "history of", "if", "mother had", "L", "improved", "with", "apices", "ago", ".", "-", "é"),
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=22).map(" ".join)


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_cues_lie_in_the_text_and_attributes_are_lawful(linker: EntityLinker, text: str) -> None:
    mentions = linker(text)
    linker.forget()
    assert linker(text) == mentions
    for m in mentions:
        assert all(0 <= start < end <= len(text) and text[start:end].strip() for _, start, end in m.cues)
        assert [c[1:] for c in m.cues] == sorted({c[1:] for c in m.cues})
        assert m.side in ("", "left", "right", "bilateral")
        assert m.severity in ("", *RULES.severities)
        assert m.change in ("", *RULES.changes)
        assert m.status in ("current", "historical", "hypothetical", "family")
        if m.assertion is Assertion.ABSENT:
            assert (m.severity, m.change in ("", "resolved")) == ("", True)
        assert {name for name, *_ in m.cues} >= {name for name in ("severity", "change") if getattr(m, name)}


@settings(max_examples=50, deadline=None)
@given(TEXTS.filter(lambda t: "." not in t), TEXTS.filter(lambda t: "." not in t and t.strip(" ,;:()-")))
def test_earlier_sentences_do_not_matter(linker: EntityLinker, before: str, text: str) -> None:
    def told(sentence: str, start: int) -> list[tuple[Any, ...]]:
        found = [m for m in linker(sentence) if m.start >= start]
        return [(m.concept, m.side, m.location, m.severity, m.change, m.status) for m in found]

    lead = f"X {before}.\n\nY "
    assert told(lead + text, len(lead)) == told(f"Y {text}", 0)


def test_assertions_do_not_depend_on_attributes(linker: EntityLinker) -> None:
    plain = pickle.loads(pickle.dumps(linker))
    plain._attributes = lambda text, mentions, *others: list(mentions)
    for rows in TABLE.values():
        for sentence, _ in rows:
            with_, without = linker(sentence), plain(sentence)
            said = {(m.concept, m.start, m.end, m.assertion, m.trigger) for m in with_}
            assert said == {(m.concept, m.start, m.end, m.assertion, m.trigger) for m in without}


def test_cues_go_back_to_what_was_written(graph: KnowledgeGraph) -> None:
    text = "Unchnaged modrate left pleural efusion."
    (mention,) = EntityLinker(graph, types=["finding"])(text)
    assert (mention.change, mention.severity, mention.side) == ("unchanged", "moderate", "left")
    assert [text[start:end] for _, start, end in mention.cues] == ["Unchnaged", "modrate", "left"]


@settings(max_examples=80, deadline=None)
@given(text=TEXTS)
def test_the_short_way_says_what_the_long_way_says(linker: EntityLinker, text: str) -> None:
    linker.forget()
    short = linker(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kvlp.knowledge.linking.attributes._all_inside", lambda items, cues: False)
        linker.forget()
        assert linker(text) == short
    linker.forget()
