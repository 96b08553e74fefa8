"""A text read piece by piece has the sections and sentences of the whole text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.knowledge.linking import EntityLinker
from kvlp.knowledge.linking.pieces import FIRST, cut, sentences_of
from kvlp.knowledge.sections import split_sections, split_sentences

WORDS = [
    "FINDINGS", "Impression", "IMPRESSION", "Clear", "lungs", "no", "Dr", "e.g", "A", "1", "12", "of", "vs", "CT chest",
]  # fmt: skip
GLUE = [
    " ", " ", ". ", ". ", ".\n", ".", ": ", ":", ":\n", " - ", "-\t", "- ", "\n", "\n\n", "\r\n", "? ", "!", "..",
    '." ', ".)", "\t", "* ", "\0", ".\0 ", "^", "\u00a0", ".\u00a0", "  ",
]  # fmt: skip
TEXTS = st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(GLUE)).map("".join), max_size=14).map("".join)


def of_the_whole(text: str) -> list[tuple[str, int, int]]:
    return [(s.name, a, b) for s in split_sections(text) for a, b in split_sentences(text, s.start, s.end)]


def of_pieces(text: str) -> list[tuple[str, int, int]]:
    """As the linker does it, without a limit to how many pieces belong together."""
    found, section, start, held = [], "other", -len(FIRST), ""
    pieces = cut(text)
    for number, piece in enumerate(pieces, 1):
        whole = held + piece
        sentences = sentences_of(whole, last=number == len(pieces))
        held = whole if sentences is None else ""
        for name, a, b in sentences or ():
            section = name or section
            found.append((section, start + a, start + b))
        start += 0 if sentences is None else len(whole)
    return found


@given(TEXTS)
def test_pieces_make_the_text_and_its_sentences(text: str) -> None:
    assert FIRST + text == "".join(cut(text))
    assert of_pieces(text) == of_the_whole(text)


@pytest.mark.parametrize(
    ("piece", "expected"),
    [
        ("^Clear lungs.", [(None, 1, 13)]),
        (" Clear lungs.", [(None, 1, 13)]),
        (" FINDINGS - Clear.", [("findings", 12, 18)]),
        ("\nIMPRESSION: Clear? Dr. No.", [("impression", 13, 19), (None, 20, 27)]),
        (" 1.", None),
        (" Seen by Dr.", None),
        ("^FINDINGS:", []),
    ],
)
def test_sentences_of_a_piece(piece: str, expected: list[tuple[str | None, int, int]] | None) -> None:
    assert sentences_of(piece, last=not piece.endswith(".")) == expected


def test_what_a_piece_says_depends_on_the_sections_and_capitals_around_it() -> None:
    linker, plain = (EntityLinker(KnowledgeGraph.load("chest"), remember=size) for size in (100, 0))
    texts = [
        "INDICATION: Cough. Effusion. FINDINGS: No mass. Effusion.",
        "Effusion. IMPRESSION: Effusion. 1. 2. 3. 4. 5. No mass.",
        "EFFUSION. PA OF MASS.", "Effusion. PA of mass. Effusion", "No eff.", "No mass vs. nodule.",
        "pectus excavatum (PE). PE.",
    ]  # fmt: skip
    for text in texts * 2:
        assert linker(text) == plain(text)
    assert [m.section for m in linker(texts[0])] == ["indication", "indication", "findings", "findings"]
