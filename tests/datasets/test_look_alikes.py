"""Pairs of an unseen finding and what looks like it: same chest, same place, other findings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kvlp.cli import main
from kvlp.datasets.manifest import Manifest
from kvlp.datasets.phantom.drawing import render
from kvlp.datasets.phantom.lists import LOOKS_LIKE, SEEN, UNSEEN
from kvlp.datasets.phantom.look_alikes import STAND_INS, look_alike_cases

PAIRS = {name: look_alike_cases(5, number) for number, name in enumerate(STAND_INS)}


@pytest.mark.parametrize("name", STAND_INS)
def test_a_pair_is_one_chest_with_the_finding_and_with_its_stand_ins(name: str):
    with_it, without = PAIRS[name]
    assert tuple(with_it.findings) == (name,)
    assert set(without.findings) == {stand_in for stand_in, _ in STAND_INS[name]} <= set(SEEN) & LOOKS_LIKE[name]
    assert name in UNSEEN
    assert (with_it.patient_seed, with_it.seed, with_it.view) == (without.patient_seed, without.seed, without.view)
    assert {(s.severity, s.difficulty) for case in PAIRS[name] for s in case.findings.values()} == {
        (with_it.findings[name].severity, with_it.findings[name].difficulty)
    }
    assert (with_it.labels[name], without.labels[name]) == (1.0, 0.0)


def test_fluid_and_air_stand_on_opposite_sides():
    with_it, without = PAIRS["hydropneumothorax"]
    side = with_it.findings["hydropneumothorax"].side
    assert without.findings["pleural_effusion"].side == side
    assert {side, without.findings["pneumothorax"].side} == {"left", "right"}


def test_the_pictures_differ_only_where_something_is_drawn():
    with_it, without = (render(case, 96) for case in PAIRS["lung_cavity"])
    changed = np.abs(with_it.image.astype(int) - without.image.astype(int)) > 12
    left, top, right, bottom = (round(v) for v in with_it.boxes["lung_cavity"])
    inside = np.zeros_like(changed)
    inside[max(0, top - 12) : bottom + 12, max(0, left - 12) : right + 12] = True
    assert changed.any()
    assert (changed & ~inside).mean() < 0.02


def test_the_reader_writes_test_images_of_its_own_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="0"):
        main(["data", "import", "phantom-look-alikes", "6", "--out", str(tmp_path)])
    manifest = Manifest.load(tmp_path / "manifest.csv")
    assert len(manifest) == 12
    assert {(r.split, r.source) for r in manifest} == {("test", "phantom-look-alikes")}
    assert [r.labels for r in manifest][:4] == [
        {"hydropneumothorax": 1.0}, {"hydropneumothorax": 0.0}, {"lung_cavity": 1.0}, {"lung_cavity": 0.0}
    ]  # fmt: skip
    with pytest.raises(SystemExit, match=r"[12]"):
        main(["data", "import", "phantom-look-alikes", "few", "--out", str(tmp_path / "b")])
    assert "number of pairs" in capsys.readouterr().err
