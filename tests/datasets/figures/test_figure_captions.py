"""Captions taken apart: ways of labelling, text that all panels share, and captions that name no panel."""

import numpy as np
import pytest

from kvlp.datasets.figures.captions import split_caption
from kvlp.datasets.figures.jats import Caption
from kvlp.datasets.figures.planted.captions import STYLES, write_caption

SPLIT = [
    ("(A) One. (B) Two.", {"a": "One.", "b": "Two."}),
    ("a, b) One. c) Two.", {"a": "One.", "b": "One.", "c": "Two."}),
    ("(A-C) One. (D) Two; three.", {"a": "One.", "b": "One.", "c": "One.", "d": "Two; three."}),
    ("Title. A: one. B, C: two.", {"a": "one.", "b": "two.", "c": "two."}),
    ("A, One is seen. B, Two is seen.", {"a": "One is seen.", "b": "Two is seen."}),
    ("Panel A shows one. Panel B shows two.", {"a": "shows one.", "b": "shows two."}),
    ("(a) One. (b) Two. (c) Three.", {"a": "One.", "b": "Two.", "c": "Three."}),
    ("(i) One. (ii) Two. (iii) Three. (iv) Four.", {"i": "One.", "ii": "Two.", "iii": "Three.", "iv": "Four."}),
    ("Axial (A) and coronal (B) CT shows it.", {"a": "Axial CT shows it.", "b": "coronal CT shows it."}),
    ("One (A). Two (B).", {"a": "One", "b": "Two"}),
    ("One (A, arrow) and two (B, star).", {"a": "One (arrow)", "b": "two (star)"}),
    ("CT (A: axial, B: coronal).", {"a": "axial", "b": "coronal."}),
    ("(A, B) Both. (A) One. (B) Two.", {"a": "Both. One.", "b": "Both. Two."}),
    ("(A) As in (B). (B) Two.", {"a": "As in (B).", "b": "Two."}),
    ("One (A) and two (B). The mass in (A) is large.", {"a": "One. The mass in (A) is large.", "b": "two"}),
    ("(A and B) One. (C through E) Two.", {"a": "One.", "b": "One.", "c": "Two.", "d": "Two.", "e": "Two."}),
    ("Left panel: one. Right panel: two.", {"left": "one.", "right": "two."}),
    ("Film before (left) and after (right).", {"left": "Film before", "right": "after"}),
    ("Upper row: one. Lower row: two.", {"top": "one.", "bottom": "two."}),
    ("Case 1: Top left, one. Top right, two.", {"top left": "one.", "top right": "two."}),
]


@pytest.mark.parametrize(("text", "parts"), SPLIT, ids=[text[:30] for text, _ in SPLIT])
def test_split(text, parts):
    split = split_caption(text)
    assert {part.label: part.text for part in split.parts} == parts


@pytest.mark.parametrize(
    "text",
    [
        "The role of vitamin (A) in bone.",
        "(B) alone, without what comes before it.",
        "A 45-year-old man with cough.",
        "CT with a mass in the left lung (arrow); the right lung is clear.",
        "Groups (A) and (C) differ.",
        "Mean (I) and range.",
        "",
    ],
)
def test_captions_that_name_no_panels_stay_whole(text):
    assert split_caption(text).parts == ()
    assert split_caption(text).text == text


def test_what_is_said_of_all_is_kept_for_each():
    split = split_caption("Chest CT. (A) One. (B) Two. Scale bar: 5 cm.")
    assert split.shared == "Chest CT. Scale bar: 5 cm."
    assert [part.whole for part in split.parts] == [
        "Chest CT. One. Scale bar: 5 cm.",
        "Chest CT. Two. Scale bar: 5 cm.",
    ]


def test_an_initial_and_an_abbreviation_end_no_sentence():
    split = split_caption("Seen by Dr. Smith vs. B. Jones (A) and later (B). Both agree.")
    assert split.shared == "Both agree."


def test_bold_letters_are_labels_without_any_bracket():
    assert split_caption("a Axial. b Coronal.").parts == ()
    split = split_caption(Caption("a Axial. b Coronal.", ((0, 1), (9, 10))))
    assert {part.label: part.text for part in split.parts} == {"a": "Axial.", "b": "Coronal."}


def test_the_order_is_that_of_the_alphabet():
    assert split_caption("(A) One. (C) Three. (B) Two.").labels == ("a", "b", "c")


@pytest.mark.parametrize("style", STYLES)
def test_every_planted_way_of_writing_comes_apart_as_planted(style):
    from kvlp.datasets.figures.jats import read_article
    from kvlp.datasets.figures.planted.packages import PlantedFigure, article_files

    rng = np.random.default_rng(7)
    for count in (2, 3, 5):
        planted = write_caption(["ct", "radiograph", "mr", "photograph", "plot"][:count], rng, style)
        figure = PlantedFigure(b"", ".jpg", planted.markup, ())
        caption = read_article(article_files("PMC1", {"F1": figure})["PMC1.nxml"]).figures[0].caption
        found = {part.label: part.whole.rstrip(".") for part in split_caption(caption).parts}
        assert {label: _plain(text) for label, text in found.items()} == {
            label: _plain(text) for label, text in planted.texts.items()
        }


def _plain(text):
    return "".join(letter for letter in text.lower() if letter.isalnum())


@pytest.mark.timeout(30)  # a quadratic search would take minutes
@pytest.mark.parametrize("text", ["a, " * 6000, "(a" * 9000, "a-" * 9000, "," * 19_000, "A. " * 6000, "a" * 30_000])
def test_hostile_captions_come_to_an_end(text):
    assert split_caption(text).text == text.strip()
