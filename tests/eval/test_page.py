"""The page: self-contained, escaped, figures as in the rows, pictures only when told."""

import base64
import io
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from kvlp.errors import ShapeError
from kvlp.eval.evaluate import EvalOptions, control_results, difference_results, evaluate
from kvlp.eval.intervals import Interval
from kvlp.eval.page import (
    Bars,
    Charts,
    Forest,
    GridRow,
    Headline,
    Headlines,
    ImageGrid,
    Lines,
    Notice,
    Section,
    Series,
    Settings,
    Table,
    Text,
    Tile,
    png_uri,
    write_page,
)
from kvlp.eval.page.report import control_blocks, evaluation_blocks, loss_charts
from kvlp.eval.page.write import render_page

VOID = {"meta", "link", "br", "img", "hr", "input"}
NASTY = '<script>alert("x")</script>&'


class Checker(HTMLParser):
    """Collects tags, attributes and ids, and sees that every tag is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.links = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "action", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


def check(html):
    parser = Checker()
    parser.feed(html)
    assert parser.open == []
    assert "script" not in parser.tags
    assert all(link.startswith(("data:", "#")) for link in parser.links)
    assert "http://" not in html
    assert "https://" not in html
    assert "url(" not in html
    for svg in re.findall(r"<svg.*?</svg>", html, flags=re.S):
        assert "nan" not in svg
        ElementTree.fromstring(svg)
    return parser


def every_block(text="words"):
    interval = Interval(0.9, 0.85, 0.95, 1000, "bootstrap")
    x = np.linspace(0, 1, 2000)
    tiles = [Tile(png_uri(np.zeros((8, 8), np.uint8)), "0.31", "good", text), Tile("", "0.2", "bad", text)]
    return [
        Headlines([Headline(text, interval, text), Headline(text, text)]),
        Section(text, text),
        Text([text, text]),
        Notice(text, "bad"),
        Table([text, "AUC"], [[text, interval], [(text, text), None], [text, math.nan]], text, frozenset({1}), text),
        Charts([
            Lines(text, [Series(text, x, x**2, text)], text, text, diagonal=True),
            Lines(text, [Series(text, [], [])]),
            Lines(text, [Series(text, [1, 2, 3], [5, math.nan, 5])]),
            Forest(text, [(text, [interval, None])], [text, "b"], text, 0.5),
        ]),
        Bars({text: 130.0, "b": 0.0}, "s", text),
        ImageGrid([GridRow(text, text, tiles)], text),
        Settings({text: text, "n": 3, "yes": True, "list": ["a", "b"], "map": {"a": "1"}}, text, closed=True),
    ]  # fmt: skip


def test_every_block_is_self_contained_well_formed_and_escaped(tmp_path):
    path = write_page(tmp_path / "r.html", NASTY, every_block(NASTY), subtitle=NASTY)
    html = path.read_text(encoding="utf-8")
    check(html)
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "default-src 'none'" in html
    assert "Not a medical device" in html
    assert "0.850 to 0.950" in html
    assert "undefined" in html
    assert "2 min 10 s" in html


def test_long_lines_are_thinned_but_keep_their_ends():
    x = np.linspace(0, 1, 5000)
    svg = Lines("t", [Series("a", x, np.sqrt(x))], diagonal=True).svg()
    path = re.search(r'class="line c0" d="M([^"]+)"', svg)[1]
    points = [tuple(map(float, p.split())) for p in path.split("L")]
    assert 100 < len(points) <= 245
    assert points[0] == (46.0, 338.0)
    assert points[-1] == (368.0, 10.0)


def test_a_forest_places_values_on_its_axis():
    forest = Forest("t", [("a", [Interval(0.5, 0.25, 0.75, 0, "")])], limits=(0.0, 1.0))
    svg = forest.svg()
    left, right = 10, 368
    assert f'cx="{left + (right - left) * 0.5:.1f}"' in svg
    assert f"M{left + (right - left) * 0.25:.1f} " in svg
    assert f"H{left + (right - left) * 0.75:.1f}" in svg


def test_pictures_are_png_of_the_right_greys():
    uri = png_uri(np.array([[0.0, 0.5], [1.0, 0.25]]))
    image = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
    assert (image.format, image.mode) == ("PNG", "L")
    assert np.asarray(image).tolist() == [[0, 128], [255, 64]]
    big = Image.open(io.BytesIO(base64.b64decode(png_uri(np.zeros((300, 100), np.uint8)).split(",")[1])))
    assert big.size == (48, 144)
    with pytest.raises(ShapeError):
        png_uri(np.zeros((0, 4), np.uint8))


def test_a_table_with_a_short_row_is_refused():
    with pytest.raises(ShapeError, match="row 1 has 1 cells for 2 columns"):
        Table(["a", "b"], [["x", 1], ["y"]])


def test_loss_charts_group_the_parts_of_the_loss():
    rows = [{"step": i, "loss": 2.0 / (i + 1), "loss_clip": 1.0, "lr": 0.1, "stage": "align"} for i in range(5)]
    charts = loss_charts(rows).charts
    assert [(c.title, len(c.series)) for c in charts] == [("loss", 2), ("lr", 1)]
    assert loss_charts([]).charts == []


@pytest.fixture
def outcome(fakes, tmp_path):
    manifest = fakes.write_manifest(tmp_path / "data")
    groups = {"seen": fakes.classes[:2], "unseen": fakes.classes[2:]}
    options = EvalOptions(resamples=60, split="test")
    result = evaluate(fakes.Model(noise=0.8), manifest, groups, options=options)
    weak = evaluate(fakes.Model(noise=3.0), manifest, groups, options=options)
    return result, manifest, control_results(result, "noisy model", weak.scores["PAIR"])


def test_every_figure_of_the_page_is_in_the_rows(outcome):
    result, manifest, controls = outcome
    html = render_page("t", evaluation_blocks(result, manifest=manifest, with_images=True, controls=controls))
    check(html)
    known = set()
    for row in [*result.results, *controls]:
        known |= {f"{v:.3f}" for v in (row.value, row.low, row.high) if not math.isnan(v)}
    tables = "".join(re.findall(r"<table>.*?</table>", html, flags=re.S))
    shown = set(re.findall(r"(?<![\d.−])\d\.\d{3}(?!\d)", tables))
    prevalence = {f"{q.prevalence:.3f}" for q in result.queries}
    lifts = {f"{q.precision / q.prevalence:.3f}" for q in result.queries}
    assert shown
    assert shown <= known | prevalence | lifts
    assert "noisy model" in html
    assert "mean: seen" in html


def test_differences_by_several_scores_each_have_a_column(fakes, tmp_path):
    manifest = fakes.write_manifest(tmp_path)
    options = EvalOptions(resamples=20)
    ours = evaluate(fakes.Model(noise=0.5), manifest, fakes.classes[:2], options=options)
    other = evaluate(fakes.Model(noise=2.0), manifest, fakes.classes[:2], options=options)
    rows = [r for setting in ("POS", "PAIR") for r in difference_results(ours, other, "shuffled", setting=setting)]
    _, table = control_blocks(rows)
    assert table.columns[1:] == ["“there is X”, minus shuffled", "both combined, minus shuffled"]
    assert [row[0] for row in table.rows][-1] == "mean of all classes"
    assert [row[column].value for column in (1, 2) for row in table.rows] == [r.value for r in rows]
    assert table.strong == {2}
    _, both = control_blocks(control_results(ours, "weak", other.scores["PAIR"]))
    assert [len(row) for row in both.rows] == [3, 3, 3]
    assert both.strong == {2}


def test_pictures_stand_in_the_page_only_when_told(outcome):
    result, manifest, _ = outcome
    without = render_page("t", evaluation_blocks(result, manifest=manifest))
    with_pictures = render_page("t", evaluation_blocks(result, manifest=manifest, with_images=True))
    assert "data:image/png" not in without
    assert "--with-images" in without
    assert with_pictures.count("data:image/png") == sum(len(q.hits) for q in result.queries)
    for record in manifest:  # no patient, file or report in the page of real data
        assert f">{record.patient_id}<" not in without
        assert record.image not in without


def test_unreadable_images_are_told_on_the_page(fakes, tmp_path):
    manifest = fakes.write_manifest(tmp_path)
    (tmp_path / "3-0.png").write_bytes(b"")
    result = evaluate(fakes.Model(), manifest, ["cardiomegaly"], options=EvalOptions(resamples=10))
    html = render_page("t", evaluation_blocks(result))
    assert "1 images could not be read and are not scored: row 7." in html
    assert "AUC, cardiomegaly" in html


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_opens_in_a_browser(outcome, tmp_path, width):
    result, manifest, controls = outcome
    blocks = evaluation_blocks(result, manifest=manifest, with_images=True, controls=controls)
    page = write_page(tmp_path / "report.html", "Demo", blocks)
    shot = tmp_path / "shot.png"
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--window-size={width},4000"]
    subprocess.run([*command, f"--screenshot={shot}", page.as_uri()], check=True, capture_output=True, timeout=100)
    picture = np.asarray(Image.open(shot).convert("L"))
    assert picture.shape[1] == width
    assert picture[:3000].std() > 20  # something is drawn
    assert (picture[:, -4:] > 200).mean() > 0.98  # nothing runs over the right edge
