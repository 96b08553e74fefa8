"""Candidates: what is left uncovered, and scispaCy's generator over an index of our own graph."""

from __future__ import annotations

import csv
import logging
import sys
from pathlib import Path

import pytest

from kvlp.errors import ConfigError, MissingExtraError
from kvlp.knowledge.graph import Concept, KnowledgeGraph
from kvlp.knowledge.linking import EntityLinker
from kvlp.knowledge.linking.candidates import CandidateLinker, chunks

CONCEPTS = [
    Concept("edema", "interstitial edema", ("interstitial oedema",), "Fluid.", semantic_types=("finding",)),
    Concept("cardiomegaly", "cardiomegaly", ("cardiac enlargement",), semantic_types=("finding",)),
    Concept("effusion", "pleural effusion", ("pleural fluid",), semantic_types=("finding",)),
    Concept("pneumothorax", "pneumothorax", ("PTX",), semantic_types=("finding",)),
    Concept("left", "left", (), semantic_types=("descriptor",)),
]


@pytest.fixture(scope="module")
def graph() -> KnowledgeGraph:
    return KnowledgeGraph(CONCEPTS, [], name="small")


def words(text: str, covered: list[tuple[int, int]], described: list[tuple[int, int]] | None = None) -> list[list[str]]:
    return [[text[s:e] for s, e in chunk] for chunk in chunks(text, covered, described or [])]


def test_chunks_by_hand() -> None:
    text = "Patchy basal change in the left XXXX region, no effusion but some streaky haze."
    start = text.index("effusion")
    assert words(text, [(start, start + 8)]) == [
        ["Patchy", "basal", "change"],
        ["left"],
        ["region"],
        ["some", "streaky", "haze"],
    ]
    assert words("no big one", []) == []  # nothing of four letters
    assert words("left haze, left", [], [(0, 4), (11, 15)]) == [["left", "haze"]]
    assert words("one two three four five six seven eight", []) == [["three", "four", "five", "six", "seven", "eight"]]


def test_a_missing_extra_is_named(graph: KnowledgeGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scispacy", None)
    with pytest.raises(MissingExtraError, match=r"scispacy is not installed.*kvlp\[knowledge\]"):
        CandidateLinker(graph, folder=tmp_path)


@pytest.mark.parametrize("threshold", [0, 1.1, -1])
def test_a_wrong_threshold_is_refused(graph: KnowledgeGraph, threshold: float) -> None:
    with pytest.raises(ConfigError, match=r"cosine similarity in \(0, 1\]"):
        CandidateLinker(graph, threshold=threshold)


@pytest.mark.slow
def test_candidates_of_phrases_and_of_reports(
    graph: KnowledgeGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("scispacy")
    monkeypatch.setenv("KVLP_CACHE", str(tmp_path))
    candidates = CandidateLinker(graph, threshold=0.6)
    best = candidates(["interstitial edematous", "pleural fluids", "zzz", "", "pleural fluids"])
    assert [c.concept if c else None for c in best] == ["edema", "effusion", None, None, "effusion"]
    assert all(0.6 <= c.similarity <= 1 for c in best if c)
    assert (CandidateLinker(graph, threshold=0.99))(["interstitial edematous"]) == [None]

    text = "No cardiac enlargment or PTX. Left interstitial edematous pattern."
    assert [m.concept for m in EntityLinker(graph, spelling=False)(text)] == ["pneumothorax", "left"]
    mentions = EntityLinker(graph, spelling=False, candidates=candidates)(text)
    found = {m.concept: m for m in mentions if m.concept != "left"}
    assert [(m.concept, m.surface, m.assertion) for m in found.values()][:2] == [
        ("cardiomegaly", "cardiac enlargment", "absent"),
        ("pneumothorax", "PTX", "absent"),
    ]
    assert found["cardiomegaly"].score < 0.9 < found["pneumothorax"].score


@pytest.mark.slow
def test_the_index_is_kept_and_a_damaged_one_made_anew(
    graph: KnowledgeGraph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("scispacy")
    from kvlp.knowledge.linking import candidates as module

    phrases = ["interstitial oedemas", "cardiac enlargements", "pleural fluid level"]
    first = CandidateLinker(graph, threshold=0.3, folder=tmp_path)(phrases)
    (place,) = tmp_path.iterdir()
    assert place.name.startswith(graph.content_hash[:24])
    assert sorted(p.suffix for p in place.iterdir()) == [".hnsw", ".json", ".json", ".npy", ".npz"]

    with monkeypatch.context() as patch:
        patch.setattr(module, "_build", lambda surfaces: pytest.fail("the index was not taken from its folder"))
        assert CandidateLinker(graph, threshold=0.3, folder=tmp_path)(phrases) == first

    index = place / "surfaces.hnsw"
    index.write_bytes(index.read_bytes()[:-9])
    with caplog.at_level(logging.WARNING):
        assert CandidateLinker(graph, threshold=0.3, folder=tmp_path)(phrases) == first
    assert "damaged and is made anew" in caplog.text
    other = KnowledgeGraph(CONCEPTS[:2], [], name="smaller")
    CandidateLinker(other, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
def test_what_candidates_add_to_real_reports(kvlp_data: Path, tmp_path: Path) -> None:
    """With `-s`: how much they add at some thresholds. What is there already does not change."""
    pytest.importorskip("scispacy")
    file = kvlp_data / "reports" / "iu_xray_reports.csv"
    if not file.is_file():
        pytest.skip(f"no {file.name} in the folder of real data")
    with file.open(encoding="utf-8", newline="") as lines:
        rows = [r for r in csv.DictReader(lines) if r["split"] == "dev"]
    texts = [f"FINDINGS: {r['findings']}\nIMPRESSION: {r['impression']}" for r in rows]
    chest = KnowledgeGraph.load("chest")
    without = EntityLinker(chest).link_many(texts)
    for threshold in (0.95, 0.9, 0.85, 0.8):
        candidates = CandidateLinker(chest, threshold=threshold, folder=tmp_path)
        with_them = EntityLinker(chest, candidates=candidates).link_many(texts)
        places = [[{(m.concept, m.start, m.end) for m in found} for found in read] for read in (without, with_them)]
        added = [len(more - few) for few, more in zip(*places, strict=True)]
        kept = sum(len(more & few) for few, more in zip(*places, strict=True))
        print(
            f"\nthreshold {threshold}: {sum(added)} mentions added in {sum(map(bool, added))} of {len(texts)} reports"
        )
        assert kept >= 0.99 * sum(map(len, places[0]))
