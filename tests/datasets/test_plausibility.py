"""What the coarse radiograph check flags, and what it must let pass."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from kvlp.datasets.images import inspect_image, load_grey, radiograph_check

Y, X = (np.mgrid[:256, :256] + 0.5) / 256


def ellipse(x: float, y: float, rx: float, ry: float) -> np.ndarray:
    return ((X - x) / rx) ** 2 + ((Y - y) / ry) ** 2 < 1


def chest() -> np.ndarray:
    """A drawing: bright body to the lower edges, two dark lungs, a bright middle."""
    body = np.where(ellipse(0.5, 0.9, 0.55, 0.85), 0.75, 0.05)
    body[ellipse(0.29, 0.5, 0.15, 0.3) | ellipse(0.71, 0.5, 0.15, 0.3)] = 0.25
    return body.astype(np.float32)


def axial_slice() -> np.ndarray:
    """A body of CT: an ellipse in air with two dark lungs."""
    picture = np.where(ellipse(0.5, 0.5, 0.44, 0.32), 0.6, 0.0)
    picture[ellipse(0.33, 0.5, 0.12, 0.2) | ellipse(0.67, 0.5, 0.12, 0.2)] = 0.1
    return picture.astype(np.float32)


def as_type(picture: np.ndarray, kind: str) -> np.ndarray:
    scale = {"uint8": 255, "uint16": 65535}.get(kind)
    return picture.astype(kind) if scale is None else np.rint(picture * scale).astype(kind)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_a_chest_passes_and_a_slice_does_not(kind: str) -> None:
    assert radiograph_check(as_type(chest(), kind)).ok
    assert "CT" in radiograph_check(as_type(axial_slice(), kind)).reason


def test_a_chest_within_black_margins_passes() -> None:
    framed = np.zeros((400, 300), np.float32)
    framed[80:336, 22:278] = chest()
    assert radiograph_check(framed).ok


def test_what_is_flagged_and_why() -> None:
    rng = np.random.default_rng(0)
    colour = np.dstack([chest(), chest() * 0.6, chest() * 0.3])
    text = np.ones((256, 256), np.float32)
    text[::4] = rng.random((64, 256)) > 0.5
    cases = {
        "single grey": [np.zeros((64, 64), np.uint8), np.full((64, 64), 255, np.uint8), np.full((64, 64), 0.5)],
        "colour": [colour, as_type(colour, "uint8")],
        "noise": [rng.random((64, 64)), rng.integers(0, 256, (70, 70), dtype=np.uint8)],
        "inverted": [1 - chest()],
        "left and right": [np.broadcast_to(np.linspace(0.2, 1, 256, dtype=np.float32), (256, 256))],
        "too small": [chest()[:20, :20], chest()[:40]],
    }
    for reason, pictures in cases.items():
        for picture in pictures:
            verdict = radiograph_check(picture)
            assert not verdict.ok
            assert reason in verdict.reason


def test_grey_stored_as_rgb_is_not_a_colour_picture() -> None:
    assert radiograph_check(np.dstack([as_type(chest(), "uint8")] * 3)).ok


@pytest.mark.parametrize("count", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_real_radiographs_pass(kvlp_data: Path, count: int) -> None:
    """At most 2 in 100 of a sample are flagged."""
    folder = kvlp_data / "cxr-real"
    if not (folder / "manifest.csv").exists():
        pytest.skip("no cxr-real")
    with (folder / "manifest.csv").open(newline="") as file:
        paths = [folder / row["image"] for row in csv.DictReader(file)]
    sample = np.random.default_rng(1).choice(len(paths), count, replace=False)
    flagged = [i for i in sample if not inspect_image(paths[i])[1].ok]
    assert len(flagged) <= 0.02 * count + 2  # two more by chance in a small sample


def test_an_inverted_real_radiograph_is_flagged(kvlp_data: Path) -> None:
    path = kvlp_data / "dicom" / "chest" / "rsna_chest_cr_mono2_jpegbaseline.dcm"
    if not path.exists():
        pytest.skip("no DICOM samples")
    grey = load_grey(path)
    assert radiograph_check(grey).ok
    assert "inverted" in radiograph_check(1 - grey).reason


def test_the_phantom_passes() -> None:
    phantom = pytest.importorskip("kvlp.datasets.phantom")
    flagged = 0
    for seed in range(25):
        case = phantom.sample_case(np.random.default_rng(seed))
        flagged += not radiograph_check(phantom.render(case, size=96).image).ok
    assert flagged == 0
