"""Painters of what lies in the lung itself. Each adds to the scene and returns where, zero elsewhere."""

import numpy as np

from kvlp.datasets.phantom.anatomy import Scene
from kvlp.datasets.phantom.cases import FindingSpec
from kvlp.datasets.phantom.fields import Field, dots, ellipse, lobes, noise, polyline, step, stroke

__all__ = [
    "atelectasis",
    "bulla",
    "calcified_granuloma",
    "consolidation",
    "interstitial_opacities",
    "lung_abscess",
    "lung_cavity",
    "lung_mass",
    "lung_nodule",
    "miliary_pattern",
    "pulmonary_edema",
    "spot",
]

_ZONE_Y = {"upper": (0.25, 0.34), "mid": (0.43, 0.51), "lower": (0.58, 0.65)}


def spot(scene: Scene, spec: FindingSpec, rng: np.random.Generator, radius: float) -> tuple[float, float]:
    """(x, y) in the lung for something round, from the plain patient so that other findings do not move it."""
    low, high = _ZONE_Y[spec.zone or "mid"]
    y = float(rng.uniform(low, high))
    a = scene.plain
    up = max(0.56 - y, 0.0) / (0.56 - a.apex)
    widest = 0.17 + (a.half_width - 0.17) * float(np.sqrt(max(1 - up * up, 0.05))) - radius - 0.02
    inner = min((0.13 if y < 0.5 else 0.2) + 0.5 * radius, widest - 0.01)
    return 0.5 + spec.signs[0] * float(rng.uniform(inner, widest)), y


def _fill(scene: Scene, alpha: Field) -> None:
    scene.fluid = 1 - (1 - scene.fluid) * (1 - alpha)


def _wobble(scene: Scene, rng: np.random.Generator, cells: int, amount: float) -> Field:
    return noise(rng, scene.size, cells) * np.float32(amount)


def consolidation(scene: Scene, spec: FindingSpec, rng: np.random.Generator) -> Field:
    """A fluffy dense patch in one zone, with air bronchograms."""
    size = (0.075, 0.10, 0.13)[spec.severity - 1] * (0.85 + 0.15 * spec.contrast)
    centre = spot(scene, spec, rng, size * 0.75)
    r = ellipse(scene.x, scene.y, centre, (size, size * float(rng.uniform(0.8, 1.1))), float(rng.uniform(-0.5, 0.5)))
    cloud = step(1 - r + _wobble(scene, rng, 22, 0.22) + _wobble(scene, rng, 48, 0.1), 0.75)
    cloud = cloud * np.clip(1.5 - r, 0, 1)
    hilum = np.array([0.5 + spec.signs[0] * 0.08, 0.45])
    ends = np.array(centre) + rng.uniform(-0.7, 0.7, (4, 2)) * size
    air = np.zeros_like(cloud)
    for end in ends:
        middle = 0.5 * (np.array(centre) + end) + rng.uniform(-0.01, 0.01, 2)
        start = np.array(centre) + 0.75 * size * (hilum - centre) / np.linalg.norm(hilum - np.array(centre))
        air = np.maximum(air, polyline(scene.x, scene.y, np.array([start, middle, end]), scene.line * 1.2))
    alpha = cloud * np.float32(0.75 * spec.contrast) * (1 - 0.5 * air)
    _fill(scene, alpha)
    return cloud * scene.lung


def atelectasis(scene: Scene, spec: FindingSpec, rng: np.random.Generator) -> Field:
    """Mild: plate-like lines at the base. More: a wedge of collapsed lower lobe, with the dome pulled up."""
    total = np.zeros_like(scene.x)
    for sign in spec.signs:
        if spec.severity == 1:
            alpha = _plates(scene, sign, rng) * scene.lung
            scene.extra += alpha * np.float32(0.9 * spec.contrast)
        else:
            alpha = _wedge(scene, sign, spec.severity, rng)
            _fill(scene, alpha * np.float32(0.9 * (0.3 + 0.7 * spec.contrast)))
            # Behind the heart the collapsed lobe shows as a second, denser shadow.
            scene.extra += alpha * scene.middle * scene.cage * np.float32(0.8 * spec.contrast)
            alpha = alpha * scene.cage
        total = np.maximum(total, alpha)
    return total


def _plates(scene: Scene, sign: int, rng: np.random.Generator) -> Field:
    out = np.zeros_like(scene.x)
    floor = scene.plain.dome[int(sign > 0)]
    for n in range(3):
        start = float(rng.uniform(0.10, 0.16))
        stop = start + float(rng.uniform(0.13, 0.18))
        y = floor - 0.045 - 0.05 * n - float(rng.uniform(0, 0.02))
        tilt = float(rng.uniform(-0.035, 0.035))
        ends = np.array([[0.5 + sign * start, y], [0.5 + sign * stop, y + tilt]])
        out = np.maximum(out, polyline(scene.x, scene.y, ends, max(0.012, scene.line * 1.6)))
    return out


def _wedge(scene: Scene, sign: int, severity: int, rng: np.random.Generator) -> Field:
    """A triangle from the hilum to the diaphragm, sharp on its lateral side."""
    top = 0.46 if severity == 3 else 0.52
    reach = (0.21 if severity == 2 else 0.28) + 0.06 * (sign > 0) + float(rng.uniform(-0.01, 0.02))
    floor = scene.plain.dome[int(sign > 0)]
    along = np.clip((scene.y - np.float32(top)) / np.float32(floor - top), 0, 1.2)
    border = np.float32(0.07) + np.float32(reach - 0.02) * along**1.3
    return (
        scene.on(sign)
        * step(border - scene.u, 0.012)
        * step(scene.u - np.float32(0.045), 0.04)
        * step(scene.y - np.float32(top), 0.03)
    )


def pulmonary_edema(scene: Scene, spec: FindingSpec, rng: np.random.Generator) -> Field:
    """Perihilar haze on both sides, blurred fluffy vessels, short septal lines at the bases."""
    grade = (0.33, 0.48, 0.62)[spec.severity - 1] * spec.contrast
    r = ellipse(scene.u, scene.y, (0.135, 0.49), (0.15 + 0.02 * spec.severity, 0.25))
    cloud = np.clip(1.35 - r, 0, 1) ** 2
    cloud = cloud * np.clip(0.8 + _wobble(scene, rng, 18, 0.28) + _wobble(scene, rng, 40, 0.16), 0, 1.3)
    _fill(scene, np.clip(cloud * np.float32(grade), 0, 0.9))
    rows = stroke((scene.y * 28 + noise(rng, scene.size, 8) * 0.15) % 1 - 0.5, 0.22)
    edge = step(scene.rim(plain=True) - 0.80, 0.1) * step(0.97 - scene.rim(plain=True), 0.04)
    lines = rows * edge * step(scene.y - 0.56, 0.08) * scene.lung
    scene.texture += lines * np.float32(0.22 * spec.contrast)
    return np.maximum(cloud, lines) * scene.lung


def lung_nodule(scene: Scene, spec: FindingSpec, rng: np.random.Generator) -> Field:
    """One round spot, sharp at its edge."""
    radius = (0.029, 0.034, 0.039)[spec.severity - 1]
    alpha = step(1 - ellipse(scene.x, scene.y, spot(scene, spec, rng, radius), (radius, radius)), 0.35) * scene.lung
    scene.extra += alpha * np.float32(1.3 * spec.contrast)
    return alpha


def lung_mass(scene: Scene, spec: FindingSpec, rng: np.random.Generator) -> Field:
    """A large lobulated opacity with short spicules."""
    radius = (0.065, 0.08, 0.095)[spec.severity - 1]
    centre = spot(scene, spec, rng, radius)
    r = ellipse(scene.x, scene.y, centre, (radius, radius * float(rng.uniform(0.85, 1.05))))
    angle = np.arctan2(scene.y - np.float32(centre[1]), scene.x - np.float32(centre[0]))
    r = r + lobes(angle, rng, {2: 0.05, 3: 0.07, 5: 0.05, 8: 0.03, 13: 0.025, 19: 0.02})
    alpha = step(1 - r, 0.22) * scene.lung
    scene.extra += alpha * np.float32(1.2 * spec.contrast)
    return alpha


def interstitial_opacities(scene: Scene, spec: FindingSpec, rng: np.random.Generator) -> Field:
    """A net of fine lines in both lungs, densest at the bases and the rim."""
    coarse = noise(rng, scene.size, 31) + noise(rng, scene.size, 44)
    fine = noise(rng, scene.size, 39) + noise(rng, scene.size, 57)
    net = np.maximum(1 - np.minimum(np.abs(coarse), np.abs(fine)) / np.float32(0.42), 0)
    top = (0.46, 0.40, 0.32)[spec.severity - 1]
    where = np.clip((scene.y - np.float32(top)) * 6, 0, 1) * np.clip(0.35 + scene.rim(plain=True) * 0.75, 0, 1)
    alpha = net * where * scene.lung
    scene.texture += alpha * np.float32((0.42 + 0.07 * spec.severity) * spec.contrast)
    return alpha


def _ring(
    scene: Scene, centre: tuple[float, float], radius: float, wall: float, rng: np.random.Generator
) -> tuple[Field, Field]:
    """(wall, hollow) of a ring shadow, a little irregular."""
    angle = np.arctan2(scene.y - np.float32(centre[1]), scene.x - np.float32(centre[0]))
    r = ellipse(scene.x, scene.y, centre, (radius, radius * float(rng.uniform(0.88, 1.0))))
    inner = r + lobes(angle, rng, {2: 0.04, 3: 0.04, 5: 0.03})
    r = r + lobes(angle, rng, {2: 0.03, 3: 0.03, 7: 0.015})
    outer = step(1 - r, max(0.12, scene.line * 1.2 / radius))
    hollow = step(np.float32(1 - wall / radius) - inner, max(0.12, scene.line * 1.2 / radius))
    return np.maximum(outer - hollow, 0), hollow


def lung_cavity(scene: Scene, spec: FindingSpec, rng: np.random.Generator) -> Field:
    """A thick wall around a lucent centre."""
    radius = (0.058, 0.068, 0.08)[spec.severity - 1]
    wall, hollow = _ring(scene, spot(scene, spec, rng, radius), radius, 0.021, rng)
    scene.extra += (wall * np.float32(0.62 * spec.contrast) - hollow * np.float32(0.09)) * scene.lung
    return (wall + hollow) * scene.lung


def lung_abscess(scene: Scene, spec: FindingSpec, rng: np.random.Generator) -> Field:
    """A dense round shadow, half full: fluid below a straight level, air above, haze around."""
    radius = (0.068, 0.08, 0.092)[spec.severity - 1]
    centre = spot(scene, spec, rng, radius)
    wall, hollow = _ring(scene, centre, radius, 0.019, rng)
    level = np.float32(centre[1] + radius * float(rng.uniform(-0.1, 0.25)))
    below = step(scene.y - level, max(0.006, scene.line)) if scene.case.view != "AP supine" else np.float32(0.35)
    haze = np.clip(1.55 - ellipse(scene.x, scene.y, centre, (radius, radius)), 0, 0.5) * (1 - wall - hollow)
    dense = wall * np.float32(0.85) + hollow * below * np.float32(0.85) - hollow * (1 - below) * np.float32(0.1)
    scene.extra += (dense + haze * np.float32(0.25)) * np.float32(spec.contrast) * scene.lung
    return (wall + hollow + haze) * scene.lung


def miliary_pattern(scene: Scene, spec: FindingSpec, rng: np.random.Generator) -> Field:
    """Innumerable tiny dots, even over both lungs."""
    alpha = np.maximum(
        dots(scene.x, scene.y, rng, 0.031, 0.0095), dots(scene.x + 0.4, scene.y + 0.3, rng, 0.037, 0.0095)
    )
    alpha = alpha * scene.lung
    scene.texture += alpha * np.float32((0.34 + 0.06 * spec.severity) * spec.contrast)
    return alpha


def bulla(scene: Scene, spec: FindingSpec, rng: np.random.Generator) -> Field:
    """A large black bubble in the upper lung with a hair-thin wall and no markings."""
    radius = (0.085, 0.10, 0.115)[spec.severity - 1]
    a = scene.plain
    x = 0.5 + spec.signs[0] * (a.half_width - 0.06 - radius + float(rng.uniform(-0.01, 0.01)))
    centre = (x, a.apex + 0.07 + radius + float(rng.uniform(0, 0.07)))
    r = ellipse(scene.x, scene.y, centre, (radius, radius * float(rng.uniform(1.0, 1.2))))
    inside = step(1 - r, 0.08) * scene.lung
    wall = stroke(r - 1, max(0.05, scene.line * 1.3 / radius)) * scene.lung
    scene.tissue = scene.tissue * (1 - inside)
    scene.extra += wall * np.float32(0.25 * spec.contrast) - inside * np.float32(0.14 * spec.contrast)
    return np.maximum(inside, wall)


def calcified_granuloma(scene: Scene, spec: FindingSpec, rng: np.random.Generator) -> Field:
    """One to three tiny spots, whiter than bone."""
    out = np.zeros_like(scene.x)
    x, y = spot(scene, spec, rng, 0.04)
    for n in range(spec.severity):
        radius = float(rng.uniform(0.0115, 0.0155)) * (0.85 + 0.15 * spec.contrast) * (1.0 if n == 0 else 0.8)
        at = (x, y) if n == 0 else (x + float(rng.uniform(-0.05, 0.05)), y + float(rng.uniform(-0.05, 0.05)))
        out = np.maximum(out, step(1 - ellipse(scene.x, scene.y, at, (radius, radius)), 0.6))
    out = out * scene.cage
    scene.extra += out * np.float32(2.4 * (0.4 + 0.6 * spec.contrast))
    return out
