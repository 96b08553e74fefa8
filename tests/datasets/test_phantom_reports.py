"""The phantom's reports: true to the picture, varied, and silent on unseen names."""

import re
from collections import Counter

import numpy as np
import pytest

from kvlp.datasets.phantom import DEVICES, SEEN, UNSEEN, UNSEEN_FINAL, Case, FindingSpec, write_report
from kvlp.datasets.phantom.generate import patient_cases
from kvlp.datasets.phantom.reports import descriptions, forbidden_surfaces, names_unseen, wording
from kvlp.errors import KnowledgeError
from kvlp.knowledge.graph import Concept, KnowledgeGraph

ALL_UNSEEN = UNSEEN + UNSEEN_FINAL


@pytest.fixture(scope="module")
def graph():
    return KnowledgeGraph.load("chest")


@pytest.fixture(scope="module")
def told(graph):
    """2,000 and more (case, report) pairs."""
    cases = [c for p in range(1640) for c in patient_cases(77, p)]
    return [(c, write_report(c, graph, np.random.default_rng(c.seed))) for c in cases]


def test_no_report_names_an_unseen_finding(told, graph):
    assert len(told) >= 2000
    assert len(forbidden_surfaces(graph)) > 100
    named = Counter(surface for _, text in told for surface in names_unseen(text, graph))
    assert not named


def test_the_check_itself_sees_names_synonyms_and_descendants(graph):
    assert names_unseen("Left HYDRO-PNEUMOTHORAX.", graph)
    assert names_unseen("There is free air under the diaphragm.", graph)
    for name in ALL_UNSEEN:
        for concept in (name, *graph.descendants(name)):
            assert names_unseen(f"Seen: {graph[concept].name}.", graph)
    assert not names_unseen("Small left pleural effusion.", graph)


def test_no_wording_names_an_unseen_finding(graph):
    data = wording()
    texts = re.findall(r'"([^"]*)"', str(data).replace("'", '"'))
    assert len(texts) > 150
    assert not [t for t in texts if " " in t and names_unseen(t, graph)]


def test_unseen_findings_are_described_in_the_graphs_words(told, graph):
    shares = []
    for name in ALL_UNSEEN:
        texts = [text.lower() for case, text in told if name in case.findings]
        said = np.mean([any(d.lower() in text for d in graph[name].descriptions) for text in texts])
        assert len(texts) > 100
        assert 0.72 <= said <= 0.95, name
        shares.append(said)
    assert 0.81 <= np.mean(shares) <= 0.89


def test_described_absence_is_rare(told, graph):
    words = [d.lower() for name in ALL_UNSEEN for d in graph[name].descriptions]
    denied = [any(f"no {w}" in text.lower() for w in words) for _, text in told]
    assert 0.01 < np.mean(denied) < 0.09


def test_seen_findings_are_sometimes_left_out(told):
    nouns = {name: [n.split()[-1] for n in e["nouns"]] for name, e in wording()["findings"].items()}
    silent = [
        not any(n in text for n in nouns["hyperinflation"]) and "hyper" not in text.lower()
        for case, text in told
        if "hyperinflation" in case.findings
    ]
    assert 0.03 < np.mean(silent) < 0.15


def test_reports_deny_several_findings_and_vary(told):
    denials = [len(re.findall(r"\b(?:No|no|Without|not|Negative)\b", text)) for _, text in told]
    assert np.mean(denials) > 2
    assert len({text for _, text in told}) > 0.97 * len(told)
    assert all("FINDINGS: " in text for _, text in told)
    assert 0.75 < np.mean(["IMPRESSION: " in text for _, text in told]) < 0.95
    assert 0.2 < np.mean(["INDICATION: " in text for _, text in told]) < 0.5


def test_uncertainty_goes_with_difficulty(graph):
    def doubts(difficulty: str) -> float:
        case = Case(1, 1).adding(FindingSpec("pneumothorax", "left", 2, difficulty))
        texts = [write_report(case, graph, np.random.default_rng(i)) for i in range(300)]
        return float(np.mean([bool(re.search("ossible|may|cannot|uestionable|suspect", t)) for t in texts]))

    assert doubts("easy") < 0.15
    assert doubts("hard") > 0.3


def test_sides_and_places_are_the_patients(graph):
    for side, other in (("left", "right"), ("right", "left")):
        case = Case(1, 1).adding(FindingSpec("lung_nodule", side, 2, "easy", "upper"))
        texts = [write_report(case, graph, np.random.default_rng(i)) for i in range(200)]
        assert not any(f"{other} upper zone" in t or f"{other} lower" in t for t in texts)
        assert np.mean([f"{side} upper zone" in t for t in texts]) > 0.7


def test_comparison_phrases_follow_the_study_before(graph):
    now = Case(1, 1).adding(FindingSpec("lung_mass", "left", 2, "easy", "upper"))
    same = Case(1, 1, "PA", now.findings, {}, ("lung_mass",))
    fresh = Case(1, 1, "PA", now.findings, {}, ("pneumothorax",))
    old = " ".join(write_report(same, graph, np.random.default_rng(i)) for i in range(60))
    new = " ".join(write_report(fresh, graph, np.random.default_rng(i)) for i in range(60))
    assert re.search("Unchanged|Stable|Persistent|Again seen", old)
    assert not re.search("New |new since|Interval development", old)
    assert re.search("New |new since|Interval development", new)
    assert re.search("pneumothorax (has resolved|is no longer)|resolution of the pneumothorax", new)


def test_grammar_of_common_slips(told):
    slips = Counter()
    for _, text in told:
        for m in re.finditer(r"\b(\w+) \1\b|\ba [aeio]\w+|\ban [bcdfgjklmnpqrtvw]\w+|\{|\}| ,| \.|\.\.|  ", text):
            slips[m.group(0)] += 1
    assert not slips
    assert not [t for _, t in told if re.search("(mild|moderate|severe|slight|marked) enlarged", t)]


def test_same_state_same_report(graph):
    case = patient_cases(1, 1)[0]
    assert write_report(case, graph, np.random.default_rng(4)) == write_report(case, graph, np.random.default_rng(4))


def test_mentions_in_reports_agree_with_the_picture(told, graph):
    """The reader of reports and the phantom check each other: findings that reports name are in the picture."""
    from kvlp.knowledge.linking import EntityLinker
    from kvlp.typing import Assertion

    linker = EntityLinker(graph)
    wrong, right = Counter(), Counter()
    for case, text in told[:300]:
        for m in linker(text):
            if m.section in ("indication", "comparison") or m.concept not in SEEN:
                continue
            truth = case.labels.get(m.concept)
            if truth is None or m.assertion == Assertion.UNCERTAIN:
                continue
            hit = (m.assertion == Assertion.PRESENT) == bool(truth)
            (right if hit else wrong)[m.concept] += 1
    assert sum(right.values()) > 1200
    assert sum(wrong.values()) < 0.02 * sum(right.values()), wrong


def test_devices_are_named_and_denied_truly(told, graph):
    from kvlp.knowledge.labels import labels_from_mentions
    from kvlp.knowledge.linking import EntityLinker

    linker, said = EntityLinker(graph), Counter()
    for case, text in told[:600]:
        for name, value in labels_from_mentions(linker(text), list(DEVICES), graph).items():
            if value in (0, 1):
                assert value == (name in case.devices), text
                said[name, value] += 1
    assert all(said[name, value] >= 25 for name in DEVICES for value in (0, 1)), said


def test_a_graph_without_descriptions_is_refused():
    bare = KnowledgeGraph([Concept("bulla", "bulla")], [], name="bare")
    with pytest.raises(KnowledgeError, match="descriptions of bulla"):
        descriptions(bare, "bulla")
