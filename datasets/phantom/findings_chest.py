"""Painters of pleura, diaphragm, hila, bone and chest wall; each adds to the scene and returns where."""

import numpy as np

from kvlp.datasets.phantom.anatomy import Scene, fracture_site
from kvlp.datasets.phantom.cases import FindingSpec
from kvlp.datasets.phantom.fields import Field, ellipse, noise, step, stroke

__all__ = [
    "bilateral_hilar_lymphadenopathy",
    "enlarged_hilum",
    "hiatal_hernia",
    "hydropneumothorax",
    "pleural_effusion",
    "pleural_thickening",
    "pneumoperitoneum",
    "pneumothorax",
    "rib_fracture",
    "subcutaneous_emphysema",
]


def _fill(scene: Scene, alpha: Field) -> None:
    scene.fluid = 1 - (1 - scene.fluid) * (1 - alpha)


def pleural_effusion(scene: Scene, spec: FindingSpec, rng: np.random.Generator) -> Field:
    """Upright: a meniscus that climbs at the side. Supine: a veil, thicker towards the base."""
    total = np.zeros_like(scene.x)
    for sign in spec.signs:
        floor = scene.plain.dome[int(sign > 0)]
        if scene.case.view == "AP supine":
            dense = (0.30, 0.42, 0.55)[spec.severity - 1] * (0.6 + 0.4 * spec.contrast)
            slope = np.clip(0.45 + 0.9 * (scene.y - 0.3), 0.35, 1.0)
            angle = step(scene.y - np.float32(floor - 0.05) - 0.9 * (0.34 - scene.u), 0.08)
            cap = step(scene.rim(plain=True) - 0.93, 0.05) * step(0.4 - scene.y, 0.1)
            alpha = np.clip(slope * np.float32(dense) + 0.5 * angle + 0.3 * cap, 0, 0.97)
        else:
            height = (0.015, 0.10, 0.24)[spec.severity - 1] + float(rng.uniform(-0.01, 0.02))
            climb = np.clip((scene.u - 0.16) / np.float32(scene.plain.half_width - 0.16), 0, 1.1) ** 3
            level = np.float32(floor - height + 0.02) - climb * np.float32(0.085 + 0.12 * height)
            alpha = step(scene.y - level, 0.022) * np.float32(0.97 - 0.3 * (1 - spec.contrast))
        alpha = alpha * scene.on(sign)
        _fill(scene, alpha)
        total = np.maximum(total, alpha)
    return total * scene.lung


def _air_shell(scene: Scene, sign: int, depth: float) -> tuple[Field, Field]:
    """(free air, visceral line) between the chest wall and the edge of a lung that fell in by `depth`."""
    rim = scene.rim(plain=True)
    lower = np.clip((scene.y - 0.42) / 0.3, 0, 1)
    lung_edge = np.float32(1) - np.float32(depth) * (1 - np.float32(0.72) * lower)
    side = scene.on(sign) * scene.lung
    air = step(rim - lung_edge, 0.02) * side
    # The line runs free of the wall: none where the lung still touches it.
    line = stroke(rim - lung_edge + np.float32(0.012), max(0.022, scene.line * 4)) * side
    return air, line


def _free_air(scene: Scene, air: Field, line: Field, contrast: float) -> None:
    scene.tissue = scene.tissue * (1 - air)
    scene.extra -= air * np.float32(0.11 * (0.4 + 0.6 * contrast))
    scene.extra += line * np.float32(0.26 * contrast)


def pneumothorax(scene: Scene, spec: FindingSpec, rng: np.random.Generator) -> Field:
    """Black rim without markings outside a thin pleural line, widest at the apex."""
    depth = (0.20, 0.32, 0.50)[spec.severity - 1] * (0.85 + 0.15 * spec.contrast) + float(rng.uniform(-0.01, 0.01))
    air, line = _air_shell(scene, spec.signs[0], depth)
    _free_air(scene, air, line, spec.contrast)
    alpha = np.maximum(air, line)
    if spec.severity == 3:
        lung = (1 - air) * scene.on(spec.signs[0]) * np.float32(0.16)
        _fill(scene, lung)
        alpha = np.maximum(alpha, lung * scene.lung)
    return alpha


def hydropneumothorax(scene: Scene, spec: FindingSpec, rng: np.random.Generator) -> Field:
    """A straight level: fluid below, air without markings above, the lung fallen in. Supine: air over a veil."""
    sign = spec.signs[0]
    air, line = _air_shell(scene, sign, (0.32, 0.40, 0.50)[spec.severity - 1])
    level = np.float32(0.66 - 0.05 * spec.severity + float(rng.uniform(-0.02, 0.02)))
    side = scene.on(sign) * scene.lung
    below = step(scene.y - level, 0.008)
    fluid = below * side
    _free_air(scene, air * (1 - fluid), line * (1 - fluid), 0.5 + 0.5 * spec.contrast)
    _fill(scene, below * scene.on(sign) * np.float32(0.96 - 0.25 * (1 - spec.contrast)))
    return np.maximum(np.maximum(air, line), fluid)


def pleural_thickening(scene: Scene, spec: FindingSpec, rng: np.random.Generator) -> Field:
    """A dense uneven band along the side wall, sometimes with a calcified streak."""
    rim = scene.rim(plain=True)
    depth = (0.16, 0.21, 0.27)[spec.severity - 1]
    wave = noise(rng, scene.size, 14) * np.float32(0.035)
    ends = step(scene.y - 0.27, 0.06) * step(0.70 - scene.y, 0.06)
    total = np.zeros_like(scene.x)
    chalk = rng.random() < 0.4
    for sign in spec.signs:
        alpha = step(rim - np.float32(1 - depth) + wave, 0.03) * ends * scene.on(sign) * step(scene.u - 0.24, 0.05)
        _fill(scene, alpha * np.float32(0.97 * (0.5 + 0.5 * spec.contrast)))
        if chalk:
            scene.extra += stroke(rim - np.float32(0.965), 0.02) * alpha * scene.lung * np.float32(0.8)
        total = np.maximum(total, alpha * scene.lung)
    return total


def pneumoperitoneum(scene: Scene, spec: FindingSpec, rng: np.random.Generator) -> Field:
    """A black crescent between a dome and what lies below it."""
    thick = (0.038, 0.052, 0.066)[spec.severity - 1] * (0.85 + 0.15 * spec.contrast)
    total = np.zeros_like(scene.x)
    middle = 0.18 + float(rng.uniform(-0.01, 0.015))
    dome = scene.diaphragm()
    for sign in spec.signs:
        width = np.clip(1 - ((scene.u - np.float32(middle)) / np.float32(0.145)) ** 2, 0, 1)
        under = scene.y - dome - np.float32(0.011)
        alpha = step(under, 0.007) * step(np.float32(thick) * width - under, 0.009) * (width > 0) * scene.on(sign)
        scene.extra -= alpha * np.float32(0.55 + 0.5 * spec.contrast)
        total = np.maximum(total, alpha)
    return total


def hiatal_hernia(scene: Scene, spec: FindingSpec, rng: np.random.Generator) -> Field:
    """A round pouch behind the heart with gas over a level."""
    radius = (0.062, 0.076, 0.09)[spec.severity - 1]
    centre = (0.5 + float(rng.uniform(-0.005, 0.03)), 0.735 - 0.35 * radius)
    r = ellipse(scene.x, scene.y, centre, (radius, radius * 0.9))
    pouch = step(1 - r, 0.1)
    gas = step(0.82 - r, 0.14)
    if scene.case.view != "AP supine":
        gas = gas * step(np.float32(centre[1] + 0.15 * radius) - scene.y, 0.01)
    wall = stroke(r - 0.94, 0.13)
    scene.extra += pouch * np.float32(0.2) + wall * np.float32(0.22 * spec.contrast)
    scene.extra -= gas * np.float32(0.6 + 0.55 * spec.contrast)
    return np.maximum(pouch, wall)


def subcutaneous_emphysema(scene: Scene, spec: FindingSpec, rng: np.random.Generator) -> Field:
    """Black streaks in the soft tissue of flank, axilla and neck."""
    warp = noise(rng, scene.size, 9) * np.float32(1.6) + noise(rng, scene.size, 22) * np.float32(0.7)
    fibres = np.sin(scene.u * 95 - scene.y * 42 + warp * np.float32(2.2))
    patches = np.clip(0.55 + noise(rng, scene.size, 11) * 0.6, 0, 1)
    streaks = np.maximum(fibres, 0) * patches
    bubbles = np.maximum(noise(rng, scene.size, 36) - 0.9, 0)
    outer = step(scene.rim(plain=True) - 1.05, 0.03) * step(0.80 - scene.y, 0.05) * step(scene.y - 0.03, 0.03)
    reach = step(scene.u - 0.05, 0.03) * (1 - scene.cage)
    total = np.zeros_like(scene.x)
    amount = (0.7, 0.9, 1.1)[spec.severity - 1] * (0.5 + 0.5 * spec.contrast)
    for sign in spec.signs:
        where = outer * reach * scene.on(sign)
        alpha = np.minimum(streaks + bubbles, 1.3) * where
        scene.extra -= alpha * np.float32(amount)
        total = np.maximum(total, alpha)
    return total


def rib_fracture(scene: Scene, spec: FindingSpec, rng: np.random.Generator) -> Field:
    """Where ribs are broken (they are broken where they are drawn), and a faint swelling around."""
    a = scene.anatomy
    rib, at, _ = fracture_site(spec)
    swelling = np.zeros_like(scene.x)
    arch = 0.11 * a.rib_slope * at * at
    for sign in spec.signs:
        for n in range(spec.severity + 1):
            y = (a.apex + 0.012 + a.rib_gap * (rib + n) - 0.035 * np.sin(3 * at) + arch * 0.6) / (1 - arch)
            centre = (0.5 + sign * at * a.half_width, float(y))
            swelling = np.maximum(swelling, np.clip(1.1 - ellipse(scene.x, scene.y, centre, (0.05, 0.045)), 0, 1))
    scene.extra += swelling * np.float32(0.5 * spec.contrast)
    return np.maximum(swelling, scene.broken)


def _hilar(scene: Scene, spec: FindingSpec, rng: np.random.Generator, signs: tuple[int, ...], size: float) -> Field:
    total = np.zeros_like(scene.x)
    for sign in signs:
        lobes = np.zeros_like(scene.x)
        for dx, dy, share in ((0.0, 0.0, 1.0), (0.25, -0.75, 0.72), (0.2, 0.8, 0.78)):
            at = (
                0.5 + sign * (0.105 + dx * size),
                0.445 - 0.012 * sign + dy * size + float(rng.uniform(-0.005, 0.005)),
            )
            lobes = np.maximum(lobes, step(1 - ellipse(scene.x, scene.y, at, (size * share,) * 2), 0.3))
        total = np.maximum(total, lobes)
    return total * scene.lung


def enlarged_hilum(scene: Scene, spec: FindingSpec, rng: np.random.Generator) -> Field:
    """A hilum that is too big and too dense."""
    size = (0.056, 0.066, 0.076)[spec.severity - 1]
    alpha = _hilar(scene, spec, rng, spec.signs, size)
    scene.extra += alpha * np.float32(0.85 * spec.contrast)
    return alpha


def bilateral_hilar_lymphadenopathy(scene: Scene, spec: FindingSpec, rng: np.random.Generator) -> Field:
    """Lumpy masses of the same size at both hila, and a thick right side of the windpipe."""
    size = (0.052, 0.062, 0.072)[spec.severity - 1]
    alpha = _hilar(scene, spec, rng, (-1, 1), size)
    stripe = step(1 - ellipse(scene.x, scene.y, (0.435, 0.31), (0.032, 0.065)), 0.3) * scene.cage
    scene.extra += np.maximum(alpha, stripe * 0.8) * np.float32(0.75 * spec.contrast)
    return np.maximum(alpha, stripe)
