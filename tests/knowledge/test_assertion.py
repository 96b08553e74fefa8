"""The assertion table: our own sentences by phenomenon, and the share that is read right."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.knowledge.linking import EntityLinker
from kvlp.typing import Assertion

TABLE: dict[str, list] = yaml.safe_load(
    Path(__file__).with_name("assertion_sentences.yaml").read_text(encoding="utf-8")
)
REQUIRED_SHARE = 0.97


@pytest.fixture(scope="module")
def linker() -> EntityLinker:
    return EntityLinker(KnowledgeGraph.load("chest"))


def read(linker: EntityLinker, sentence: str) -> dict[str, str]:
    rank = [Assertion.ABSENT, Assertion.UNCERTAIN, Assertion.PRESENT]
    mentions = sorted(linker(sentence), key=lambda m: rank.index(m.assertion))
    return {m.concept: m.assertion.value for m in mentions}


def wrong(linker: EntityLinker, phenomenon: str) -> list[str]:
    misread = []
    for sentence, expected in TABLE[phenomenon]:
        got = read(linker, sentence)
        if any(got.get(c, "none") != a for c, a in expected.items()):
            misread.append(f"{sentence!r}: expected {expected}, got { {c: got.get(c, 'none') for c in expected} }")
    return misread


def test_table_is_large_enough_and_every_row_is_well_formed() -> None:
    rows = [row for rows in TABLE.values() for row in rows]
    assert len(rows) >= 120
    assert len({sentence for sentence, _ in rows}) == len(rows)
    allowed = {*(a.value for a in Assertion), "none"}
    assert all(expected and set(expected.values()) <= allowed for _, expected in rows)


def test_required_share_is_read_right(linker: EntityLinker) -> None:
    n = sum(map(len, TABLE.values()))
    misread = [f"{p}: {line}" for p in TABLE for line in wrong(linker, p)]
    assert 1 - len(misread) / n >= REQUIRED_SHARE, f"{len(misread)} of {n} misread:\n" + "\n".join(misread)


@pytest.mark.parametrize("phenomenon", list(TABLE))
def test_no_phenomenon_is_left_behind(linker: EntityLinker, phenomenon: str) -> None:
    assert len(wrong(linker, phenomenon)) <= max(1, len(TABLE[phenomenon]) // 8), "\n".join(wrong(linker, phenomenon))


def test_concepts_of_the_table_are_in_the_graph() -> None:
    graph = KnowledgeGraph.load("chest")
    assert [c for rows in TABLE.values() for _, e in rows for c in e if c not in graph] == []
