"""A case as a picture: scene, findings, devices, exposure, noise, markers."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kvlp.datasets.phantom.anatomy import SOFT, Scene
from kvlp.datasets.phantom.cases import Case
from kvlp.datasets.phantom.devices import paint_device
from kvlp.datasets.phantom.fields import Field, ellipse, noise, step, stream, stroke
from kvlp.datasets.phantom.findings import paint, structure
from kvlp.errors import ConfigError

__all__ = ["Rendering", "render"]

_GLYPHS = {
    "S": "011 100 010 001 110",
    "Y": "101 101 010 010 010",
    "N": "1001 1101 1011 1001 1001",
    "T": "111 010 010 010 010",
    "H": "101 101 111 101 101",
    "E": "111 100 110 100 111",
    "I": "1 1 1 1 1",
    "C": "011 100 100 100 011",
    "L": "100 100 100 100 111",
    "R": "110 101 110 101 101",
}
MIN_SIZE, MAX_SIZE = 64, 2048


@dataclass(frozen=True, slots=True)
class Rendering:
    """A drawn case.

    Attributes:
        image: uint8 (size, size), bone bright, the patient's left at the picture's right.
        masks: id -> bool (size, size), every pixel the finding may touch; for findings that change shape
            (lists.SHAPED) the changed structure, for example the heart.
        boxes: id -> (x0, y0, x1, y1) in pixels, half open, around the mask's core.
    """

    image: NDArray[np.uint8]
    masks: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    boxes: Mapping[str, tuple[int, int, int, int]] = field(default_factory=dict)


def render(case: Case, size: int = 96) -> Rendering:
    """Draw a case at any size; the geometry is the same at each.

    Args:
        case: what to draw.
        size: pixels on a side, 64 to 2048.

    Raises:
        ConfigError: size out of range.
    """
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise ConfigError(f"phantom size: expected {MIN_SIZE} to {MAX_SIZE} pixels, got {size}")
    scene = Scene(case, size)
    scene.bones()
    alphas: dict[str, Field] = {}
    for name, spec in case.findings.items():
        alphas[name] = paint(scene, spec)
    for name, spec in case.devices.items():
        alphas[name] = paint_device(scene, spec)
    for name in case.findings:
        alphas[name] = structure(scene, name, alphas[name])
    image = _develop(_thickness(scene), case, size)
    _burn(image, case)
    masks = {name: alpha > 0 for name, alpha in alphas.items()}
    boxes = {name: _box(alpha) for name, alpha in alphas.items()}
    return Rendering(image, masks, {k: v for k, v in boxes.items() if v is not None})


def _thickness(scene: Scene) -> Field:
    """Everything the beam went through, as one thickness field."""
    a, y, u = scene.anatomy, scene.y, scene.u
    body = scene.body()
    air = scene.lung * (1 - scene.fluid)
    tissue = np.float32(a.lung) * (np.float32(0.75) + scene.vessels() * np.float32(0.9))
    low = np.float32(a.wall) * (np.float32(0.85) + np.float32(0.4) * y)
    muscle = np.float32(0.12) * np.maximum(1 - ((y - 0.22) / 0.2) ** 2, 0) * step(u - np.float32(0.11), 0.08)
    total = low + muscle + np.float32(SOFT) * (1 - air) + air * scene.tissue * (tissue + scene.texture)
    if a.breast:
        fold = ellipse(u, y, (0.235, 0.60), (0.17, 0.15))
        total += np.float32(a.breast) * step(1 - fold, 0.12) * np.clip((y - 0.42) * 5, 0, 1)
    outside = np.clip((u - np.float32(a.half_width)) * 6, 0, 0.6)
    total -= outside * np.float32(0.75) * (1 - scene.cage)
    total -= _airways(scene) + _stomach(scene)
    total += scene.bone + scene.extra
    return np.maximum(total, 0) * body


def _airways(scene: Scene) -> Field:
    a, x, y = scene.anatomy, scene.x, scene.y
    middle = np.float32(0.5 + a.shift + a.twist)
    trachea = step(np.float32(0.021) - np.abs(x - middle), 0.01) * step(np.float32(0.37) - y, 0.02)
    run = (y - np.float32(0.36)) / np.float32(0.09)
    here = step(run, 0.1) * step(1 - run, 0.2)
    right = stroke(x - middle + np.float32(0.055) * run, 0.014)
    left = stroke(x - middle - np.float32(0.075) * run, 0.013)
    return trachea * np.float32(0.38) + here * np.maximum(right, left) * np.float32(0.28)


def _stomach(scene: Scene) -> Field:
    """Gas in the stomach under the left dome, with a level when upright."""
    a = scene.anatomy
    if not a.bubble:
        return np.zeros_like(scene.x)
    rng = stream(scene.case.seed, "stomach")
    high = a.dome[1] + 0.085 + float(rng.uniform(0, 0.02))
    r = ellipse(scene.x, scene.y, (0.5 + float(rng.uniform(0.13, 0.19)), high), (0.05 + 0.035 * a.bubble, 0.05))
    gas = step(1 - r, 0.2)
    if scene.case.view != "AP supine":
        gas = gas * step(np.float32(high + 0.022) - scene.y, 0.008)
    return gas * np.float32(0.3 + 0.45 * a.bubble)


def _develop(thickness: Field, case: Case, size: int) -> NDArray[np.uint8]:
    """Thickness to 8-bit grey: exposure, contrast, grain."""
    rng = stream(case.seed, "exposure")
    strength = float(rng.uniform(0.85, 1.2))
    gamma = float(rng.uniform(0.85, 1.15))
    floor = float(rng.uniform(0.0, 0.05))
    grey = (1 - np.exp(thickness * np.float32(-strength))) ** np.float32(gamma)
    grey = np.float32(floor) + np.float32(float(rng.uniform(0.9, 1.0)) - floor) * grey
    grain = stream(case.seed, f"grain:{size}").standard_normal((size, size), dtype=np.float32)
    sigma = float(rng.uniform(0.006, 0.02)) * (1.25 if case.view != "PA" else 1.0)
    mottle = noise(stream(case.seed, "mottle"), size, 40) * np.float32(0.006)
    shade = noise(stream(case.seed, "shade"), size, 3) * np.float32(0.012)
    grey += (grain * np.float32(sigma) + mottle) * (np.float32(1.15) - grey) + shade * grey
    image: NDArray[np.uint8] = np.clip(grey * 255 + 0.5, 0, 255).astype(np.uint8)
    return image


def _word(text: str) -> NDArray[np.bool_]:
    rows = [[], [], [], [], []]  # type: list[list[int]]
    for letter in text:
        for row, bits in zip(rows, _GLYPHS[letter].split()):
            row.extend([int(b) for b in bits] + [0])
    return np.array(rows, dtype=bool)[:, :-1]


_SYNTHETIC = _word("SYNTHETIC")
_MARKERS = {letter: _word(letter) for letter in "LR"}


def _stamp(image: NDArray[np.uint8], word: NDArray[np.bool_], top: int, left: int, zoom: int, grey: int) -> None:
    big = np.kron(word, np.ones((zoom, zoom), dtype=bool))
    view = image[top : top + big.shape[0], left : left + big.shape[1]]
    view[big[: view.shape[0], : view.shape[1]]] = grey


def _burn(image: NDArray[np.uint8], case: Case) -> None:
    """The word SYNTHETIC on a dark strip at the bottom, and a side marker at the top; both independent of disease."""
    size = len(image)
    zoom = max(1, round(size / 110))
    strip = 5 * zoom + 2
    image[-strip:] = image[-strip:] // 3
    width = _SYNTHETIC.shape[1] * zoom
    _stamp(image, _SYNTHETIC, size - 5 * zoom - 1, (size - width) // 2, zoom, 190)
    rng = stream(case.seed, "marker")
    letter = "L" if rng.random() < 0.6 else "R"
    tall = max(1, round(size * float(rng.uniform(0.011, 0.016))))
    inset = int(size * float(rng.uniform(0.03, 0.08)))
    top = int(size * float(rng.uniform(0.02, 0.06)))
    left = size - inset - 3 * tall if letter == "L" else inset
    _stamp(image, _MARKERS[letter], top, left, tall, int(rng.integers(215, 256)))


def _box(alpha: Field) -> tuple[int, int, int, int] | None:
    core = alpha > 0.25 * float(alpha.max(initial=0))
    rows, cols = np.flatnonzero(core.any(axis=1)), np.flatnonzero(core.any(axis=0))
    if not len(rows):
        return None
    return int(cols[0]), int(rows[0]), int(cols[-1]) + 1, int(rows[-1]) + 1
