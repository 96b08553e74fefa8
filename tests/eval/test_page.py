"""The page: self-contained, escaped, figures as in the rows, pictures only when told."""

import base64
import io
import math
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from kvlp.datasets.leak_report import Leak, LeakReport
from kvlp.datasets.manifest import Manifest
from kvlp.errors import ShapeError
from kvlp.eval.evaluate import EvalOptions, control_results, difference_results, evaluate
from kvlp.eval.images import embed_manifest
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
from kvlp.eval.page.checklist import FILLERS, checklist_blocks, guidelines
from kvlp.eval.page.report import control_blocks, evaluation_blocks, loss_charts
from kvlp.eval.page.write import render_page
from kvlp.eval.results import read_results, write_results

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


def grouped(manifest, prefix=""):
    """The manifest with age and sex, and other patients if there is a prefix; three patients are over 80."""
    rows = []
    for record in manifest:
        number = int(record.id.split("-")[0])
        extra = {"Age": str(25 if number % 2 else 65) if number >= 3 else "85", "Sex": "FM"[number // 2 % 2]}
        rows.append(replace(record, patient_id=prefix + record.patient_id, extra=extra))
    return Manifest(rows, manifest.root)


@pytest.fixture(scope="module")
def outcome(fakes, tmp_path_factory):
    """An evaluation with groups of classes and of patients, and thresholds from validation rows; its controls."""
    folder = tmp_path_factory.mktemp("page")
    manifest = grouped(fakes.write_manifest(folder / "data"))
    validation = grouped(fakes.write_manifest(folder / "other", seed=1), "v")
    groups = {"seen": fakes.classes[:2], "unseen": fakes.classes[2:]}
    shared = Leak("patient", {"train": (1, 2), "test": (3,)})
    leaks = LeakReport(
        {"train": 99, "test": 80}, [shared], unknown={"pixels": "not looked for", "near_duplicate": "no"}
    )
    options = EvalOptions(resamples=60, split="test", validation=validation, leaks=leaks, controls=True)
    result = evaluate(fakes.Model(noise=0.8), manifest, groups, options=options)
    weak = evaluate(fakes.Model(noise=3.0), manifest, groups, options=EvalOptions(resamples=5, subgroups=False))
    return result, manifest, control_results(result, "noisy model", weak.scores["PAIR"])


class Numbers(HTMLParser):
    """The numbers of a page, but for settings, timings, prompts, checklists, axes and the foot."""

    SILENT = ("settings", "bars", "lead")

    def __init__(self, html):
        super().__init__()
        self.path, self.found, self.closed = [], [], False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.path.append((tag, dict(attrs).get("class") or ""))

    def handle_endtag(self, tag):
        if tag not in VOID:
            self.path.pop()
        self.closed = self.closed and tag != "details"

    def handle_data(self, data):
        tags = [tag for tag, _ in self.path]
        if tags[-1:] == ["summary"]:
            self.closed = not data.startswith("By ")  # tables of pairs hold figures, prompts and checklists do not
        silent = {"style", "header", "footer", "text"} & set(tags) or any(c in self.SILENT for _, c in self.path)
        if not silent and not self.closed:
            self.found += re.findall(r"−?\d+(?:,\d{3})*(?:\.\d+)?", data)


def known_numbers(rows):
    """Every way in which a page may write a number of the rows."""
    known = set()
    for row in rows:
        for value in (row.value, row.low, row.high, row.p):
            known |= {f"{value:.{digits}f}" for digits in range(4)} if not math.isnan(value) else set()
        known |= {f"{count:,}" for count in (row.n, row.n_positive, row.n_groups)}
        words = " ".join([row.metric, row.target, row.group, row.setting, row.method, row.definition, *row.notes])
        known |= set(re.findall(r"\d+(?:,\d{3})*(?:\.\d+)?", words))
    return {number.replace("-", "−") for number in known}


#: numbers that are words of the page itself: 95 % intervals, chance at 0.5, slope 1 and intercept 0, warnings below 10
PROSE = {"95", "0.5", "0", "1", "10", "15", "3"}


def test_every_figure_of_the_page_is_in_the_rows(outcome, tmp_path):
    result, manifest, controls = outcome
    blocks = evaluation_blocks(result, manifest=manifest, with_images=True, controls=controls)
    html = render_page("t", blocks)
    check(html)
    rows = read_results(write_results(tmp_path / "results.jsonl", [*result.results, *controls]))
    shown = set(Numbers(html).found)
    assert len(shown) > 300
    assert shown - known_numbers(rows) - PROSE == set()
    planted = html.replace("</table>", "<tr><td>0.98765</td></tr></table>", 1)
    assert set(Numbers(planted).found) - known_numbers(rows) - PROSE == {"0.98765"}
    for panel in ("Thresholds", "Calibration", "Negation and wording", "Subgroups", "Worst errors", "Search results"):
        assert f">{panel}</h2>" in html
    assert "noisy model" in html
    assert "mean: seen" in html


def test_a_page_is_small(outcome):
    result, manifest, controls = outcome
    html = render_page("t", evaluation_blocks(result, manifest=manifest, with_images=True, controls=controls))
    assert len(html) < 1_500_000


def test_a_hidden_group_is_named_and_has_no_figure(outcome):
    result, manifest, _ = outcome
    html = render_page("t", evaluation_blocks(result, manifest=manifest))
    row = re.search(r"<tr>\s*<th scope=\"row\">80 and over</th>(.*?)</tr>", html, flags=re.S)[1]
    assert row.count("hidden") == 6
    assert not re.search(r"\d", re.sub(r"<[^>]*>", "", row))
    assert "not told" in html
    rows = [r for r in result.results if r.group == "age: 80 and over"]
    assert rows
    assert all(math.isnan(r.value) and r.n == 0 and r.notes == ("hidden: fewer than 5 patients",) for r in rows)


def test_thresholds_of_validation_rows_are_named(outcome, fakes):
    result, manifest, _ = outcome
    html = render_page("t", evaluation_blocks(result))
    assert "youden on test (80 images" in html
    assert html.count("<figcaption>Reliability</figcaption>") == 1
    assert "no data chose it" not in html
    plain = evaluate(fakes.Model(noise=0.8), manifest[:30], fakes.classes[:2], options=EvalOptions(resamples=10))
    html = render_page("t", evaluation_blocks(plain))
    assert "no data chose it" in html
    assert "calibration cannot be judged" in html


def test_leaks_stand_in_rows_and_page(outcome, fakes):
    result, manifest, _ = outcome
    leaks = {r.target: r for r in result.results if r.metric == "leaks"}
    assert (leaks["patient"].value, leaks["study"].value, leaks["boilerplate"].value) == (1, 0, 0)
    assert math.isnan(leaks["pixels"].value)
    assert leaks["pixels"].notes == ("not known: not looked for",)
    html = render_page("t", evaluation_blocks(result))
    assert "patients that stand on two sides" in html
    assert "Sides: train (99 rows), test (80 rows)" in html
    assert 'class="notice bad"' not in html
    plain = evaluate(fakes.Model(), manifest[:20], fakes.classes[:1], options=EvalOptions(resamples=5))
    assert plain.exposure is None
    assert "Leaks between splits were not looked for" in render_page("t", evaluation_blocks(plain))


@pytest.mark.slow
def test_what_the_model_was_trained_on_stands_in_rows_and_page(outcome, fakes, tmp_path):
    """Slow for the import of torch alone."""
    _, manifest, _ = outcome
    model = fakes.Model()
    model.source = str(tmp_path)
    plain = evaluate(model, manifest[:20], fakes.classes[:1], options=EvalOptions(resamples=5))
    assert not plain.exposure.known
    html = render_page("t", evaluation_blocks(plain))
    assert "Not known whether the model was trained on these images" in html
    hashes = embed_manifest(model, manifest[:20]).hashes
    table = pa.table({"sha256": list(hashes[:4])})
    with pa.OSFile(str(tmp_path / "exposure.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    seen = evaluate(model, manifest[:20], fakes.classes[:1], options=EvalOptions(resamples=5))
    html = render_page("t", evaluation_blocks(seen))
    assert '<p class="notice bad">Trained on 4 of 20 scored images, of 2 of 10 patients' in html
    assert {r.target: r.value for r in seen.results if r.metric == "exposure"} == {"images": 0.2, "patients": 0.2}


def test_controls_of_the_evaluation_stand_on_the_page(outcome):
    result, _, _ = outcome
    assert result.controls
    assert all(row in result.results for row in result.controls)
    section, means, single, further = control_blocks(result.controls)
    assert section.title == "Controls and comparisons"
    assert {row[0][0] for row in means.rows} == {"shuffled labels", "both combined, minus blank image"}
    assert (means.closed, single.closed) == (False, True)
    assert {row[0][0] for row in further.rows} == {"shuffled captions", "blank image", "text only", "PAIR"}


def test_checklists_show_what_is_not_filled(outcome):
    result, _, controls = outcome
    _, *tables = checklist_blocks(result, controls)
    assert [(table.caption, len(table.rows)) for table in tables] == [("TRIPOD+AI", 52), ("CLAIM 2024", 44)]
    cells = {(table.caption, row[0]): row[2] for table in tables for row in table.rows}
    assert cells["TRIPOD+AI", "18a"] == ("not filled", "")  # funding
    assert cells["TRIPOD+AI", "12e"][1] == "filled"
    assert "age, sex" in cells["TRIPOD+AI", "14"][0]
    assert cells["TRIPOD+AI", "14"][1] == "partly; the rest is for the authors"
    assert "60 resamples of patients" in cells["CLAIM 2024", "29"][0]
    fills = {item.fill for guideline in guidelines() for item in guideline.items} - {""}
    assert fills == set(FILLERS)
    blank = replace(result, subgroups=[], errors=[], negation=None)
    empty = {(t.caption, row[0]): row[2] for t in checklist_blocks(blank)[1:] for row in t.rows}
    assert empty["TRIPOD+AI", "14"] == empty["CLAIM 2024", "39"] == empty["CLAIM 2024", "30"] == ("not filled", "")


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
    _, means, both = control_blocks(control_results(ours, "weak", other.scores["PAIR"]))
    assert [len(row) for row in both.rows] == [3, 3]
    assert [row[0] for row in means.rows] == [("both combined, minus weak", "mean of all classes")]


def test_pictures_stand_in_the_page_only_when_told(outcome):
    result, manifest, _ = outcome
    without = render_page("t", evaluation_blocks(result, manifest=manifest))
    with_pictures = render_page("t", evaluation_blocks(result, manifest=manifest, with_images=True))
    assert "data:image/" not in without
    assert "--with-images" in without
    errors = sum(len(e.flagged) + len(e.missed) for e in result.errors)
    assert errors > 0
    assert with_pictures.count("data:image/jpeg") == sum(len(q.hits) for q in result.queries) + 2 * errors
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
