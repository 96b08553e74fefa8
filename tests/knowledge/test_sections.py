"""Sections and sentences: names, spans, abbreviations, wrapped lines."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvlp.knowledge.sections import SECTION_NAMES, split_sections, split_sentences


def sections(text: str) -> list[tuple[str, str]]:
    return [(s.name, text[s.start : s.end].strip()) for s in split_sections(text)]


def sentences(text: str) -> list[str]:
    return [text[s:e] for s, e in split_sentences(text)]


def test_text_without_headers_is_one_section() -> None:
    assert sections("Clear lungs. No effusion.") == [("other", "Clear lungs. No effusion.")]


def test_headers_on_one_line_and_on_lines_of_their_own() -> None:
    flat = "INDICATION: Cough. COMPARISON: None. FINDINGS: Clear lungs. IMPRESSION: Normal."
    lines = "CLINICAL HISTORY\nCough.\n\nFINDINGS\nClear lungs.\n\nIMPRESSION\nNormal."
    assert sections(flat) == [
        ("indication", "Cough."),
        ("comparison", "None."),
        ("findings", "Clear lungs."),
        ("impression", "Normal."),
    ]
    assert sections(lines) == [("indication", "Cough."), ("findings", "Clear lungs."), ("impression", "Normal.")]


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("Reason for exam", "indication"),
        ("Clinical Information", "indication"),
        ("Comparison", "comparison"),
        ("Technique", "technique"),
        ("Findings", "findings"),
        ("Conclusion", "impression"),
        ("**Impression**", "impression"),
    ],
)
def test_header_words(header: str, name: str) -> None:
    assert sections(f"{header}: Something here.") == [(name, "Something here.")]


def test_words_of_a_header_inside_a_sentence_are_no_header() -> None:
    assert sections("In comparison with the prior study: no change.") == [
        ("other", "In comparison with the prior study: no change.")
    ]
    assert [n for n, _ in sections("The findings: none. A history: of cough.")] == ["other"]


def test_text_before_the_first_header_is_other() -> None:
    assert sections("Portable chest.\nFindings: Clear.") == [("other", "Portable chest."), ("findings", "Clear.")]


def test_windows_line_ends() -> None:
    assert sections("Findings: a\r\nImpression: b\r\n") == [("findings", "a"), ("impression", "b")]


def test_full_stops_that_end_no_sentence() -> None:
    assert sentences("Atelectasis vs. pneumonia. A 1.5 cm nodule, seen by Dr. A. Smith.") == [
        "Atelectasis vs. pneumonia.",
        "A 1.5 cm nodule, seen by Dr. A. Smith.",
    ]


def test_missing_blank_behind_a_full_stop() -> None:
    assert sentences("No effusion.The heart is large.") == ["No effusion.", "The heart is large."]


def test_line_breaks() -> None:
    assert sentences("There is no\npleural effusion.") == ["There is no\npleural effusion."]
    assert sentences("evidence of\nCHF is seen") == ["evidence of\nCHF is seen"]
    assert sentences("Heart normal\nLungs clear") == ["Heart normal", "Lungs clear"]
    assert sentences("1. No effusion\n2. Normal heart") == ["1. No effusion", "2. Normal heart"]
    assert sentences("no effusion\n\nheart large") == ["no effusion", "heart large"]


def test_question_marks() -> None:
    assert sentences("Effusion? Yes.") == ["Effusion?", "Yes."]
    assert sentences("Cough, ? pneumonia.") == ["Cough, ? pneumonia."]


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="abN. :\n\r-?;FINDGSfindigs,(", max_size=80))
def test_spans_lie_in_order_inside_the_text(text: str) -> None:
    last = 0
    for section in split_sections(text):
        assert last <= section.start < section.end <= len(text)
        assert section.name in SECTION_NAMES
        last = section.end
        at = section.start
        for start, end in split_sentences(text, section.start, section.end):
            assert at <= start < end <= section.end
            assert text[start:end] == text[start:end].strip()
            at = end


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ab.N \n?", max_size=60))
def test_sentences_lose_no_letter(text: str) -> None:
    joined = "".join("".join(s.split()) for s in sentences(text))
    assert joined == "".join(text.split())
