"""Folders of phantom radiographs: complete, repeatable, split by patient."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from kvlp.datasets.manifest import Manifest
from kvlp.datasets.phantom import DEVICES, FINDINGS, UNSEEN, UNSEEN_FINAL, generate_phantom
from kvlp.datasets.phantom.generate import patient_cases
from kvlp.errors import ConfigError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("phantom")
    return out, generate_phantom(out, patients=40, seed=5, size=64, jobs=1)


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_everything_is_there(made):
    out, manifest = made
    assert 40 <= len(manifest) <= 80
    again = Manifest.load(out / "manifest.csv")
    assert again.content_hash == manifest.content_hash
    for record in again:
        with Image.open(again.path_of(record)) as image:
            assert image.size == (64, 64)
            assert image.mode == "L"
        assert record.text.count("FINDINGS:") == 1
        assert set(record.labels) <= {*FINDINGS, *DEVICES}
        assert record.view in ("PA", "AP", "AP supine")
    truth = [json.loads(line) for line in (out / "truth.jsonl").read_text().splitlines()]
    assert [t["id"] for t in truth] == [r.id for r in again]
    for t, r in zip(truth, again):
        assert {f["id"] for f in t["findings"] + t["devices"]} == {k for k, v in r.labels.items() if v == 1}


@pytest.mark.slow
def test_jobs_do_not_change_a_byte(made, tmp_path):
    out, _ = made
    generate_phantom(tmp_path, patients=40, seed=5, size=64, jobs=2)
    assert contents(tmp_path) == contents(out)


def test_another_seed_is_another_set(made, tmp_path):
    _, manifest = made
    other = generate_phantom(tmp_path, patients=20, seed=6, size=64, jobs=1)
    assert not {r.text for r in other} & {r.text for r in manifest}


def test_more_patients_leave_the_first_ones_as_they_are(made, tmp_path):
    out, _ = made
    few = generate_phantom(tmp_path, patients=10, seed=5, size=64, jobs=1)
    for record in few:
        assert few.path_of(record).read_bytes() == (out / record.image).read_bytes()


def test_no_patient_is_in_two_splits(made):
    _, manifest = made
    splits = {}
    for record in manifest:
        splits.setdefault(record.patient_id, set()).add(record.split)
    assert all(len(s) == 1 for s in splits.values())
    assert {s for v in splits.values() for s in v} == {"train", "dev", "test"}


def test_a_thousand_images_hold_some_sixty_of_each_unseen_finding():
    cases = [c for p in range(800) for c in patient_cases(0, p)][:1000]
    counts = {name: sum(name in c.findings for c in cases) for name in UNSEEN + UNSEEN_FINAL}
    assert min(counts.values()) >= 50
    assert np.mean(list(counts.values())) >= 70


def test_fractions_are_kept(tmp_path):
    made = generate_phantom(tmp_path, patients=30, seed=1, size=64, jobs=1, fractions={"all": 1.0})
    assert {r.split for r in made} == {"all"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of patients and images"),
        ({"patients": 3, "images": 3}, "exactly one of patients and images"),
        ({"patients": 0}, "patients >= 1"),
        ({"patients": 2, "jobs": 0}, "jobs >= 1"),
        ({"patients": 2, "fractions": {"train": 0.5}}, "add up to 1"),
        ({"patients": 2, "size": 20}, "64 to 2048"),
    ],
)
def test_bad_arguments_are_named(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        generate_phantom(tmp_path / "x", **{"jobs": 1, **options})


@pytest.mark.slow
def test_a_script_without_a_main_guard_draws_in_several_processes(tmp_path):
    script = (
        "from kvlp.datasets.phantom import generate_phantom\n"
        "print('begin')\n"
        "print(len(generate_phantom('out', patients=60, seed=5, size=64, jobs=2)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-"], input=script, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "begin"
    assert len(done.stdout.split()) == 2  # no worker ran the script again
