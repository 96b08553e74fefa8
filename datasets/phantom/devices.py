"""Painters of tubes, lines and a pacemaker: bright, sharp, and drawn the same with and without disease."""

import numpy as np
from numpy.typing import NDArray

from kvlp.datasets.phantom.anatomy import Scene
from kvlp.datasets.phantom.cases import FindingSpec
from kvlp.datasets.phantom.fields import Field, polyline, step, stream

__all__ = ["central_venous_catheter", "endotracheal_tube", "nasogastric_tube", "pacemaker", "paint_device"]


def _curve(points: list[tuple[float, float]], count: int = 18) -> NDArray[np.float64]:
    """A smooth path (Catmull-Rom) through points."""
    p = np.array([points[0], *points, points[-1]], float)
    t = np.linspace(0, 1, count // max(1, len(points) - 1) + 2)[:-1, None]
    parts = []
    for a, b, c, d in zip(p[:-3], p[1:-2], p[2:-1], p[3:]):
        parts.append(0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - 3 * c + d - a) * t**3))
    return np.concatenate([*parts, p[-1:]])


def pacemaker(scene: Scene, spec: FindingSpec, rng: np.random.Generator) -> Field:
    """A generator under the collar bone and one or two leads to the heart."""
    sign = spec.signs[0]
    x0, y0 = 0.5 + sign * float(rng.uniform(0.27, 0.31)), float(rng.uniform(0.22, 0.26))
    dx, dy = np.abs(scene.x - np.float32(x0)) / 0.052, np.abs(scene.y - np.float32(y0)) / 0.042
    box = step(1 - (dx**4 + dy**4) ** 0.25, 0.12)
    leads = np.zeros_like(box)
    for drop in (0.68, 0.60)[: int(rng.integers(1, 3))]:
        tip = (0.5 + 0.10 * (drop - 0.5) * 10 * 0.55, drop)
        way = _curve([(x0 - sign * 0.03, y0 - 0.03), (0.5 + sign * 0.12, 0.205), (0.462, 0.30), (0.452, 0.48), tip])
        leads = np.maximum(leads, polyline(scene.x, scene.y, way, max(0.008, scene.line * 1.4)))
    scene.extra += box * np.float32(1.8) + leads * np.float32(1.0) * (1 - box)
    return np.maximum(box, leads)


def endotracheal_tube(scene: Scene, spec: FindingSpec, rng: np.random.Generator) -> Field:
    """A tube down the windpipe with a bright stripe."""
    x = 0.5 + float(rng.uniform(-0.004, 0.004))
    tip = float(rng.uniform(0.27, 0.33))
    way = np.array([(x + float(rng.uniform(-0.02, 0.02)), -0.02), (x, 0.14), (x, tip)])
    tube = polyline(scene.x, scene.y, way, 0.013)
    stripe = polyline(scene.x, scene.y, way, max(0.009, scene.line * 1.6))
    scene.extra += tube * np.float32(0.4) + stripe * np.float32(1.3)
    return np.maximum(tube, stripe)


def central_venous_catheter(scene: Scene, spec: FindingSpec, rng: np.random.Generator) -> Field:
    """A thin line from the neck or below the collar bone into the great vein on the right of the midline."""
    sign = spec.signs[0]
    tip = (0.452, float(rng.uniform(0.40, 0.48)))
    near, across = (0.455, 0.46) if sign < 0 else (0.51, 0.53)
    if rng.random() < 0.6:
        start = [(0.5 + sign * 0.085, 0.0), (0.5 + sign * 0.07, 0.13), (near, 0.25)]
    else:
        start = [(0.5 + sign * 0.34, 0.27), (0.5 + sign * 0.17, 0.195), (across, 0.235)]
    points = [*start, (0.452, 0.33), tip]
    alpha = polyline(scene.x, scene.y, _curve(points), max(0.009, scene.line * 1.6))
    scene.extra += alpha * np.float32(1.3)
    return alpha


def nasogastric_tube(scene: Scene, spec: FindingSpec, rng: np.random.Generator) -> Field:
    """A line down the midline that turns into the stomach on the left."""
    drift = float(rng.uniform(-0.008, 0.008))
    points = [(0.5, -0.02), (0.508 + drift, 0.2), (0.512, 0.5), (0.52, 0.76), (0.585, 0.87), (0.655, 0.885)]
    alpha = polyline(scene.x, scene.y, _curve(points, 30), max(0.009, scene.line * 1.6))
    scene.extra += alpha * np.float32(1.2)
    return alpha


_PAINTERS = {
    "pacemaker": pacemaker,
    "endotracheal_tube": endotracheal_tube,
    "central_venous_catheter": central_venous_catheter,
    "nasogastric_tube": nasogastric_tube,
}


def paint_device(scene: Scene, spec: FindingSpec) -> Field:
    """Draw one device into the scene and return where."""
    return _PAINTERS[spec.id](scene, spec, stream(spec.seed, "paint"))
