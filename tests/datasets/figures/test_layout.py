"""Panels found by layout, letters read, panels and sub-captions brought together, kinds of picture told."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from kvlp.datasets.figures.captions import split_caption
from kvlp.datasets.figures.components import find_components
from kvlp.datasets.figures.fonts import font
from kvlp.datasets.figures.glyphs import find_glyphs
from kvlp.datasets.figures.layout import find_layout
from kvlp.datasets.figures.letters import LEAST_LIKENESS, assign
from kvlp.datasets.figures.matching import match_panels
from kvlp.datasets.figures.modality import tell_modality
from kvlp.datasets.figures.ocr import find_engine, read_with
from kvlp.datasets.figures.panels import Box, Layout, reading_order
from kvlp.datasets.figures.planted.layouts import LAYOUTS, Look, draw_figure, whole_figure
from kvlp.datasets.figures.planted.pictures import PICTURES, draw_picture
from kvlp.errors import ConfigError


def pixels_of(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def drawn(look, kind="radiograph", seed=0):
    count = len(LAYOUTS[look.layout])
    figure = draw_figure(look, (kind,) * count, tuple("abcdefghi"[:count]), np.random.default_rng(seed))
    return pixels_of(figure.data), figure.boxes


@pytest.mark.parametrize(
    ("layout", "ground", "gutter"),
    [
        ("1x2", "white", 3),
        ("2x2", "grey", 6),
        ("2x3", "black", 8),
        ("big left", "white", 20),
        ("2 over 3", "grey", 4),
        ("uneven 2x2", "black", 12),
        ("3 of 2x2", "white", 5),
    ],
)
def test_panels_are_found(layout, ground, gutter):
    pixels, boxes = drawn(Look(layout, ground=ground, gutter=gutter, letters="none", width=420, quality=75))
    found = find_layout(pixels).leaves()
    assert len(found) == len(boxes)
    least = 0.75 if ground == "black" else 0.9  # where a dark picture ends on black is a guess
    assert all(max(box.overlap(other) for other in found) > least for box in boxes)


def test_letters_outside_and_frames_are_no_panels():
    for look in (Look("2x2", letters="outside", width=420), Look("1x3", letters="below", framed=True, width=500)):
        pixels, boxes = drawn(look)
        found = find_layout(pixels).leaves()
        assert len(found) == len(boxes)
        assert all(box.overlap(other) > 0.85 for box, other in zip(boxes, found))


@pytest.mark.parametrize("kind", ["heat map", "chess", "abutting", "radiograph", "microscopy", "plot", "photograph"])
def test_single_pictures_stay_whole(kind):
    data, _ = whole_figure(kind, np.random.default_rng(1))
    assert len(find_layout(pixels_of(data)).strong_leaves()) == 1


def test_two_legs_in_one_film_are_parted_only_if_the_caption_asks():
    y, x = np.mgrid[:300, :400]
    grey = np.zeros((300, 400))
    for middle in (100, 300):
        half = 50 + 12 * np.sin(y / 40)
        grey = np.maximum(grey, np.where(np.abs(x - middle) < half, 150 + 40 * np.cos((x - middle) / 20 + y / 25), 0))
    noisy = np.clip(grey + np.random.default_rng(0).normal(0, 4, grey.shape), 0, 255)  # as films have it
    pixels = np.repeat(noisy.astype(np.uint8)[..., None], 3, axis=2)
    layout = find_layout(pixels)
    assert len(layout.strong_leaves()) == 1
    assert len(layout.leaves()) == 2
    (whole,) = match_panels(pixels, split_caption("Radiograph of both legs.")).matches
    assert whole.box == Box(0, 0, 300, 400)
    assert [m.part.label for m in match_panels(pixels, split_caption("(A) Right leg. (B) Left leg.")).matches] == [
        "a",
        "b",
    ]


def test_the_weakest_cuts_are_undone_first():
    a, b, c = Box(0, 0, 9, 4), Box(0, 6, 9, 10), Box(0, 20, 9, 30)
    pair = Layout(Box(0, 0, 9, 10), 2.0, True, (Layout(a), Layout(b)))
    layout = Layout(Box(0, 0, 9, 30), 10.0, True, (pair, Layout(c)))
    assert layout.panels(3) == [a, b, c]
    assert layout.panels(2) == [Box(0, 0, 9, 10), c]
    assert layout.panels(1) == [Box(0, 0, 9, 30)]


def test_reading_order_goes_along_rows_and_past_tall_panels():
    tall, upper, lower = Box(0, 0, 100, 50), Box(2, 60, 48, 100), Box(52, 60, 100, 100)
    assert reading_order([lower, upper, tall]) == [tall, upper, lower]
    grid = [Box(r * 10, c * 10, r * 10 + 9, c * 10 + 9) for r in range(2) for c in range(3)]
    assert reading_order(grid[::-1]) == grid


def test_components_are_those_of_scipy():
    for share in (0.2, 0.5, 0.7):
        mask = np.random.default_rng(3).random((41, 67)) < share
        labels, count = ndimage.label(mask, np.ones((3, 3)))
        found = find_components(mask)
        assert sorted(found.areas) == sorted(np.bincount(labels.ravel())[1:])
        boxes = {(s[0].start, s[1].start, s[0].stop, s[1].stop) for s in ndimage.find_objects(labels)}
        assert {tuple(box) for box in found.boxes.tolist()} == boxes
        assert (found.mask(np.ones(count, bool), mask.shape) == mask).all()
    assert len(find_components(np.zeros((3, 3), bool)).areas) == 0


@pytest.mark.parametrize("name", ["DejaVuSerif-Bold.ttf", "cmss10.ttf"])
def test_letters_of_fonts_that_are_no_templates_are_read(name):
    from PIL import ImageDraw

    letters = "ABCDEFGHabdefgh"
    image = Image.new("L", (80 * len(letters), 300), 0)
    for number, letter in enumerate(letters):
        ImageDraw.Draw(image).text((80 * number + 20, 100), letter, fill=255, font=font(name, 32))
    best = {
        glyph.box.left // 80: max(glyph.scores, key=glyph.scores.get)
        for glyph in find_glyphs(np.asarray(image), most=0.2)
    }
    right = sum(best.get(number) == letter.lower() for number, letter in enumerate(letters))
    assert right >= len(letters) - 2


def test_letters_of_a_word_are_no_labels():
    from PIL import ImageDraw

    image = Image.new("L", (400, 200), 0)
    ImageDraw.Draw(image).text((20, 80), "HEAD", fill=255, font=font("DejaVuSans.ttf", 30))
    assert max((max(g.scores.values()) for g in find_glyphs(np.asarray(image), most=0.3)), default=0) < LEAST_LIKENESS


def test_assignment_is_the_best_of_all():
    from itertools import permutations

    scores = np.random.default_rng(0).random((5, 5))
    best = max(sum(scores[r, c] for r, c in enumerate(order)) for order in permutations(range(5)))
    assert sum(scores[r, c] for r, c in assign(scores, 0.0)) == pytest.approx(best)
    assert assign(np.array([[0.9, 0.0], [0.8, 0.1]])) == [(0, 0)]


@pytest.mark.parametrize("letters", ["inside", "outside"])
def test_letters_that_run_down_the_columns_are_followed(letters):
    look = Look("2x2", letters=letters, down=True, width=560, size=0.06)
    pixels, boxes = drawn(look)
    matches = match_panels(pixels, split_caption("(A) One. (B) Two. (C) Three. (D) Four.")).matches
    at = {match.part.label: match.box for match in matches}
    assert all(at[label].overlap(box) > 0.8 for label, box in zip("abcd", boxes))
    assert boxes[1].left == boxes[0].left


def test_two_rows_of_two_for_two_labels():
    pixels, boxes = drawn(Look("2x2", letters="none", gutter=6, width=420))
    matches = match_panels(pixels, split_caption("Upper row: before. Lower row: after.")).matches
    assert [match.part.label for match in matches] == ["top", "bottom"]
    assert matches[0].box.overlap(boxes[0].around(boxes[1])) > 0.9


def test_another_number_of_panels_is_said():
    pixels, _ = drawn(Look("1x2", letters="none", width=420))
    found = match_panels(pixels, split_caption("(A) One. (B) Two. (C) Three. (D) Four. (E) Five."))
    assert found.matches == ()
    assert found.problem == "the caption names 5 panels, 2 were found"


@pytest.mark.parametrize(
    ("kind", "own", "shared", "told"),
    [
        ("radiograph", "Chest radiograph.", "", "radiograph"),
        ("ct", "Axial view.", "CT of the chest.", "ct"),
        ("mr", "T2-weighted image.", "CT and MRI.", "mr"),
        ("ultrasound", "A cyst.", "", "radiology"),
        ("microscopy", "Spindle cells.", "", "microscopy"),
        ("microscopy", "H&E stain.", "CT-guided biopsy.", "microscopy"),
        ("photograph", "The wound.", "CT of the wound.", "ct"),
        ("photograph", "The wound.", "", "photograph"),
        ("plot", "MRI volumes by week.", "", "plot"),
    ],
)
def test_kinds_of_picture(kind, own, shared, told):
    found = tell_modality(draw_picture(kind, 200, 220, np.random.default_rng(2)), own, shared)
    assert found.kind == told
    assert found.reason


def test_every_kind_can_be_drawn():
    for kind in PICTURES:
        panel = draw_picture(kind, 90, 110, np.random.default_rng(0))
        assert (panel.shape, panel.dtype) == ((90, 110, 3), np.uint8)


def test_engines_by_name(monkeypatch):
    assert find_engine("none") is None
    with pytest.raises(ConfigError, match="expected one of auto, tesseract, none, got 'cloud'"):
        find_engine("cloud")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert find_engine("auto") is None
    with pytest.raises(ConfigError, match="tesseract is not on the PATH; install it"):
        find_engine("tesseract")


@pytest.mark.skipif(shutil.which("tesseract") is None, reason="tesseract is not installed")
def test_tesseract_reads_single_letters():
    from PIL import ImageDraw

    image = Image.new("L", (600, 300), 255)
    for number, letter in enumerate("ABD"):
        ImageDraw.Draw(image).text((200 * number + 40, 100), letter, fill=0, font=font("DejaVuSans.ttf", 48))
    found = {glyph.box.left // 200: next(iter(glyph.scores)) for glyph in read_with(find_engine(), np.asarray(image))}
    assert found == {0: "a", 1: "b", 2: "d"}
