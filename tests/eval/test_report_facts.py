"""Facts and concept-graph F1: values by hand, credit as a metric, the best matching, what errors cost."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvlp.errors import DataError
from kvlp.eval.reports.concept_graph import ConceptGraphF1, Match, match_facts
from kvlp.eval.reports.credit import Credit
from kvlp.eval.reports.facts import Fact, FactReader
from kvlp.eval.reports.planted import phantom_texts
from kvlp.knowledge.graph import Concept, KnowledgeGraph, Relation

SMALL = KnowledgeGraph(
    [
        Concept("opacity", "opacity", semantic_types=("finding",)),
        Concept("consolidation", "consolidation", semantic_types=("finding",)),
        Concept("pneumonia", "pneumonia", semantic_types=("disease",)),
        Concept("effusion", "effusion", semantic_types=("finding",)),
        Concept("clear", "clear lungs", semantic_types=("normal",)),
        Concept("lung", "lung", semantic_types=("anatomy",)),
        Concept("left_lung", "left lung", semantic_types=("anatomy",)),
        Concept("right_lung", "right lung", semantic_types=("anatomy",)),
    ],
    [
        Relation("consolidation", "is_a", "opacity"),
        Relation("pneumonia", "is_a", "consolidation"),
        Relation("clear", "rules_out", "opacity"),
        Relation("left_lung", "side_of", "lung"),
        Relation("right_lung", "side_of", "lung"),
    ],
    name="small",
)
CREDIT = Credit(SMALL)


def fact(concept: str = "effusion", certainty: float = 1.0, side: str = "", severity: int = 0, *places: str) -> Fact:
    return Fact(concept, certainty, side, severity, frozenset(places))


@pytest.fixture(scope="module")
def metric() -> ConceptGraphF1:
    return ConceptGraphF1(KnowledgeGraph.load("chest"))


@pytest.mark.parametrize(
    "a, b, credit",
    [
        (fact(), fact(), 1.0),
        (fact(certainty=1.0), fact(certainty=0.0), 0.0),
        (fact(certainty=1.0), fact(certainty=0.5), 0.5),
        (fact("consolidation"), fact("opacity"), 1 / 2),
        (fact("pneumonia"), fact("opacity"), 1 / 3),
        (fact("pneumonia"), fact("effusion"), 0.0),
        (fact("clear", 0.0), fact("opacity", 0.0), 1 / 2),
        (fact("clear", 0.0), fact("pneumonia", 0.0), 1 / 4),
        (fact("clear", 0.0), fact("opacity", 1.0), 0.0),
        (fact(side="left"), fact(side="right"), 0.5),
        (fact(side="left"), fact(), 0.75),
        (fact(side="left"), fact(side="bilateral"), 0.75),
        (fact(severity=1), fact(severity=4), 0.5),
        (fact(severity=2), fact(severity=3), 1 - 1 / 6),
        (fact(severity=4), fact(), 0.75),
        (fact("effusion", 1.0, "", 0, "left_lung"), fact("effusion", 1.0, "", 0, "right_lung"), 1 - 0.5 * 2 / 3),
        (fact("effusion", 1.0, "", 0, "left_lung"), fact(), 0.75),
        (fact("consolidation", 1.0, "left", 2), fact("opacity", 0.5, "right", 4), 0.5 * 0.5 * 0.5 * (1 - 2 / 6)),
    ],
)
def test_credit_by_hand(a: Fact, b: Fact, credit: float) -> None:
    assert CREDIT(a, b) == pytest.approx(credit)
    assert CREDIT(b, a) == pytest.approx(credit)


FACTS = st.builds(
    Fact,
    st.sampled_from(["opacity", "consolidation", "pneumonia", "effusion", "clear"]),
    st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
    st.sampled_from(["", "left", "right", "bilateral"]),
    st.integers(0, 4),
    st.frozensets(st.sampled_from(["lung", "left_lung", "right_lung"])),
)
SETS = st.frozensets(FACTS, max_size=3)


@given(FACTS, FACTS, FACTS)
def test_one_minus_credit_is_a_metric(a: Fact, b: Fact, c: Fact) -> None:
    assert (CREDIT(a, b) == 1.0) == (a == b)
    assert CREDIT(a, b) + CREDIT(b, c) <= 1.0 + CREDIT(a, c) + 1e-12


@settings(max_examples=25)
@given(SETS, SETS)
def test_the_matching_is_the_best_one(refs: frozenset[Fact], hyps: frozenset[Fact]) -> None:
    few, many = sorted((list(refs), list(hyps)), key=len)
    best = max(sum(CREDIT(a, b) for a, b in zip(few, order)) for order in permutations(many, len(few)))
    assert match_facts(refs, hyps, CREDIT).credit == pytest.approx(best)


@given(SETS, SETS)
def test_bounded_and_swapping_the_texts_swaps_precision_and_recall(
    refs: frozenset[Fact], hyps: frozenset[Fact]
) -> None:
    match, swapped = match_facts(refs, hyps, CREDIT), match_facts(hyps, refs, CREDIT)
    assert min(match.precision, match.recall, match.f1) >= 0
    assert max(match.precision, match.recall, match.f1) <= 1
    assert (match.f1 == 1) == (refs == hyps)
    assert (swapped.precision, swapped.recall) == (pytest.approx(match.recall), pytest.approx(match.precision))
    assert swapped.f1 == pytest.approx(match.f1)
    if match.precision + match.recall > 0:
        harmonic = 2 * match.precision * match.recall / (match.precision + match.recall)
        assert match.f1 == pytest.approx(harmonic)


def test_no_facts() -> None:
    assert Match(0.0, 0, 0)[:] == (0.0, 0, 0)
    assert (Match(0.0, 0, 0).precision, Match(0.0, 0, 0).recall, Match(0.0, 0, 0).f1) == (1.0, 1.0, 1.0)
    assert (Match(0.0, 2, 0).precision, Match(0.0, 2, 0).recall, Match(0.0, 2, 0).f1) == (0.0, 0.0, 0.0)


def test_a_wrong_claim_is_worse_than_an_omission() -> None:
    refs = {fact(), fact("pneumonia", 0.0), fact("opacity", 0.0)}
    flipped = match_facts(refs, {fact(certainty=0.0), fact("pneumonia", 0.0), fact("opacity", 0.0)}, CREDIT)
    omitted = match_facts(refs, {fact("pneumonia", 0.0), fact("opacity", 0.0)}, CREDIT)
    assert flipped.f1 == pytest.approx(1 - 1 / 3)
    assert omitted.f1 == pytest.approx(1 - 1 / 5)


def test_facts_of_a_report(metric: ConceptGraphF1) -> None:
    text = "INDICATION: Pneumonia? FINDINGS: Small left pleural effusion. No pneumothorax. "
    text += "Possible right lower lobe nodule."
    read = {f.concept: f for f in metric.reader(text)}
    assert set(read) == {"pleural_effusion", "pneumothorax", "lung_nodule"}
    assert read["pleural_effusion"] == Fact("pleural_effusion", 1.0, "left", 2)
    assert read["pneumothorax"].certainty == 0.0
    assert read["lung_nodule"] == Fact("lung_nodule", 0.5, "right", 0, frozenset({"right_lower_lobe"}))


def test_where_a_finding_lies_anyway_is_no_fact(metric: ConceptGraphF1) -> None:
    assert metric.reader("A lung nodule.") == metric.reader("A pulmonary nodule.") == metric.reader("A nodule.")


def test_a_normal_statement_denies(metric: ConceptGraphF1) -> None:
    clear = "The lungs are clear."
    assert {f.certainty for f in metric.reader(clear)} == {0.0}
    assert 0 < metric.match(clear, "No consolidation.").f1 < 1
    assert metric.match(clear, "There is consolidation.").f1 == 0.0


@pytest.mark.parametrize(
    "worse",
    [
        "FINDINGS: Moderate left pleural effusion. There is a pneumothorax. Mild cardiomegaly.",
        "FINDINGS: No pleural effusion. No pneumothorax. Mild cardiomegaly.",
        "FINDINGS: Moderate right pleural effusion. No pneumothorax. Mild cardiomegaly.",
        "FINDINGS: Trace left pleural effusion. No pneumothorax. Mild cardiomegaly.",
        "FINDINGS: Moderate left pleural effusion. No pneumothorax.",
        "FINDINGS: Moderate left pleural effusion. No pneumothorax. Mild cardiomegaly. A nodule in the right apex.",
    ],
)
def test_every_error_costs_and_other_words_do_not(metric: ConceptGraphF1, worse: str) -> None:
    ref = "FINDINGS: Moderate left pleural effusion. No pneumothorax. Mild cardiomegaly."
    same = "FINDINGS: Mildly enlarged heart. Pneumothorax is not seen. There is a moderate left effusion."
    assert metric.match(ref, same).f1 == pytest.approx(1.0)
    assert metric.match(ref, worse).f1 < 0.96


def test_identical_reports_score_1_and_order_does_not_matter(metric: ConceptGraphF1) -> None:
    rng = np.random.default_rng(0)
    texts = phantom_texts(8, metric.reader.graph)
    for text in texts:
        sentences = text.partition("FINDINGS: ")[2].partition("\n")[0].split(". ")
        sentences = [s.rstrip(".") + "." for s in sentences]
        shuffled = " ".join(sentences[i] for i in rng.permutation(len(sentences)))
        assert metric.match(text, text).f1 == 1.0
        assert metric.match(" ".join(sentences), shuffled).f1 == 1.0
    columns = {c.name: c for c in metric(texts, texts[1:] + texts[:1])}
    assert list(columns) == ["concept-graph-f1", "concept-graph-precision", "concept-graph-recall"]
    assert all(((c.per_report >= 0) & (c.per_report <= 1)).all() for c in columns.values())
    assert columns["concept-graph-f1"].per_report.mean() < 0.7


def test_a_reference_in_another_language_is_refused_and_a_hypothesis_says_nothing(metric: ConceptGraphF1) -> None:
    french = "Il n'y a pas de pneumothorax et le coeur est de taille normale dans les limites de la radiographie."
    with pytest.raises(DataError, match=r"refs\[1\]: expected an English reference, this looks like French"):
        metric(["No edema.", french], ["No edema.", "No edema."])
    assert metric(["No edema.", "No edema."], ["No edema.", french])[0].per_report.tolist() == [1.0, 0.0]
    anyway = ConceptGraphF1(metric.reader.graph, metric.reader.linker, language=None)
    assert anyway([french], [french])[0].per_report.tolist() == [1.0]


def test_a_graph_without_types_has_facts() -> None:
    reader = FactReader(KnowledgeGraph([Concept("x", "wobble")], [], name="bare"))
    assert reader("A wobble on the left.") == {Fact("x", 1.0, "left")}
