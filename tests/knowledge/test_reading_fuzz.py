"""Random and mutated report texts: no exception, spans inside the text, one answer, time linear in length."""

from __future__ import annotations

import os
import random
import string
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from kvlp.errors import DataError
from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.knowledge.linking import EntityLinker, Mention

SHARE = float(os.environ.get("KVLP_SLOW_SHARE", "1"))
SENTENCES = [
    "FINDINGS: The heart size is normal.", "No pleural effusion or pneumothorax.", "IMPRESSION:",
    "1. Stable cardiomegaly.",
    "Possible left lower lobe pneumonia versus atelectasis.", "Comparison: None.", "A right PICC ends in the SVC.",
    "Interval improvement of the mild pulmonary edema, which cannot be excluded.", "? consolidation", "r/o PE",
    "chronic obstructive pulmonary disease (COPD) is unchanged; COPD", "No XXXX of effusion.", "12 mm nodule - old.",
    "Pneumothorax: no", "INDICATION: 45 y/o with cough, history of CHF", "Pleural or pericardial effusion is not seen.",
]  # fmt: skip
ODD = [
    "\u00ad", "\u200b", "ﬁ", "İ", "ß", "\u0301", "𝐀", "\ud800", "\uffff", "\x00", "\r", "\n", "\r\n", "\t",
    "--", "…", "🫁", "(", ")", "[", "?", "!", "..", ",", ";", ":", "/", " - ", "\u2013", "&", "_",
    "%s", "{}", "\\", '"', "'", "1.", "胸", "лёгкие",
]  # fmt: skip


@pytest.fixture(scope="module")
def linker() -> EntityLinker:
    return EntityLinker(KnowledgeGraph.load("chest"), language=None)


def made(rng: random.Random, words: list[str]) -> str:
    """A text of sentences, words, odd characters and noise, with some edits."""
    kinds = [
        lambda: rng.choice(SENTENCES),
        lambda: " ".join(rng.choices(words, k=rng.randint(1, 9))),
        lambda: rng.choice(ODD),
        lambda: "".join(rng.choices(string.printable, k=rng.randint(1, 12))),
        lambda: chr(rng.randrange(0x110000)),
    ]
    weights = rng.choice([(8, 1, 1, 0, 0), (3, 3, 3, 1, 1), (0, 6, 6, 1, 1), (0, 0, 1, 4, 4)])
    parts = [make() for make in rng.choices(kinds, weights, k=rng.randint(0, 10))]
    text = rng.choice([" ", " ", "", "\n"]).join(parts)
    for _ in range(rng.choice([0, 0, 1, 5])):
        at = rng.randint(0, len(text))
        text = (
            text[:at]
            + rng.choice(["", " ", rng.choice(ODD), text[at : at + 9].upper()])
            + text[at + rng.randint(0, 3) :]
        )
    return text.upper() if rng.random() < 0.05 else text


def texts(linker: EntityLinker, count: int, seed: int) -> Iterator[str]:
    rng = random.Random(seed)
    words = [w for phrase in list(linker._sentence.dictionary._meanings)[::7] for w in phrase.split()]
    for _ in range(count):
        yield made(rng, words)


def check(linker: EntityLinker, text: str) -> list[Mention]:
    mentions = linker(text)
    for m in mentions:
        assert 0 <= m.start < m.end <= len(text)
        assert text[m.start : m.end] == m.surface
        assert 0 < m.score <= 1
        if m.trigger is not None:
            assert m.trigger_start is not None
            assert m.trigger_end is not None
            assert text[m.trigger_start : m.trigger_end] == m.trigger
        for _, start, end in m.cues:
            assert 0 <= start < end <= len(text)
    return mentions


def test_a_few_made_texts(linker: EntityLinker) -> None:
    found = sum(len(check(linker, text)) for text in texts(linker, 300, seed=1))
    assert found > 300


@pytest.mark.parametrize("text", ["ed eİmphysema", "EFFUSİON effusİion"])
def test_texts_that_failed_once(linker: EntityLinker, text: str) -> None:
    check(linker, text)


@pytest.mark.slow
def test_100_000_made_texts(linker: EntityLinker) -> None:
    plain = EntityLinker(KnowledgeGraph.load("chest"), language=None, remember=0)
    english = EntityLinker(KnowledgeGraph.load("chest"))
    for n, text in enumerate(texts(linker, max(500, int(100_000 * SHARE)), seed=int(os.environ.get("SLOW_SEED", "0")))):
        mentions = check(linker, text)
        assert linker(text) == mentions
        if n % 10 == 0:
            assert plain(text) == mentions
            with suppress(DataError):  # another language
                assert english(text) == mentions


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["reports", "one sentence", "one word", "commas", "breaks", "unknown words", "brackets"]
)
def test_a_megabyte_takes_four_times_as_long_as_a_quarter(linker: EntityLinker, kind: str) -> None:
    unit = {
        "reports": " ".join(SENTENCES) + "\n",
        "one sentence": "no effusion or mass in the left lung and ",
        "one word": "effusion",
        "commas": "no effusion, ",
        "breaks": "\n \n- ",
        "unknown words": "qzefusion ",
        "brackets": "lung (LU) ( ",
    }[kind]

    def seconds(size: int) -> float:
        text = unit * (size // len(unit))
        linker.forget()
        start = time.process_time()
        linker(text)
        return time.process_time() - start

    small = min(seconds(250_000) for _ in range(2))
    assert seconds(1_000_000) < 4 * 2.5 * max(small, 0.02)
