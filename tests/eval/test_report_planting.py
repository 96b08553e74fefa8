"""Planted errors: each edit by hand, nothing else touched, none where none is possible; then the ranking itself."""

from __future__ import annotations

import json
import re
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from kvlp.datasets.report_labels import read_reports
from kvlp.errors import ConfigError, DataError
from kvlp.eval.reports.concept_graph import ConceptGraphF1
from kvlp.eval.reports.layout import Layout
from kvlp.eval.reports.metric import mean_column
from kvlp.eval.reports.paraphrase import paraphrase
from kvlp.eval.reports.planted import PlantedPair, phantom_texts, planted_pairs, ranking
from kvlp.eval.reports.planting import ERRORS, Planter
from kvlp.eval.reports.terms import Terms, with_article
from kvlp.knowledge.graph import KnowledgeGraph


@pytest.fixture(scope="module")
def graph() -> KnowledgeGraph:
    return KnowledgeGraph.load("chest")


@pytest.fixture(scope="module")
def planter(graph: KnowledgeGraph) -> Planter:
    return Planter(graph)


@pytest.fixture(scope="module")
def phantom(graph: KnowledgeGraph) -> list[str]:
    return phantom_texts(60, graph, seed=7)


def possible(planter: Planter, text: str, kind: str) -> set[str]:
    """All that the planter may make of a text."""
    return {layout.text for _, layout in planter._ways[kind](Layout.of(text))}


@pytest.mark.parametrize(
    "kind, text, planted",
    [
        ("negation", "No pneumothorax.", {"There is a pneumothorax."}),
        ("negation", "There is no evidence of pulmonary edema.", {"There is pulmonary edema."}),
        (
            "negation",
            "No focal consolidation, pleural effusion or pneumothorax is seen.",
            {
                "There is consolidation. No pleural effusion or pneumothorax is seen.",
                "There is a pleural effusion. No focal consolidation or pneumothorax is seen.",
                "There is a pneumothorax. No focal consolidation or pleural effusion is seen.",
            },
        ),
        ("negation", "There is mild atelectasis at the left base.", {"There is no atelectasis at the left base."}),
        ("negation", "Small bilateral pleural effusions.", {"There are no pleural effusions."}),
        ("negation", "Cardiomegaly.", {"There is no cardiomegaly."}),
        ("negation", "Heart size is normal.", {"Heart size is enlarged."}),
        ("negation", "The heart is mildly enlarged.", {"The heart is normal."}),
        ("negation", "Possible pneumonia.", set()),
        ("negation", "No large effusion.", set()),
        ("negation", "No change in the effusion.", set()),
        ("negation", "INDICATION: No pneumothorax.", set()),
        ("side", "Small Left effusion.", {"Small Right effusion."}),
        ("side", "There is a nodule in the right upper lobe.", {"There is a nodule in the left upper lobe."}),
        ("side", "Nodule in the right middle lobe.", set()),
        ("side", "Effusions, left greater than right.", set()),
        ("side", "No left effusion.", set()),
        ("side", "The left lung is hazy.", set()),
        ("severity", "A small left pleural effusion.", {"A large left pleural effusion."}),
        ("severity", "Severe cardiomegaly is unchanged.", {"Minimal cardiomegaly is unchanged."}),
        (
            "severity",
            "The heart is mildly enlarged with pneumonia.",
            {"The heart is severely enlarged with pneumonia."},
        ),
        ("severity", "Small bowel loops and cardiomegaly.", set()),
        ("severity", "No large effusion.", set()),
        ("omission", "Effusion on the left. Lungs are clear. Pleural effusion.", {" Lungs are clear. "}),
        ("omission", "IMPRESSION: 1. Pneumonia. 2. Old film.", {"IMPRESSION:  2. Old film."}),
        ("omission", "No pneumothorax. Lungs are clear.", set()),
        ("omission", "Cardiomegaly.", set()),
    ],
)
def test_what_is_planted(planter: Planter, kind: str, text: str, planted: set[str]) -> None:
    if kind == "omission":
        planted = {" ".join(p.split()) for p in planted}
        assert {" ".join(p.split()) for p in possible(planter, text, kind)} == planted
    else:
        assert possible(planter, text, kind) == planted


def test_what_is_added_is_new_to_the_report(planter: Planter) -> None:
    added = possible(planter, "Cardiomegaly with edema. No effusion", "insertion")
    assert "Cardiomegaly with edema. There is a large hiatal hernia. No effusion" in added
    assert not [a for a in added if "pleural" in a or "moderate cardiomegaly" in a or "mild pulmonary edema" in a]
    ended = possible(planter, "Clear lungs", "insertion")
    assert "Clear lungs. There is a large hiatal hernia." in ended


def test_only_one_sentence_changes_unless_a_finding_is_left_out(planter: Planter, phantom: list[str]) -> None:
    for n, text in enumerate(phantom):
        for kind in ERRORS:
            planted = planter.plant(text, kind, np.random.default_rng(n))
            if planted is None:
                continue
            assert planted.text != text
            before, after = Layout.of(text), Layout.of(planted.text)
            if kind == "side":
                swapped = [(a, b) for a, b in zip(text.split(), planted.text.split()) if a != b]
                assert len(swapped) == 1
                assert {w.strip(".,").lower() for w in swapped[0]} in ({"left", "right"}, {"left-sided", "right-sided"})
            if kind == "severity":
                assert sum(a != b for a, b in zip(text.split(), planted.text.split(), strict=True)) == 1
            if kind == "omission":
                assert set(after.sentences) < set(before.sentences)
                gone = {t.concept for s in before.sentences for t in planter.terms.find(s)}
                gone -= {t.concept for s in after.sentences for t in planter.terms.find(s)}
                assert gone
            if kind == "insertion":
                assert len(set(after.sentences) - set(before.sentences)) == 1


def test_the_same_seed_plants_the_same(planter: Planter, phantom: list[str]) -> None:
    one, two = (planter.plant(phantom[0], "insertion", np.random.default_rng(5)) for _ in range(2))
    assert one == two
    several = {planter.plant(phantom[0], "insertion", np.random.default_rng(s)) for s in range(20)}
    assert len(several) >= 3


def test_a_layout_is_the_report_again(phantom: list[str]) -> None:
    for text in [*phantom, "", "no stop", "IMPRESSION:\n1. A b.\n2. C d.\n\nFINDINGS: E.  F\n"]:
        assert Layout.of(text).text == text
    layout = Layout.of("IMPRESSION:\n1. Pneumonia.\n2. No edema.")
    assert layout.sentences == ("Pneumonia.", "No edema.")
    assert layout.without([0]).text.split() == ["IMPRESSION:", "2.", "No", "edema."]


def test_a_paraphrase_has_the_same_sentences_but_for_one_name(planter: Planter, phantom: list[str]) -> None:
    moved = renamed = 0
    for n, text in enumerate(phantom):
        new = paraphrase(text, planter.terms, np.random.default_rng(n))
        before, after = Layout.of(text), Layout.of(new)
        assert before.sections == after.sections
        assert len(set(after.sentences) - set(before.sentences)) <= 1
        for old, fresh in zip(before.sentences, after.sentences):
            moved += old != fresh
        renamed += bool(set(after.sentences) - set(before.sentences))
    assert moved > 120
    assert renamed > 40


def test_names_are_the_longest_and_articles_fit(graph: KnowledgeGraph) -> None:
    terms = Terms(graph)
    found = terms.find("A left pleural effusion, and effusion")
    assert [(t.concept, t.start, t.end) for t in found] == [("pleural_effusion", 7, 23), ("pleural_effusion", 29, 37)]
    assert "effusion" in terms.others("pleural_effusion", "pleural effusion")
    assert not [n for n in terms.others("pleural_effusion", "pleural effusion") if n.endswith("s")]
    assert (with_article("effusion"), with_article("mass")) == ("an effusion", "a mass")


def test_ranking_by_hand() -> None:
    pairs = [
        PlantedPair("r", "aaa", "a", "side"),
        PlantedPair("r", "a", "a", "side"),
        PlantedPair("r", "a", "aa", "negation"),
    ]
    rows = ranking(pairs, [lambda refs, hyps: [mean_column("length", "", [len(h) for h in hyps])]])
    every, side, negation = rows
    assert (every.kind, every.right, every.tied, every.n) == ("all", 1, 1, 3)
    assert (every.clean, every.planted) == (pytest.approx(5 / 3), pytest.approx(4 / 3))
    assert (side.share, negation.share) == (0.5, 0.0)
    assert (side.low, side.high) == (pytest.approx(0.0945, abs=1e-4), pytest.approx(0.9055, abs=1e-4))


def test_pairs_are_as_many_of_each_kind_and_refusals_say_why(graph: KnowledgeGraph, phantom: list[str]) -> None:
    pairs = planted_pairs(phantom, graph, n=25, seed=1)
    assert [p.kind for p in pairs] == [k for k in ERRORS for _ in range(5)]
    assert pairs == planted_pairs(phantom, graph, n=25, seed=1)
    assert all(p.planted != p.clean and p.ref in phantom for p in pairs)
    assert len({p.ref for p in pairs[:5]}) == 5
    with pytest.raises(ConfigError, match="n is 12; expected a multiple of 5"):
        planted_pairs(phantom, graph, n=12)
    with pytest.raises(ConfigError, match="setting is 'hard'; expected one of paraphrase, verbatim"):
        planted_pairs(phantom, graph, setting="hard")
    with pytest.raises(DataError, match="an error of kind 'negation' fits into 1 of 2 texts; need 2"):
        planted_pairs(["No pneumothorax.", "Hello."], graph, n=10)


def share(texts: list[str], graph: KnowledgeGraph, setting: str, seed: int) -> float:
    rows = ranking(planted_pairs(texts, graph, setting=setting, seed=seed), [ConceptGraphF1(graph)])
    return next(r.share for r in rows if r.metric == "concept-graph-f1" and r.kind == "all")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_errors_in_phantom_reports_are_ranked_below_the_clean_ones(graph: KnowledgeGraph, seed: int) -> None:
    texts = phantom_texts(1000, graph)
    assert share(texts, graph, "paraphrase", seed) >= 0.98
    assert share(texts, graph, "verbatim", seed) >= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_errors_in_real_reports_are_ranked_below_the_clean_ones(
    graph: KnowledgeGraph, kvlp_data: Path, seed: int
) -> None:
    reports = read_reports(kvlp_data / "reports" / "iu_xray_reports.csv", ["findings", "impression"])
    texts = [text for text, row in zip(reports.texts, reports.table.rows) if row["split"] == "train"]
    assert share(texts, graph, "paraphrase", seed) >= 0.98
    assert share(texts, graph, "verbatim", seed) >= 0.96


def test_the_tables_of_the_docs_are_those_of_the_figures(repository: Path) -> None:
    page = (repository / "docs" / "report_metrics.md").read_text(encoding="utf-8")
    figures = json.loads((repository / "docs" / "figures" / "report_metrics.json").read_text(encoding="utf-8"))
    rows = [line.split(" | ") for line in page.splitlines() if re.match(r"\| `\S+` \| \d\.\d+ \(", line)]
    shown = iter(rows)
    for setting in ("paraphrase", "verbatim"):
        for source in figures["sources"].values():
            of = {(r["metric"], r["kind"]): r for r in source[setting]}
            for cells in islice(shown, 6):
                name = cells[0].strip("| `")
                every = of[name, "all"]
                assert cells[1] == f"{every['share']:.3f} ({every['low']:.3f} to {every['high']:.3f})"
                assert [c.strip(" |") for c in cells[2:]] == [f"{of[name, kind]['share']:.2f}" for kind in ERRORS]
                assert every["n"] == 500
    assert not list(shown)
