"""Spelling tolerance: planted slips are found and ruled on, what is spelt right stays, near names stay apart."""

from __future__ import annotations

import csv
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.knowledge.linking import EntityLinker
from kvlp.knowledge.linking.fuzzy import Spelling, distance
from kvlp.knowledge.linking.rewriting import Edit, Rewriting

#: (sentence, words to misspell)
SENTENCES = [
    ("There is a small pleural effusion on the left.", ("pleural", "effusion")),
    ("No pneumothorax is seen.", ("pneumothorax",)),
    ("Mild cardiomegaly with pulmonary edema.", ("cardiomegaly", "pulmonary", "edema")),
    ("Bibasilar atelectasis has improved.", ("atelectasis",)),
    ("The endotracheal tube ends above the carina.", ("endotracheal", "carina")),
    ("Possible consolidation in the right lower lobe.", ("consolidation", "lower")),
    ("Calcified granuloma in the left upper lobe.", ("calcified", "granuloma")),
    ("Chronic interstitial opacities without focal infiltrate.", ("interstitial", "opacities", "infiltrate")),
    ("Bilateral pulmonary nodules, likely metastases.", ("pulmonary", "nodules")),
    ("No evidence of pneumonia or emphysema.", ("pneumonia", "emphysema")),
    ("Healed rib fracture and mild scoliosis.", ("fracture", "scoliosis")),
    ("Subcutaneous emphysema over the chest wall.", ("subcutaneous",)),
    ("The pacemaker is unchanged, hiatal hernia again seen.", ("pacemaker", "hiatal", "hernia")),
    ("Pneumoperitoneum cannot be excluded.", ("pneumoperitoneum",)),
    ("Mediastinal lymphadenopathy suggests sarcoidosis.", ("mediastinal", "lymphadenopathy", "sarcoidosis")),
    ("Hyperinflation, as in chronic bronchitis.", ("hyperinflation", "bronchitis")),
]  # fmt: skip


@pytest.fixture(scope="module")
def linker() -> EntityLinker:
    return EntityLinker(KnowledgeGraph.load("chest"))


def slips(word: str, rng: random.Random) -> Iterator[str]:
    """One slip of each kind, behind the first letter."""
    k = rng.randrange(1, len(word) - 1)
    letter = rng.choice("abcdefghijklmnopqrstuvwxyz")
    yield word[:k] + word[k + 1 :]
    yield word[:k] + letter + word[k:]
    yield word[:k] + word[k + 1] + word[k] + word[k + 2 :]
    yield word[:k] + letter + word[k + 1 :]


def test_planted_slips_are_found(linker: EntityLinker) -> None:
    graph = KnowledgeGraph.load("chest")
    rng = random.Random(0)
    right = wrong = total = 0
    for sentence, words in SENTENCES:
        wanted = {(m.concept, m.assertion) for m in linker(sentence)}
        for word in words:
            for slip in (s for s in slips(word, rng) if s != word):
                total += 1
                found = {(m.concept, m.assertion) for m in linker(sentence.replace(word, slip))}
                right += found == wanted
                known = set.union(*({c, *graph.ancestors(c)} for c, _ in wanted))
                new = {c for c, _ in found} - known
                wrong += any(set(graph[c].semantic_types) & {"finding", "disease"} for c in new)
    print(f"\n{total} slips: {right / total:.3f} read as if spelt right, {wrong} with another finding")
    assert total > 100
    assert right / total >= 0.9
    assert wrong == 0


@pytest.mark.parametrize(
    ("text", "concept", "surface", "assertion", "trigger"),
    [
        ("Withuot pneumothroax.", "pneumothorax", "pneumothroax", "absent", "Withuot"),
        ("No evidnce of pneumothorax.", "pneumothorax", "pneumothorax", "absent", "No evidnce of"),
        ("Small pleuraleffusion.", "pleural_effusion", "pleuraleffusion", "present", None),
        ("nopneumothorax", "pneumothorax", "pneumothorax", "absent", "no"),
        ("Right effu sion.", "pleural_effusion", "effu sion", "present", None),
        ("Right effu-\nsion.", "pleural_effusion", "effu-\nsion", "present", None),
        ("NO PNEUMOTHROAX", "pneumothorax", "PNEUMOTHROAX", "absent", "NO"),
        ("Pneumothroax cannot be exluded.", "pneumothorax", "Pneumothroax", "uncertain", "cannot be exluded"),
    ],
)
def test_rules_hold_for_what_is_misspelt(
    linker: EntityLinker, text: str, concept: str, surface: str, assertion: str, trigger: str | None
) -> None:
    (mention,) = [m for m in linker(text) if m.concept == concept]
    assert (mention.surface, mention.assertion, mention.trigger) == (surface, assertion, trigger)
    assert text[mention.start : mention.end] == surface
    if trigger is not None:
        assert text[mention.trigger_start : mention.trigger_end] == trigger


def test_a_misspelt_mention_scores_less(linker: EntityLinker) -> None:
    scores = [linker(text)[0].score for text in ("pneumothorax", "pneumothroax", "pneumothroxa")]
    assert scores == [1.0, 0.9, 0.8]


def test_spelling_can_be_turned_off() -> None:
    assert EntityLinker(KnowledgeGraph.load("chest"), spelling=False)("pneumothroax") == []


@pytest.mark.parametrize(
    ("surfaces", "word"),
    [
        (["hypertension"], "hypotension"),  # a word of its own
        (["hypertension", "hypotension"], "hyptension"),  # two fit
        (["hypertension"], "hyptension"),  # the other one fits too, though the graph does not have it
        (["peritoneal fluid"], "perineal"),
        (["ilium"], "ileum"),
        (["pneumothorax"], "pneumoperitoneum"),
        (["calcified granuloma"], "uncalcified"),
        (["calcified granuloma"], "noncalcified"),
        (["humerus"], "humira"),
        (["streaky", "streakies"], "streakiness"),  # a known word with an ending
        (["scoliosis"], "scoliotic"),  # the same stem with another ending
        (["lobulated", "lingual"], "loculated"),
        (["lingual"], "lingula"),  # a word of the bundled graph, whatever graph is used
        (["effusion"], "effxxxon"),
        (["mass"], "masss"),  # too short
        (["costal", "coastal"], "cosstal"),  # as near to both
    ],
)
def test_near_words_that_mean_something_else_stay(surfaces: list[str], word: str) -> None:
    assert Spelling(surfaces, []).edits(word) == []


def test_a_name_in_the_middle_of_a_sentence_stays() -> None:
    spelling = Spelling(["nodule"], [])
    assert spelling.edits("seen by Nodukle today") == []
    assert [e.text for e in spelling.edits("Nodukle today")] == ["Nodule"]


def test_accents_are_no_slips() -> None:
    assert Spelling(["pulmonary oedema"], []).edits("pulmonary \u00f6edema, oe\u0301dema, oede\u00adma") == []


@pytest.mark.parametrize(
    ("a", "b", "slips"),
    [("kitten", "sitting", 3), ("ab", "ba", 1), ("abc", "abc", 0), ("", "ab", 2), ("ca", "abc", 3), ("a", "abcde", 4)],
)
def test_distance_by_hand(a: str, b: str, slips: int) -> None:
    assert distance(a, b, 9) == slips
    assert distance(a, b, slips) == slips
    assert slips == 0 or distance(a, b, slips - 1) == slips


def test_the_index_finds_what_comparing_all_finds() -> None:
    rng = random.Random(1)
    words = sorted({"".join(rng.choices("abc", k=rng.randint(5, 12))) for _ in range(200)})
    index = Spelling(words, [])._index
    for word in words[:30]:
        for typed in slips(word, rng):
            most = 2 if len(typed) >= 9 else 1
            slow = {w for w in words if distance(typed, w, most) <= min(most, 2 if len(w) >= 9 else 1)}
            assert slow <= index.near(typed)


def test_a_text_of_unknown_words_is_left_alone_and_long_ones_are_linear() -> None:
    rng = random.Random(2)
    spelling = Spelling(["pneumothorax"], [])
    nonsense = [f"pneumothora{''.join(rng.choices('bcdfg', k=4))}" for _ in range(150)]
    assert spelling.edits(" ".join([*nonsense, "pneumothroax"])) == []
    assert len(spelling.edits(" ".join([*nonsense[:50], "pneumothroax"]))) == 1
    for words in (
        ["".join(rng.choices("abcdefghij", k=8)) for _ in range(60_000)],
        ["the lung pneumothroax."] * 30_000,
    ):
        text = " ".join(words)
        start = time.process_time()
        spelling.edits(text)
        assert time.process_time() - start < 5


# ---- rewritten texts -------------------------------------------------------------------------------------------------


def test_spans_go_back_by_hand() -> None:
    raw = "no efusion or  ptx"
    rewriting = Rewriting(
        raw, [Edit(3, 10, "effusion", 0.9), Edit(15, 18, "pneumothorax", 0.8), Edit(13, 15, " ", 1.0)]
    )
    assert rewriting.text == "no effusion or pneumothorax"
    assert rewriting.span(0, 2) == (0, 2)
    assert rewriting.span(3, 11) == (3, 10)
    assert rewriting.span(12, 14) == (11, 13)
    assert rewriting.span(15, 27) == rewriting.span(18, 20) == (15, 18)
    assert [rewriting.score(*s) for s in ((0, 2), (0, 4), (3, 27), (12, 14))] == [1.0, 0.9, 0.8, 1.0]


@given(
    st.text("ab ", max_size=30), st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5), st.text("xy", max_size=4)))
)
@settings(max_examples=100, deadline=None)
def test_spans_always_lie_in_the_raw_text(raw: str, rows: list[tuple[int, int, str]]) -> None:
    edits = [Edit(a, a + n, put, 0.5) for a, n, put in rows if a + n <= len(raw)]
    rewriting = Rewriting(raw, edits)
    for start in range(len(rewriting.text)):
        first, last = rewriting.span(start, start + 1)
        assert 0 <= first <= last <= len(raw)
        assert rewriting.text[start] in "xy" or raw[first:last] == rewriting.text[start]


# ---- real reports ----------------------------------------------------------------------------------------------------


def test_real_reports_keep_their_mentions(kvlp_data: Path, linker: EntityLinker) -> None:
    """Reports are mostly spelt right: what spelling adds rests on a word put right, or stands around one."""
    file = kvlp_data / "reports" / "iu_xray_reports.csv"
    if not file.is_file():
        pytest.skip(f"no {file.name} in the folder of real data")
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    texts = [f"INDICATION: {r['indication']}\nFINDINGS: {r['findings']}\nIMPRESSION: {r['impression']}" for r in rows]
    spelling = linker._menders[0]
    mended = [t for t in texts if spelling(t)]
    strict = EntityLinker(KnowledgeGraph.load("chest"), spelling=False)
    added = [
        m for t in mended for m in linker(t) if (m.concept, m.start) not in {(x.concept, x.start) for x in strict(t)}
    ]
    kinds = Counter(m.score < 1 for m in added)
    print(f"\n{len(texts)} reports, {len(mended)} with a word put right; {len(added)} added, {kinds[True]} misspelt")
    assert len(mended) / len(texts) < 0.02
    assert len(added) < 30
