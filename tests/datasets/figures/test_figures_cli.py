"""`kvlp figures`: import, audit, show, doctor; and the page."""

import json
import re

import pytest

from kvlp.cli import main
from kvlp.datasets.figures.audit import write_audit
from kvlp.datasets.figures.planted.packages import PlantedFigure, article_files, write_package
from kvlp.errors import DataError


def run(capsys, *args):
    status = 0
    try:
        main([str(arg) for arg in args])
    except SystemExit as end:
        status = end.code or 0
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_import_writes_everything_and_counts(planted, tmp_path, capsys):
    whole = planted[1]["PMC1"]["F1"]
    figures = {"F1": PlantedFigure(whole.data, whole.ending, "Chest CT.", ())}
    package = write_package(tmp_path / "in", "PMC1", article_files("PMC1", figures))
    out_folder = tmp_path / "out"
    args = ("figures", "import", package, "--out", out_folder, "--ocr", "none", "--keep", "all")
    status, out, err = run(capsys, *args, "--json")
    report = json.loads(out)
    assert status == 0
    assert (report["packages"], report["figures"], report["pairs"]) == (1, 1, 1)
    assert err.startswith("figures: ")
    names = {"manifest.csv", "articles.csv", "report.json", "settings.json", "audit.html", "images", "journal"}
    assert {path.name for path in out_folder.iterdir()} == names
    status, out, _ = run(capsys, *args)
    assert "pairs: 1" in out.splitlines()


def test_the_page_is_self_contained_and_escapes_what_articles_say(tmp_path, capsys, planted):
    data = planted[1]["PMC1"]["F1"].data
    figure = PlantedFigure(data, ".jpg", "CT &lt;script&gt;alert(1)&lt;/script&gt; of the chest.", ())
    write_package(tmp_path / "in", "PMC1", article_files("PMC1", {'F"><b>': figure}))
    run(capsys, "figures", "import", tmp_path / "in", "--out", tmp_path / "out", "--ocr", "none", "--sample", "0")
    _, out, _ = run(capsys, "figures", "audit", tmp_path / "out", "--json")
    page = (tmp_path / "out" / "audit.html").read_text()
    assert json.loads(out) == {"page": str(tmp_path / "out" / "audit.html")}
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "F&#34;&gt;&lt;b&gt;" in page
    assert page.count("data:image/jpeg;base64,") == 1
    assert not re.search(r"https?://", page)


def test_the_sample_follows_its_seed_and_compound_figures_come_first(imported):
    out, _ = imported
    one = write_audit(out, count=3, seed=1).read_text()
    assert one.count("<article>") == 3
    assert titles(one) == titles(write_audit(out, count=3, seed=1).read_text())
    assert any(titles(write_audit(out, count=3, seed=s).read_text()) != titles(one) for s in (2, 3))


def titles(page):
    return re.findall(r"<h2>(.*?)</h2>", page)


def test_no_page_without_a_journal(tmp_path):
    with pytest.raises(DataError, match="no journal with pairs; run kvlp figures import first"):
        write_audit(tmp_path)


def test_show_takes_one_figure_apart(planted, tmp_path, capsys):
    figure = planted[1]["PMC1"]["F1"]
    (tmp_path / "f.jpg").write_bytes(figure.data)
    _, out, _ = run(capsys, "figures", "show", tmp_path / "f.jpg", "--json")
    assert len(json.loads(out)) == 4
    caption = "(A) One. (B) Two. (C) Three. (D) Four."
    _, out, _ = run(capsys, "figures", "show", tmp_path / "f.jpg", "--caption", caption, "--ocr", "none", "--json")
    assert {row["label"]: row["text"] for row in json.loads(out)} == {
        "a": "One.",
        "b": "Two.",
        "c": "Three.",
        "d": "Four.",
    }


def test_doctor_says_whether_tesseract_is_there(capsys):
    status, out, _ = run(capsys, "figures", "doctor", "--json")
    assert (status, json.loads(out)["needed"]) == (0, False)


def test_errors_are_one_line(tmp_path, capsys):
    status, out, err = run(capsys, "figures", "import", tmp_path / "none", "--out", tmp_path / "out")
    assert (status, out) == (1, "")
    assert err.count("\n") == 1
    assert "expected an article package or a folder of them, got nothing" in err
