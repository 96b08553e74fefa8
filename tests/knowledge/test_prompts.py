"""Prompts: grammar, order, all assertions, special classes, free text, bad templates."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from kvlp.errors import ConfigError
from kvlp.knowledge.graph import Concept, KnowledgeGraph
from kvlp.knowledge.prompts import Prompts
from kvlp.typing import Assertion

P, A, U = Assertion.PRESENT, Assertion.ABSENT, Assertion.UNCERTAIN

EFFUSION = Concept(
    "effusion", "pleural effusion", ("fluid in the pleural space", "pleural effusions", "lungs are wet"),
    definition="Fluid between lung and chest wall. It layers.",
    descriptions=("a white crescent along the chest wall",), semantic_types=("finding",),
)  # fmt: skip


@pytest.fixture(scope="module")
def prompts() -> Prompts:
    edema = Concept("edema", "pulmonary edema", ("oedema",), number="mass")
    lines = Concept("lines", "Kerley lines", number="plural")
    return Prompts(KnowledgeGraph([EFFUSION, edema, lines], [], name="small"))


@pytest.mark.parametrize(
    ("text", "present", "absent"),
    [
        ("pleural effusion", "There is a pleural effusion.", "There is no pleural effusion."),
        ("pulmonary edema", "There is pulmonary edema.", "There is no pulmonary edema."),
        ("interstitial opacities", "There are interstitial opacities.", "There are no interstitial opacities."),
        ("x-ray", "There is an x-ray.", "There is no x-ray."),
        ("opacity", "There is an opacity.", "There is no opacity."),
        ("unilateral mass", "There is a unilateral mass.", "There is no unilateral mass."),
        ("NG tube", "There is an NG tube.", "There is no NG tube."),
        ("CT tube", "There is a CT tube.", "There is no CT tube."),
        ("left basal opacity", "There is a left basal opacity.", "There is no left basal opacity."),
        ("atelectasis", "There is atelectasis.", "There is no atelectasis."),
        ("pneumothorax", "There is a pneumothorax.", "There is no pneumothorax."),
        ("hiatal hernia", "There is a hiatal hernia.", "There is no hiatal hernia."),
        ("bullae", "There are bullae.", "There are no bullae."),
        ("fluid in the fissures", "There is fluid in the fissures.", "There is no fluid in the fissures."),
        ("a mass with a pale rim", "There is a mass with a pale rim.", "There is no mass with a pale rim."),
        ("S-shaped spine", "There is an S-shaped spine.", "There is no S-shaped spine."),
        ("valve ring", "There is a valve ring.", "There is no valve ring."),
        ("a sac that is full", "There is a sac that is full.", "There is no sac that is full."),
        ("ng tube", "There is an ng tube.", "There is no ng tube."),
        ("cvc", "There is a cvc.", "There is no cvc."),
        ("air outlining the aorta", "There is air outlining the aorta.", "There is no air outlining the aorta."),
        ("more than ten ribs", "There are more than ten ribs.", "There are no more than ten ribs."),
        ("pulmonary emboli", "There are pulmonary emboli.", "There are no pulmonary emboli."),
        ("Pleural_Effusion", "There is a pleural effusion.", "There is no pleural effusion."),
        ("Kerley B lines", "There are Kerley B lines.", "There are no Kerley B lines."),
        ("there is a large mass.", "There is a large mass.", "There is no large mass."),
        ("the heart is enlarged", "The heart is enlarged.", "The heart is not enlarged."),
        ("no pneumothorax", "There is no pneumothorax.", "There is a pneumothorax."),
    ],
)  # fmt: skip
def test_grammar(text: str, present: str, absent: str) -> None:
    free = Prompts()
    assert free.sentence(text, P) == present
    assert free.sentence(text, A) == absent


@pytest.mark.parametrize(
    ("begins", "text"),
    [
        ("There are", "vessels broader than the bronchi beside them"),
        ("There is", "thin muscle arching toward the lung"),
        ("There is a", "speck brighter than the ribs"),
        ("There is", "pleural thickening at the apex"),
        ("There is a", "healing fracture of the rib"),
        ("There are", "swollen nodes at both lung roots"),
    ],
)
def test_the_head_noun_decides_the_number(begins: str, text: str) -> None:
    assert Prompts().sentence(text, P) == f"{begins} {text}."


@pytest.mark.parametrize(
    ("text", "uncertain"),
    [
        ("pleural effusion", "There may be a pleural effusion."),
        ("opacities", "There may be opacities."),
        ("lungs are wet", "Lungs may be wet."),
    ],
)
def test_doubt(text: str, uncertain: str) -> None:
    assert Prompts().sentence(text, U) == uncertain


def test_plain_sentence_comes_first_and_there_are_no_doubles(prompts: Prompts) -> None:
    for assertion in Assertion:
        said = prompts.sentences("effusion", assertion)
        assert said[0] == prompts.sentence("effusion", assertion)
        assert len(said) == len(set(said)) > 10
        assert said == prompts.sentences(EFFUSION, assertion)


def test_every_sentence_is_well_formed(prompts: Prompts) -> None:
    for concept in ("effusion", "edema", "lines", "No Finding", "left basal opacity"):
        for assertion in Assertion:
            for sentence in prompts.sentences(concept, assertion, descriptions=True, definitions=True):
                assert re.fullmatch(r"[A-Z][^.]*\.", sentence), sentence
                assert not re.search(r"\b(no|possible) an? |\ban? an? |  |\{|\}| a [aeio]", sentence), sentence


def test_the_graph_decides_the_number_of_a_name(prompts: Prompts) -> None:
    assert prompts.sentence("edema", P) == "There is pulmonary edema."
    assert prompts.sentence("lines", A, template=2) == "No Kerley lines are seen."


def test_synonyms_descriptions_definitions(prompts: Prompts) -> None:
    plain = prompts.sentences("effusion", P, synonyms=False, style="plain")
    assert plain == ["There is a pleural effusion."]
    said = prompts.sentences("effusion", A, style="plain", descriptions=True, definitions=True)
    assert said == [
        "There is no pleural effusion.",
        "There is no fluid in the pleural space.",
        "There are no pleural effusions.",
        "There is no white crescent along the chest wall.",
        "There is no fluid between lung and chest wall.",
    ]


def test_limit_keeps_every_surface_before_a_second_wording(prompts: Prompts) -> None:
    assert prompts.sentences("effusion", P, limit=3) == [
        "There is a pleural effusion.",
        "There is fluid in the pleural space.",
        "There are pleural effusions.",
    ]


def test_surface_and_template_can_be_chosen(prompts: Prompts) -> None:
    assert prompts.sentence("effusion", A, surface="hydrothorax", template=1) == "No hydrothorax."
    n = prompts.n_templates(A)
    assert prompts.sentence("effusion", A, template=n) == prompts.sentence("effusion", A)


@pytest.mark.parametrize("name", ["No Finding", "no_finding", "No Findings.", "Normal"])
def test_no_finding(prompts: Prompts, name: str) -> None:
    assert prompts.sentence(name, P) == "No acute cardiopulmonary abnormality."
    assert prompts.sentence(name, A) == "There is a cardiopulmonary abnormality."
    assert not set(prompts.sentences(name, P)) & set(prompts.sentences(name, A))


def test_empty_text_and_unknown_style_are_refused(prompts: Prompts) -> None:
    with pytest.raises(ConfigError, match="at least one word"):
        prompts.sentences("  ", P)
    with pytest.raises(ConfigError, match="style 'long' is unknown"):
        prompts.sentences("effusion", P, style="long")  # type: ignore[arg-type]


def test_hash_follows_the_templates(tmp_path: Path) -> None:
    bundled = Path(__file__).parents[2] / "knowledge" / "prompts" / "prompts.yaml"
    file = tmp_path / "t.yaml"
    file.write_text(bundled.read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")
    assert Prompts().content_hash == Prompts().content_hash != Prompts(templates=file).content_hash


def test_all_concepts_of_the_chest_graph_have_sentences() -> None:
    chest = KnowledgeGraph.load("chest")
    prompts = Prompts(chest)
    for concept in chest.concepts:
        for assertion in Assertion:
            for sentence in prompts.sentences(concept, assertion, style="plain", descriptions=True):
                assert re.match(r"[A-Z0-9\W]", sentence), sentence
                assert sentence.endswith("."), sentence


def test_the_default_styles_say_what_models_were_made_with() -> None:
    """Checkpoints and committed figures name these sentences by their hash; another wording is another style."""
    words = ["pleural effusion", "edema", "opacities", "No Finding", "left basal opacity", "no pneumothorax"]
    concepts = [EFFUSION, Concept("nodule", "lung nodule", ("coin lesion", "granulomata", "both lungs"))]
    free, digest = Prompts(), hashlib.sha256()
    for name in (*words, *concepts):
        for assertion in Assertion:
            for style in ("ensemble", "plain"):
                told = {"descriptions": True, "definitions": True}
                digest.update("\n".join(free.sentences(name, assertion, style=style, **told)).encode())
    assert digest.hexdigest() == "f581eb7bc7d25b0fa627965d6c722982c9ee492b4ea7382add38f56e85337e42"
