"""Packages into a manifest: what was planted comes out, faults stay with their article, a killed run goes on."""

import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest
from PIL import Image

from kvlp.datasets.check import check_manifest
from kvlp.datasets.figures import importing
from kvlp.datasets.figures.articles import as_rgb
from kvlp.datasets.figures.importing import import_figures, read_journal
from kvlp.datasets.figures.modality import KINDS
from kvlp.datasets.figures.options import FigureOptions
from kvlp.datasets.figures.planted.packages import PlantedFigure, article_files, plant_articles, write_package
from kvlp.datasets.figures.planted.scoring import Found, Tally, score_pairs
from kvlp.datasets.images import decode
from kvlp.datasets.manifest import Manifest
from kvlp.errors import ConfigError, DataError

ALL = FigureOptions(ocr="none", keep=KINDS)


def found_in(out):
    """Article -> figure -> pairs that came out, with their boxes from the journal."""
    from kvlp.datasets.figures.panels import Box

    pairs = {}
    for entry in read_journal(out):
        for row in entry["rows"]:
            figures = pairs.setdefault(entry["article"].get("pmcid"), {})
            figures.setdefault(row["figure"], []).append(Found(row["label"], Box(*row["box"]), row["text"]))
    return pairs


def picture(side=200, seed=0, kind="PNG"):
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(30, 200, (side, side), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def article(name, figures, **options):
    return article_files(name, figures, **options)


def simple(markup="Chest CT.", data=None, ending=".png"):
    return PlantedFigure(data if data is not None else picture(), ending, markup, ())


def test_everything_planted_comes_out(planted, imported):
    out, report = imported
    pairs = found_in(out)
    tally = sum(
        (score_pairs(pairs[a][f], figure.panels) for a, figures in planted[1].items() for f, figure in figures.items()),
        Tally(),
    )
    assert tally.f1 == 1.0
    assert (report.packages, report.failed, report.figures, report.pairs) == (3, 0, 6, 21)


def test_the_manifest_is_whole_and_its_images_are_the_panels(planted, imported):
    out, _ = imported
    manifest = Manifest.load(out / "manifest.csv")
    assert {record.licence for record in manifest} == {"CC BY 4.0", "CC BY-NC-ND 4.0", "CC0 1.0"}
    assert {record.patient_id for record in manifest} == {"PMC1", "PMC2", "PMC3"}
    errors = {problem.kind for problem in check_manifest(manifest).errors}
    assert errors <= {"duplicate_image"}
    record = next(r for r in manifest if r.id == "PMC1/F1/a")
    planted_figure = planted[1]["PMC1"]["F1"]
    panel = planted_figure.panels[0]
    whole = as_rgb(decode(planted_figure.data))[panel.box.top : panel.box.bottom, panel.box.left : panel.box.right]
    cut = as_rgb(decode(manifest.path_of(record)))
    assert abs(cut.shape[0] - whole.shape[0]) <= 4
    height, width = min(cut.shape[0], whole.shape[0]), min(cut.shape[1], whole.shape[1])
    assert np.abs(cut[:height, :width].mean() - whole[:height, :width].mean()) < 4


def test_the_list_of_articles_says_who_and_under_which_licence(imported):
    lines = (imported[0] / "articles.csv").read_text().splitlines()
    assert lines[0] == "key,pmcid,pmid,doi,title,authors,journal,year,licence,licence_url"
    assert lines[1].startswith("PMC1,PMC1,,10.0000/planted.PMC1,A planted case,Planter P,Planted Reports,")


def test_licences_are_kept_by_pattern(tmp_path):
    for number, name in enumerate(("by/4.0", "by-nc-nd/4.0", "by-sa/3.0")):
        files = article(f"PMC{number}", {"F1": simple()}, licence_url=f"https://creativecommons.org/licenses/{name}/")
        write_package(tmp_path / "in", f"PMC{number}", files)
    options = FigureOptions(ocr="none", licence="cc by-nc*, CC BY 4.0")
    report = import_figures([tmp_path / "in"], tmp_path / "out", options)
    assert set(report.licence) == {"CC BY 4.0", "CC BY-NC-ND 4.0"}
    assert report.dropped == {"licence": 1}


def test_what_is_left_out_is_counted(tmp_path):
    figures = {
        "kept": simple(),
        "theirs": simple("CT. Reproduced with permission from Press."),
        "silent": simple(""),
        "small": simple(data=picture(40)),
        "histology": simple("Photomicrograph of the specimen."),
    }
    write_package(tmp_path / "in", "PMC1", article("PMC1", figures))
    report = import_figures([tmp_path / "in"], tmp_path / "out", FigureOptions(ocr="none"))
    assert report.dropped == {"kind: microscopy": 1, "no caption": 1, "third party": 1, "too small": 1}
    assert [record.id for record in Manifest.load(tmp_path / "out" / "manifest.csv")] == ["PMC1/kept"]
    assert report.modality == {"ct": 1}


BAD_XML = b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><article>&x;</article>'


def bad_packages(folder):
    """One package for each fault, and one that is whole."""
    whole = article("PMC1", {"F1": simple()})
    write_package(folder, "good", whole)
    (folder / "cut.tar.gz").write_bytes(write_package(folder / "x", "PMC2", whole).read_bytes()[:300])
    (folder / "x" / "PMC2.tar.gz").unlink()
    write_package(folder, "xxe", {"a.nxml": BAD_XML})
    write_package(folder, "broken", {"a.nxml": b"<article><front>"})
    write_package(folder, "empty", {"readme.txt": b"x"})
    with tarfile.open(folder / "escape.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("../../evil.nxml"), io.BytesIO())
    (folder / "text.tar.gz").write_bytes(b"this is no archive")
    missing = article("PMC9", {"F1": simple(), "F2": simple(data=picture(seed=3))})
    del missing["PMC9-g001.png"], missing["PMC9-g001.gif"]
    write_package(folder, "missing", missing)
    header = bytearray(picture())
    header[16:24] = (60_000).to_bytes(4, "big") * 2
    damaged = {"F1": simple(data=bytes(header)), "F2": simple(data=picture()[:200]), "F3": simple(data=picture(seed=4))}
    write_package(folder, "pictures", article("PMC8", damaged))


def test_faults_are_one_line_each_and_neighbours_do_not_notice(tmp_path):
    bad_packages(tmp_path / "in")
    report = import_figures([tmp_path / "in"], tmp_path / "out", ALL)
    told = dict(line.split(": ", 1) for line in report.problems)
    assert "cut off or damaged" in told["cut.tar.gz"]
    assert "declares entities of its own; refused" in told["xxe.tar.gz"]
    assert "broken XML at line 1" in told["broken.tar.gz"]
    assert "got a package without one" in told["empty.tar.gz"]
    assert "a path that leads out of it" in told["escape.tar.gz"]
    assert "cut off or damaged" in told["text.tar.gz"]
    assert "F1: picture 'pmc9-g001' is not in the package" in told["missing.tar.gz"]
    lines = [line for line in report.problems if line.startswith("pictures")]
    assert ["above the limit" in lines[0], "PNG is cut off" in lines[1]] == [True, True]
    assert (report.failed, report.pairs) == (6, 3)
    assert report.dropped == {"picture missing": 1, "picture unreadable": 2}
    assert not any("\n" in line or "passwd" in line for line in report.problems)
    assert not (tmp_path / "evil.nxml").exists()


def test_an_article_that_comes_twice_counts_once(tmp_path):
    files = article("PMC1", {"F1": simple()})
    write_package(tmp_path / "in" / "a", "PMC1", files)
    write_package(tmp_path / "in" / "b", "PMC1", files)
    report = import_figures([tmp_path / "in"], tmp_path / "out", ALL)
    assert (report.packages, report.repeated, report.pairs) == (2, 1, 1)


def test_files_that_are_panels_go_by_their_order(tmp_path):
    files = article("PMC1", {"F1": simple("(A) One CT. (B) Two CT.")})
    files["g2.png"] = picture(seed=5)
    second = b'<graphic xlink:href="g2"/></fig>'
    files["PMC1.nxml"] = files["PMC1.nxml"].replace(b"</fig>", second)
    write_package(tmp_path / "in", "PMC1", files)
    report = import_figures([tmp_path / "in"], tmp_path / "out", ALL)
    assert [(r.id, r.text) for r in Manifest.load(tmp_path / "out" / "manifest.csv")] == [
        ("PMC1/F1-1/a", "One CT."),
        ("PMC1/F1-2/b", "Two CT."),
    ]
    assert report.how == {"order of files": 2}


def test_a_second_run_does_nothing_again_and_gives_the_same(planted, imported, monkeypatch):
    out, first = imported
    before = (out / "manifest.csv").read_bytes()
    monkeypatch.setattr(importing, "process_package", lambda *_: pytest.fail("done already"))
    seen = []
    again = import_figures([planted[0]], out, ALL, progress=lambda done, total: seen.append((done, total)))
    assert (again.carried_on, again.pairs, seen) == (3, first.pairs, [(3, 3)])
    assert (out / "manifest.csv").read_bytes() == before


def test_other_options_need_a_word(planted, imported):
    other = FigureOptions(ocr="none", keep=KINDS, min_side=70)
    with pytest.raises(DataError, match=r"was made with other options \(min_side\); give --overwrite"):
        import_figures([planted[0]], imported[0], other)


def test_a_changed_package_is_read_again(tmp_path):
    write_package(tmp_path / "in", "PMC1", article("PMC1", {"F1": simple("One CT.")}))
    import_figures([tmp_path / "in"], tmp_path / "out", ALL)
    write_package(tmp_path / "in", "PMC1", article("PMC1", {"F1": simple("Two CTs.")}))
    import_figures([tmp_path / "in"], tmp_path / "out", ALL)
    assert [r.text for r in Manifest.load(tmp_path / "out" / "manifest.csv")] == ["Two CTs."]


def test_a_torn_journal_entry_is_made_again(tmp_path):
    write_package(tmp_path / "in", "PMC1", article("PMC1", {"F1": simple()}))
    import_figures([tmp_path / "in"], tmp_path / "out", ALL)
    entry = tmp_path / "out" / "journal" / "PMC1.json"
    entry.write_bytes(entry.read_bytes()[:100])
    report = import_figures([tmp_path / "in"], tmp_path / "out", ALL)
    assert (report.carried_on, report.pairs) == (0, 1)


def test_nothing_left_says_why_and_leaves_a_report(tmp_path):
    write_package(tmp_path / "in", "PMC1", article("PMC1", {"F1": simple("Photomicrograph.")}))
    with pytest.raises(DataError, match=r"no pair is left of 1 figures in 1 packages.*dropped: kind: microscopy 1"):
        import_figures([tmp_path / "in"], tmp_path / "out", FigureOptions(ocr="none"))
    assert json.loads((tmp_path / "out" / "report.json").read_text())["pairs"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": ("radiograf",)}, "no kind of picture is called 'radiograf'; did you mean 'radiograph'"),
        ({"min_confidence": 2}, "expected min_confidence within 0 to 1"),
        ({"min_side": 0}, "min_side >= 1"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ConfigError, match=message):
        FigureOptions(**options)


@pytest.mark.slow
def test_killed_at_any_moment_a_run_goes_on_to_the_same_end(tmp_path):
    plant_articles(tmp_path / "in", 6, seed=3, figures=2)
    command = [sys.executable, "-c", "import sys; from kvlp.cli import main; main(sys.argv[1:])", "figures", "import"]
    command += [str(tmp_path / "in"), "--keep", "all", "--ocr", "none", "--sample", "0", "--out"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    for wait in (2.0, 3.0, 4.0, 6.0):
        process = subprocess.Popen(
            [*command, str(tmp_path / "killed")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(wait)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run([*command, str(tmp_path / "killed"), "--jobs", "2"], check=True, capture_output=True)
    whole, killed = (Manifest.load(tmp_path / name / "manifest.csv") for name in ("whole", "killed"))
    assert list(whole) == list(killed)
    for record in whole:
        assert whole.path_of(record).read_bytes() == killed.path_of(record).read_bytes()
    assert not list((tmp_path / "killed").rglob("*.tmp"))
