"""Attributes of concepts: what graph and definition tell, how it is said, and how answers are kept."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from kvlp.errors import ConfigError, KnowledgeError
from kvlp.knowledge.graph import Concept, KnowledgeGraph, Relation
from kvlp.knowledge.prompts import (
    AttributeBackend,
    AttributeCache,
    AttributePrompts,
    DefinitionBackend,
    GraphBackend,
    PromptAttribute,
    Prompts,
)
from kvlp.typing import Assertion

P, A, U = Assertion.PRESENT, Assertion.ABSENT, Assertion.UNCERTAIN
FINDING, DISEASE, ANATOMY = ("finding",), ("disease",), ("anatomy",)
EFFUSION = Concept(
    "effusion",
    "pleural effusion",
    ("hydrothorax",),
    definition="Fluid between the lung and the chest wall that layers, seen as a white crescent with a curved edge.",
    descriptions=(
        "white crescent at the lung base",
        "no dark angle at the diaphragm",
        "both angles filled",
        "hazy dense layer behind the black lung",
    ),
    semantic_types=FINDING,
)
CONCEPTS = [
    EFFUSION,
    Concept("layering", "layering effusion", semantic_types=FINDING),
    Concept("failure", "heart failure", semantic_types=DISEASE, number="mass"),
    Concept("lines", "Kerley lines", semantic_types=FINDING, number="plural"),
    Concept("abnormality", "chest abnormality", semantic_types=FINDING),
    Concept(
        "clear", "clear pleural spaces", ("pleural spaces are clear",), semantic_types=("normal",), number="plural"
    ),
    Concept("dryness", "dry pleura", semantic_types=FINDING, number="count"),
    Concept("space", "pleural space", semantic_types=ANATOMY),
    Concept("angle", "costophrenic angle", semantic_types=ANATOMY),
    Concept("left_angle", "left costophrenic angle", semantic_types=ANATOMY),
]
RELATIONS = [
    ("effusion", "is_a", "abnormality"), ("layering", "is_a", "effusion"), ("effusion", "located_in", "space"),
    ("effusion", "located_in", "angle"), ("left_angle", "side_of", "angle"), ("failure", "may_cause", "effusion"),
    ("failure", "may_cause", "lines"), ("lines", "manifestation_of", "failure"), ("clear", "rules_out", "abnormality"),
    ("dryness", "opposite_of", "effusion"), ("effusion", "may_cause", "nowhere"),
]  # fmt: skip


@pytest.fixture(scope="module")
def graph() -> KnowledgeGraph:
    return KnowledgeGraph(CONCEPTS, [Relation(*r) for r in RELATIONS], name="small")


def said(attributes: list[PromptAttribute]) -> dict[str, list[str]]:
    table: dict[str, list[str]] = {}
    for attribute in attributes:
        table.setdefault(attribute.kind, []).append(attribute.text)
    return table


def test_the_graph_tells_by_relations(graph: KnowledgeGraph) -> None:
    assert said(GraphBackend(graph).attributes(EFFUSION)) == {
        "side": ["left", "right"],
        "severity": ["small", "large"],
        "location": ["in the pleural space", "at the costophrenic angle"],
        "parent": ["chest abnormality"],
        "cause": ["heart failure"],
        "opposite": ["dry pleura"],
        "normal": ["pleural spaces are clear"],
    }
    assert said(GraphBackend(graph).attributes(graph["failure"])) == {
        "effect": ["pleural effusion", "Kerley lines"],
        "sign": ["Kerley lines"],
    }
    assert said(GraphBackend(graph).attributes(graph["lines"]))["disease"] == ["heart failure"]


def test_what_a_concept_lacks_comes_from_above_with_a_lower_score(graph: KnowledgeGraph) -> None:
    found = GraphBackend(graph).attributes(graph["layering"])
    assert [(a.text, a.score, a.source) for a in found if a.kind == "location"] == [
        ("in the pleural space", 0.5, "located_in space"),
        ("at the costophrenic angle", 0.5, "located_in angle"),
    ]
    assert [a.score for a in found if a.kind == "normal"] == [pytest.approx(1 / 3, abs=1e-4)]
    assert GraphBackend(graph, most=1).attributes(graph["layering"]) != found


def test_anatomy_normal_statements_and_free_text_have_no_attributes(graph: KnowledgeGraph) -> None:
    for concept in (graph["space"], graph["clear"], Concept("free text", "free text")):
        assert GraphBackend(graph).attributes(concept) == []
        assert DefinitionBackend().attributes(concept) == []
    assert GraphBackend(None).attributes(EFFUSION) == []


def test_definition_and_descriptions_tell_by_words() -> None:
    found = DefinitionBackend().attributes(EFFUSION)
    assert said(found) == {
        "color": ["white"],  # two crescents and a dense layer; the black lung stands behind the head noun
        "shape": ["crescentic"],
        "texture": ["hazy"],
        "location": ["between the lung and the chest wall"],
        # what denies, and what begins with "both", cannot be denied
        "appearance": [
            "white crescent at the lung base",
            "hazy dense layer behind the black lung",
            "a white crescent with a curved edge",
        ],
        "definition": [
            "fluid between the lung and the chest wall that layers, seen as a white crescent with a curved edge"
        ],
    }
    assert {a.text: a.score for a in found if a.kind in ("color", "shape", "texture")} == {
        "white": 0.6,  # three of five texts
        "crescentic": 0.4,
        "hazy": 0.2,
    }


def test_sentences_by_hand(graph: KnowledgeGraph) -> None:
    prompts = Prompts(graph)
    assert prompts.sentences("effusion", P, style="location", synonyms=False) == [
        "There is a pleural effusion.",
        "There is a pleural effusion in the pleural space.",
        "There is a pleural effusion at the costophrenic angle.",
        "There is a pleural effusion between the lung and the chest wall.",
    ]
    assert prompts.sentences("effusion", A, style="side") == [
        "There is no pleural effusion.",
        "There is no pleural effusion on either side.",
        "There is no hydrothorax.",
    ]
    assert prompts.sentences("effusion", U, style="severity", synonyms=False)[1:] == [
        "There may be a small pleural effusion.",
        "There may be a large pleural effusion.",
    ]
    assert prompts.sentences("lines", A, style="disease") == [
        "There are no Kerley lines.",
        "There are no Kerley lines, which would be a sign of heart failure.",
    ]
    assert prompts.sentences("effusion", A, style="normal", synonyms=False) == [
        "There is no pleural effusion.",
        "Pleural spaces are clear.",
        "Pleural spaces are clear, and there is no pleural effusion.",
    ]
    assert prompts.sentences("effusion", P, style="opposite", synonyms=False)[1] == (
        "There is a pleural effusion rather than a dry pleura."
    )


def test_attributes_join_their_members_without_doubles(graph: KnowledgeGraph) -> None:
    prompts = Prompts(graph)
    for assertion in Assertion:
        joined = prompts.sentences("effusion", assertion, style="attributes", synonyms=False)
        single = [
            s
            for style in ("appearance", "location", "side", "severity")
            for s in prompts.sentences("effusion", assertion, style=style, synonyms=False)
        ]
        assert joined == list(dict.fromkeys(single))
        assert joined == prompts.attribute_sentences("effusion", assertion)
        assert joined[:2] == prompts.attribute_sentences("effusion", assertion, limit=2)
        assert joined[0] == prompts.sentence("effusion", assertion)


def test_free_text_and_special_classes_have_their_plain_sentence(graph: KnowledgeGraph) -> None:
    prompts = Prompts(graph)
    assert prompts.sentences("left basal opacity", style="attributes") == ["There is a left basal opacity."]
    assert prompts.sentences("No Finding", style="attributes") == ["No acute cardiopulmonary abnormality."]
    assert prompts.sentences("no opacity", style="attributes") == ["There is no opacity."]
    assert prompts.sentences("space", A, style="attributes") == ["There is no pleural space."]
    assert prompts.sentences("no opacity", style="words") == ["no opacity"]
    assert prompts.sentences("effusion", U, style="kad") == [
        "[ENT] pleural effusion Observation Uncertain [SEP]",
        "[ENT] hydrothorax Observation Uncertain [SEP]",
    ]


def test_attributes_of_ones_own(graph: KnowledgeGraph) -> None:
    own = [PromptAttribute("color", "orange"), PromptAttribute("cause", "an onion"), PromptAttribute("cause", "tides")]
    prompts = Prompts(graph)
    assert prompts.attribute_sentences("opacity", A, attributes=own, style="color") == [
        "There is no opacity.",
        "There is no opacity, which would be orange in color.",
    ]
    assert prompts.attribute_sentences("opacity", P, attributes=own, style="relations")[1:] == [
        "There is an opacity, possibly from an onion.",
        "There is an opacity, possibly from tides.",
    ]


class Counting:
    """A back-end that counts how often it is asked."""

    name = "counting"

    def __init__(self, version: str = "1") -> None:
        self.version, self.asked = version, 0

    def provenance(self) -> dict[str, str]:
        return {"version": self.version}

    def attributes(self, concept: Concept) -> list[PromptAttribute]:
        self.asked += 1
        return [PromptAttribute("color", f"ö{self.version}", 0.25, "asked"), PromptAttribute("location", "in the lung")]


def test_several_back_ends_follow_one_another(graph: KnowledgeGraph) -> None:
    assert isinstance(Counting(), AttributeBackend)
    both = AttributePrompts(graph, backend=[Counting(), "definition"])
    assert [a.text for a in both.attributes("effusion", ["color"])] == ["ö1", "white"]
    assert [p["backend"] for p in both.provenance()] == ["counting", "definition"]
    assert both.sentences("effusion", style="color", limit=2)[1] == "There is a pleural effusion, ö1 in color."
    assert both.sentences("effusion", style="plain") == ["There is a pleural effusion."]
    assert both.sentences("free words", style="color")[1:] == ["There are free words, ö1 in color."]


def test_wrong_arguments_are_named(graph: KnowledgeGraph) -> None:
    with pytest.raises(ConfigError, match="backend 'grahp' is unknown; did you mean 'graph'"):
        AttributePrompts(graph, backend="grahp")
    with pytest.raises(ConfigError, match="'masked' needs model=FOLDER"):
        AttributePrompts(graph, backend="masked")
    with pytest.raises(ConfigError, match="attribute 'colour' is unknown; did you mean 'color'"):
        AttributePrompts(graph).attributes("effusion", ["colour"])
    with pytest.raises(ConfigError, match="at least one word"):
        AttributePrompts(graph).attributes("  ")


def test_answers_are_kept_with_their_provenance(graph: KnowledgeGraph, tmp_path: Path) -> None:
    backend = Counting()
    first = AttributePrompts(graph, backend=backend, cache=tmp_path).attributes("effusion")
    again = AttributePrompts(graph, backend=backend, cache=tmp_path).attributes("effusion")
    assert first == again
    assert backend.asked == 1
    file = AttributeCache(tmp_path).path_of(backend, EFFUSION)
    assert [file] == list(tmp_path.iterdir())
    kept = json.loads(file.read_text(encoding="utf-8"))
    assert kept["provenance"] == {"backend": "counting", "version": "1"}
    assert kept["concept"] == "effusion"
    assert kept["attributes"][0] == {"kind": "color", "text": "ö1", "score": 0.25, "source": "asked", "number": ""}
    before = file.read_bytes()
    file.unlink()
    AttributePrompts(graph, backend=backend, cache=tmp_path).attributes("effusion")
    assert file.read_bytes() == before


def test_another_model_graph_or_wording_gets_no_old_answer(graph: KnowledgeGraph, tmp_path: Path) -> None:
    cache = AttributeCache(tmp_path)
    other = Concept("effusion", "pleural effusion", definition="Something else.")
    paths = {
        cache.path_of(Counting("1"), EFFUSION),
        cache.path_of(Counting("2"), EFFUSION),
        cache.path_of(Counting("1"), other),
        cache.path_of(GraphBackend(graph), EFFUSION),
        cache.path_of(GraphBackend(graph, most=2), EFFUSION),
        cache.path_of(GraphBackend(KnowledgeGraph([EFFUSION], [], name="one")), EFFUSION),
    }
    assert len(paths) == 6
    renamed = GraphBackend(graph.renamed("other name"))
    assert cache.path_of(renamed, EFFUSION) in paths, "the name of a graph is not its content"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda b: b"", "not readable as JSON"),
        (lambda b: b[:-40], "not readable as JSON"),
        (lambda b: b"\xff\xfe" + b, "not readable as JSON"),
        (lambda b: b"[" * 100_000, "not readable as JSON"),
        (lambda b: b"[1]", "its checksum does not fit"),
        (lambda b: b.replace(b"0.25", b"0.75"), "its checksum does not fit"),
        (lambda b: b'{"a": 1}', "its checksum does not fit"),
    ],
)
def test_a_damaged_answer_is_told_and_made_again(
    graph: KnowledgeGraph, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: object, reason: str
) -> None:
    backend = Counting()
    prompts = AttributePrompts(graph, backend=backend, cache=tmp_path)
    sound = prompts.attributes("effusion")
    file = AttributeCache(tmp_path).path_of(backend, EFFUSION)
    bytes_before = file.read_bytes()
    file.write_bytes(damage(bytes_before))  # type: ignore[operator]
    with caplog.at_level(logging.WARNING):
        assert prompts.attributes("effusion") == sound
    (record,) = caplog.records
    assert record.getMessage() == f"{file}: damaged answer of back-end 'counting' ({reason}); made again"
    assert file.read_bytes() == bytes_before
    assert backend.asked == 2


def test_an_answer_of_something_else_under_this_name_is_not_taken(graph: KnowledgeGraph, tmp_path: Path) -> None:
    cache, backend, other = AttributeCache(tmp_path), Counting(), Counting("2")
    cache.through(other, EFFUSION)
    cache.path_of(other, EFFUSION).rename(cache.path_of(backend, EFFUSION))
    assert cache.through(backend, EFFUSION)[0].text == "ö1"


def test_a_write_that_fails_leaves_nothing_behind(
    graph: KnowledgeGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = AttributeCache(tmp_path)

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        cache.through(Counting(), EFFUSION)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_where_no_folder_can_be_is_refused(graph: KnowledgeGraph, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KnowledgeError, match=r"file: cannot keep attributes here \(File exists\); name a folder"):
        AttributePrompts(graph, cache=tmp_path / "file")
