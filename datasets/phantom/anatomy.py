"""The patient: projected chest anatomy as a handful of numbers, and the fields they make.

Coordinates are unit squares: x to the right of the picture (the patient's left), y down. `u` is the distance from
the midline. Tissue is counted as thickness; `drawing` turns thickness into grey.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kvlp.datasets.phantom.cases import Case, FindingSpec
from kvlp.datasets.phantom.fields import Field, ellipse, grid, noise, step, stream, stroke

SOFT = 1.25  # thickness that soft tissue adds where there is no air
LUNG = 0.20  # thickness of aerated lung
_CENTRE = 0.17  # u of a lung's centre


@dataclass(frozen=True, slots=True)
class Anatomy:
    """Numbers that make one patient in one position; pairs are (patient's right, patient's left)."""

    half_width: float = 0.40
    apex: float = 0.115
    dome: tuple[float, float] = (0.755, 0.775)
    curve: tuple[float, float] = (0.075, 0.075)
    heart_ratio: float = 0.45
    heart_sign: int = 1
    heart_height: float = 0.185
    pedicle: float = 0.062
    knob: float = 0.042
    tortuous: float = 0.0
    shift: float = 0.0
    bend: tuple[float, float] = (0.0, 1.0)
    hilum: float = 1.0
    wall: float = 0.24
    flesh: float = 0.06
    lung: float = LUNG
    rib_gap: float = 0.078
    rib_slope: float = 1.0
    breast: float = 0.0
    scapula: float = 0.0
    bubble: float = 0.6
    turn: float = 0.0
    scale: float = 1.0
    offset: tuple[float, float] = (0.0, 0.0)
    twist: float = 0.0


def draw_anatomy(case: Case) -> Anatomy:
    """The healthy patient of a case in the position of its view (no finding applied)."""
    rng, pose = stream(case.patient_seed, "anatomy"), stream(case.seed, "pose")
    habitus = float(rng.normal())
    width = float(np.clip(0.395 + 0.014 * rng.normal(), 0.36, 0.425))
    dome = float(np.clip(0.765 + 0.022 * rng.normal(), 0.71, 0.81))
    curve = float(rng.uniform(0.06, 0.095))
    near = case.view != "PA"
    supine = case.view == "AP supine"
    dome -= 0.02 * near + 0.015 * supine
    return Anatomy(
        half_width=width,
        apex=float(rng.uniform(0.095, 0.135)),
        dome=(dome - float(rng.uniform(0.004, 0.014)), dome + float(rng.uniform(0.004, 0.014))),
        curve=(curve, curve * float(rng.uniform(0.9, 1.1))),
        heart_ratio=float(np.clip(rng.normal(0.445, 0.022), 0.39, 0.49)) * (1.05 if near else 1.0),
        heart_height=float(rng.uniform(0.17, 0.2)),
        pedicle=float(rng.uniform(0.055, 0.066)) * (1.1 if supine else 1.0),
        knob=float(rng.uniform(0.034, 0.046)),
        hilum=float(rng.uniform(0.8, 1.15)),
        wall=float(np.clip(0.24 + 0.045 * habitus, 0.15, 0.36)),
        flesh=float(np.clip(0.06 + 0.018 * habitus, 0.025, 0.1)),
        lung=LUNG * float(rng.uniform(0.85, 1.2)) * (1.15 if supine else 1.0),
        rib_gap=float(rng.uniform(0.073, 0.083)),
        rib_slope=float(rng.uniform(0.8, 1.2)),
        breast=float(rng.uniform(0.1, 0.24)) if rng.random() < 0.5 else 0.0,
        scapula=float(pose.uniform(0.3, 1.0)) if near else float(pose.uniform(0, 0.35)),
        bubble=float(pose.uniform(0.25, 1.0)) if pose.random() < 0.75 else 0.0,
        turn=float(np.clip(pose.normal(0, 0.022), -0.06, 0.06)),
        scale=float(pose.uniform(0.94, 1.06)),
        offset=(float(pose.normal(0, 0.012)), float(pose.normal(0, 0.012))),
        twist=float(np.clip(pose.normal(0, 0.006), -0.012, 0.012)),
    )


def _side(pair: tuple[float, float], sign: int, change: float) -> tuple[float, float]:
    """`pair` with `change` added on one side."""
    return (pair[0] + change, pair[1]) if sign < 0 else (pair[0], pair[1] + change)


def reshape(anatomy: Anatomy, spec: FindingSpec) -> Anatomy:
    """The patient with one finding that changes shape; other findings leave the anatomy as it is."""
    rng, grade, k = stream(spec.seed, "shape"), spec.severity - 1, spec.contrast
    match spec.id:
        case "cardiomegaly":
            ratio = (0.61, 0.67, 0.73)[grade] - 0.06 * (1 - k) + float(rng.uniform(-0.01, 0.01))
            return replace(anatomy, heart_ratio=ratio, heart_height=anatomy.heart_height + 0.02 + 0.012 * grade)
        case "hyperinflation":
            drop = (0.055 + 0.02 * grade) * (0.55 + 0.45 * k)
            flat = 0.4 - 0.1 * grade
            return replace(
                anatomy,
                dome=(anatomy.dome[0] + drop, anatomy.dome[1] + drop),
                curve=(anatomy.curve[0] * flat, anatomy.curve[1] * flat),
                half_width=anatomy.half_width + 0.012,
                heart_ratio=anatomy.heart_ratio * (0.86 - 0.03 * grade),
                lung=anatomy.lung * (0.62 - 0.1 * grade),
                rib_slope=anatomy.rib_slope * 0.5,
                rib_gap=anatomy.rib_gap * 1.06,
            )
        case "mediastinal_shift":
            amount = (0.055, 0.08, 0.105)[grade] * (0.7 + 0.3 * k)
            return replace(anatomy, shift=anatomy.shift + spec.signs[0] * amount)
        case "elevated_hemidiaphragm":
            rise = (0.13, 0.165, 0.20)[grade] * (0.7 + 0.3 * k)
            return replace(anatomy, dome=_side(anatomy.dome, spec.signs[0], -rise))
        case "dextrocardia":
            return replace(anatomy, heart_sign=-anatomy.heart_sign)
        case "aortic_enlargement":
            grow = (1.65, 1.95, 2.3)[grade] * (0.75 + 0.25 * k)
            return replace(
                anatomy, knob=anatomy.knob * grow, pedicle=anatomy.pedicle * 1.12, tortuous=0.4 + 0.3 * grade
            )
        case "scoliosis":
            bend = (0.048, 0.064, 0.08)[grade] * (0.7 + 0.3 * k)
            sign = 1.0 if rng.random() < 0.5 else -1.0
            return replace(anatomy, bend=(sign * bend, float(rng.uniform(0.9, 1.25))))
        case "atelectasis" if spec.severity > 1:
            sign = 0.0 if len(spec.signs) == 2 else float(spec.signs[0])
            rise = 0.012 * spec.severity
            dome = anatomy.dome
            for s in spec.signs:
                dome = _side(dome, s, -rise)
            return replace(anatomy, dome=dome, shift=anatomy.shift + sign * 0.007 * spec.severity)
        case _:
            return anatomy


class Scene:
    """Fields of one picture while it is being painted, all float32 (size, size).

    Attributes:
        x, y: patient coordinates; u: distance from the midline; left: True on the patient's left.
        cage: inside the chest wall and above the diaphragm; heart, middle: soft tissue between the lungs.
        lung: air of both lungs in [0, 1]; fluid: share of that air replaced; tissue: factor on lung texture;
        texture: thickness added to lung that still holds air and touches the wall.
        extra: thickness added (or taken) on top; bone: thickness of bone; broken: where ribs are.
        plain: the anatomy before findings; anatomy: with the findings that change shape.
    """

    def __init__(self, case: Case, size: int) -> None:
        self.case, self.size = case, size
        self.plain = draw_anatomy(case)
        shaped = self.plain
        for spec in case.findings.values():
            shaped = reshape(shaped, spec)
        self.anatomy = shaped
        self.x, self.y = _turned(shaped, size)
        self.u = np.abs(self.x - np.float32(0.5))
        self.left = self.x > 0.5
        self.edge = max(0.008, 1.3 / size)
        self.line = max(0.0045, 0.75 / size)
        self.cage = self._cage()
        self.heart, self.middle = self._middle()
        self.lung = self.cage * (1 - self.middle)
        self.fluid = np.zeros_like(self.x)
        self.tissue = np.ones_like(self.x)
        self.texture = np.zeros_like(self.x)
        self.extra = np.zeros_like(self.x)
        self.bone = np.zeros_like(self.x)
        self.broken = np.zeros_like(self.x)

    def of_side(self, pair: tuple[float, float]) -> Field:
        """A number that differs between the sides, as a field."""
        return np.where(self.left, np.float32(pair[1]), np.float32(pair[0]))

    def on(self, sign: int) -> Field:
        """1 on one side of the body, 0 on the other."""
        return (self.left if sign > 0 else ~self.left).astype(np.float32)

    def rim(self, *, plain: bool = False) -> Field:
        """Normalised radius in the thoracic cage: 1 at the chest wall, less inside."""
        a = self.plain if plain else self.anatomy
        du = self.u - np.float32(_CENTRE)
        across = np.where(du > 0, du / np.float32(a.half_width - _CENTRE), du / np.float32(-0.2))
        up = np.maximum(np.float32(0.56) - self.y, 0) / np.float32(0.56 - a.apex)
        # Below its widest level the chest narrows a little.
        down = np.maximum(self.y - np.float32(0.62), 0)
        across = across + np.where(du > 0, down * np.float32(0.12), 0)
        return np.sqrt(across * across + up * up)

    def diaphragm(self, *, plain: bool = False) -> Field:
        """y of the diaphragm at each point's u and side."""
        a = self.plain if plain else self.anatomy
        t = (self.u - np.float32(0.19)) * np.float32(1 / 0.2)
        t2 = t * t
        return self.of_side(a.dome) + self.of_side(a.curve) * (t2 + np.float32(0.25) * np.maximum(t, 0) * t2)

    def _cage(self) -> Field:
        inside = step(1 - self.rim(), self.edge * 5)
        return inside * step(self.diaphragm() - self.y, self.edge)

    def _middle(self) -> tuple[Field, Field]:
        """The heart, and heart with great vessels, as soft tissue in [0, 1]."""
        a = self.anatomy
        width = a.heart_ratio * 2 * (a.half_width - 0.01)
        x = (self.x - np.float32(0.5 + a.shift)) * np.float32(a.heart_sign)
        level = 0.5 * (a.dome[0] + a.dome[1]) - 0.075
        if abs(a.dome[0] - a.dome[1]) > 0.06:
            level = max(a.dome) - 0.085
        y = self.y - np.float32(level) - np.float32(0.22) * np.maximum(x, 0)
        across = np.where(x > 0, x / np.float32(width * 0.655), x / np.float32(-width * 0.345))
        up = np.where(y < 0, y / np.float32(-a.heart_height), y / np.float32(0.13))
        heart = step(1 - np.sqrt(across**2 + up**2), self.edge * 8)
        flare = np.float32(0.035) * np.clip((np.float32(0.22) - self.y) / 0.12, -0.3, 1) ** 2
        band = np.float32(a.pedicle) + flare + np.float32(0.03) * np.clip((self.y - 0.42) / 0.2, 0, 1)
        pedicle = step(band - np.abs(x + np.float32(a.twist)), self.edge * 1.5)
        knob = 1 - ellipse(x, self.y, (0.03 + 0.6 * (a.knob - 0.04), 0.315), (a.knob + 0.006, 1.25 * a.knob))
        trunk = 1 - ellipse(x, self.y, (0.036, 0.415), (0.05, 0.085))
        bumps = step(np.maximum(knob, trunk), 0.22)
        # The waist between trunk and heart is a slope, not a notch.
        run = (self.y - np.float32(0.40)) / np.float32(level - 0.43)
        waist = step(np.float32(0.055) + np.float32(0.5 * width - 0.055) * run - x, 0.02) * step(x, 0.02)
        waist = waist * step(run, 0.1) * step(1 - run, 0.1)
        middle = np.maximum(np.maximum(heart, pedicle), np.maximum(bumps, waist))
        if a.tortuous:
            rise = step(1 - ellipse(x, self.y, (-0.045, 0.40), (0.045 + 0.03 * a.tortuous, 0.11)), 0.25)
            way = np.float32(0.03 + 0.045 * a.tortuous) * np.sin((self.y - 0.3) * np.float32(6.5))
            down = step(np.float32(0.055) - np.abs(x - way), self.edge * 2) * step(self.y - 0.3, 0.04)
            middle = np.maximum(np.maximum(middle, rise), down * 0.85)
        return heart, middle

    def spine(self) -> Field:
        """x of the spine at each y."""
        a = self.anatomy
        if not a.bend[0]:
            return np.full_like(self.y, 0.5 + 0.5 * a.twist)
        return np.float32(0.5) + np.float32(a.bend[0]) * np.sin(
            (self.y - np.float32(0.12)) * np.float32(5.2 * a.bend[1])
        )

    def body(self) -> Field:
        """The body's outline in [0, 1]: neck, shoulders, flanks."""
        a = self.plain
        rise = np.clip((self.y - np.float32(0.0)) * np.float32(1 / 0.17), 0, 1)
        shoulder = rise * rise * (3 - 2 * rise)
        half = np.float32(0.10 + 0.3 * a.flesh) + np.float32(a.half_width + a.flesh - 0.085) * shoulder
        return step(half - self.u, self.edge * 1.5)

    def bones(self) -> None:
        """Spine, ribs, clavicles and shoulder blades into `bone`."""
        a, x, y, u = self.anatomy, self.x, self.y, self.u
        away = x - self.spine()
        discs = np.float32(0.82) + np.float32(0.18) * np.sin(y * np.float32(2 * np.pi / 0.062))
        column = step(np.float32(0.036) - np.abs(away) + np.float32(0.003) * discs, self.edge * 1.5)
        pedicles = stroke(np.abs(away) - np.float32(0.021), 0.008) * (discs < 0.8)
        self.bone += column * discs * np.float32(0.38) + pedicles * np.float32(0.12)
        self._ribs(away)
        sign = np.where(self.left, np.float32(1), np.float32(-1))
        tilt = sign * np.float32(a.twist * 1.5)
        line = np.float32(0.205) - np.float32(0.19) * (u - 0.05) + np.float32(0.014) * np.sin((u - 0.05) * 19) + tilt
        ends = step(u - np.float32(0.042), 0.02) * step(np.float32(a.half_width + 0.01) - u, 0.02)
        clavicle = step(np.float32(0.0145) - np.abs(y - line), self.edge)
        self.bone += clavicle * ends * np.float32(0.22)
        if a.scapula > 0.05:
            blade = u - np.float32(a.half_width - 0.02 - 0.09 * a.scapula) - np.float32(0.12) * (y - 0.2)
            zone = step(blade, 0.012) * step(y - 0.17, 0.03) * step(0.52 - y - 0.6 * np.abs(u - 0.38), 0.05)
            self.bone += zone * np.float32(0.05 + 0.05 * a.scapula)

    def _ribs(self, from_spine: Field) -> None:
        a, y, u = self.anatomy, self.y, self.u
        gap = np.float32(a.rib_gap)
        q = np.clip(u * np.float32(1 / a.half_width), 0, 1.08)
        cage = step(np.float32(1.05) - self.rim(), 0.05)
        tilt = np.float32(0) if not a.bend[0] else (self.x - 0.5) * (self.spine() - 0.5) * np.float32(4.0)
        arch = np.float32(a.rib_slope) * (np.float32(0.11) * q * q * (np.float32(0.6) + y)) - np.float32(
            0.035
        ) * np.sin(q * 3)
        phase = (y - arch - np.float32(a.apex + 0.012) + tilt) / gap
        gaps, pieces = self._fractures(phase, q)
        index = np.round(phase)
        off = np.abs(phase - index) * gap
        half = np.float32(0.0125)
        back = step(half - off, self.edge) * ((index >= 0) & (index <= 9))
        rims = stroke(off - half * np.float32(0.8), 0.006) * back
        from_here = step(u - np.float32(0.03), 0.03)
        whole = (back * np.float32(0.115) + rims * np.float32(0.05)) * from_here * (1 - gaps)
        self.bone += (whole + pieces) * cage
        front = (y - np.float32(0.2) * (1 - q) - np.float32(a.apex + 0.09)) / (gap * np.float32(1.08))
        index = np.round(front)
        off = np.abs(front - index) * gap
        ends = step(q - np.float32(0.38), 0.25)
        show = step(np.float32(0.015) - off, self.edge * 1.4) * ((index >= 0) & (index <= 6))
        self.bone += show * ends * cage * np.float32(0.06)

    def _fractures(self, phase: Field, q: Field) -> tuple[Field, Field]:
        """Broken ribs: (where the rib is gone, thickness of the outer pieces, which stand off at an angle)."""
        gone, pieces = np.zeros_like(q), np.zeros_like(q)
        spec = self.case.findings.get("rib_fracture")
        if spec is None:
            return gone, pieces
        rib, at, jump = fracture_site(spec)
        beyond = step(q - np.float32(at), 0.02)
        dense = np.float32(0.42 + 0.3 * spec.contrast) * np.clip(1.25 - np.abs(q - np.float32(at)) * 3, 0.5, 1)
        stands = np.float32(jump) * (1 - (q - np.float32(at)) / np.float32(1.05 - at))
        for sign in spec.signs:
            for n in range(spec.severity + 1):
                away = phase - np.float32(rib + n)
                gone = np.maximum(gone, self.on(sign) * (np.abs(away) < 0.5) * step(q - np.float32(at - 0.045), 0.02))
                piece = step(np.float32(0.013) - np.abs(away - stands) * np.float32(self.anatomy.rib_gap), self.edge)
                pieces = np.maximum(pieces, piece * beyond * self.on(sign) * dense)
        self.broken = np.maximum(gone, pieces)
        return gone, pieces

    def vessels(self) -> Field:
        """Lung markings in [0, 1]: branches that run out from the hila and fade."""
        rng, a = stream(self.case.patient_seed, "vessels"), self.anatomy
        du = self.u - np.float32(0.075)
        dy = self.y - np.float32(0.44)
        far = np.sqrt(du * du + dy * dy)
        angle = np.arctan2(dy, du + np.float32(0.02)) / np.float32(np.pi) * 0.5 + 0.5
        wide = _sample(rng, self.left, far * 8, angle * 44, (8, 46))
        thin = _sample(rng, self.left, far * 10, angle * 118, (10, 120))
        lines = np.maximum(1 - np.abs(wide) * 2.4, 0) + 0.6 * np.maximum(1 - np.abs(thin) * 2.0, 0)
        fade = np.clip(np.float32(1.12) - far * np.float32(3.0), 0, 1)
        hila = np.maximum(1 - ((du - 0.012) / 0.045) ** 2 - ((dy - 0.005) / 0.075) ** 2, 0) * np.float32(a.hilum)
        return lines * fade * np.float32(0.62) + hila * np.float32(1.5)


def fracture_site(spec: FindingSpec) -> tuple[int, float, float]:
    """(first rib, place along it 0..1, step in rib gaps) of a rib fracture."""
    rng = stream(spec.seed, "fracture")
    jump = 0.52 * (0.75 + 0.25 * spec.contrast)
    return int(rng.integers(3, 6)), float(rng.uniform(0.62, 0.8)), jump * (1 if rng.random() < 0.5 else -1)


def _sample(rng: np.random.Generator, left: NDArray[np.bool_], row: Field, col: Field, shape: tuple[int, int]) -> Field:
    """Bilinear look-up in random tables, one for each side of the body."""
    rows, cols = shape
    table = rng.standard_normal(2 * rows * cols, dtype=np.float32)
    row, col = np.clip(row, 0, np.float32(rows - 1.01)), np.clip(col, 0, np.float32(cols - 1.01))
    r0, c0 = row.astype(np.int32), col.astype(np.int32)
    row, col = row - r0, col - c0
    at = (left * np.int32(rows) + r0) * np.int32(cols) + c0
    top = table.take(at) * (1 - col) + table.take(at + 1) * col
    low = table.take(at + cols) * (1 - col) + table.take(at + cols + 1) * col
    return np.asarray(top * (1 - row) + low * row, np.float32)


def _turned(a: Anatomy, size: int) -> tuple[Field, Field]:
    """Patient coordinates of each pixel: shifted, scaled and turned about the picture's centre."""
    x, y = grid(size)
    c, s = np.float32(np.cos(a.turn) / a.scale), np.float32(np.sin(a.turn) / a.scale)
    dx, dy = x - np.float32(0.5 + a.offset[0]), y - np.float32(0.5 + a.offset[1])
    return c * dx + s * dy + np.float32(0.5), c * dy - s * dx + np.float32(0.5)


__all__ = ["LUNG", "SOFT", "Anatomy", "Scene", "draw_anatomy", "fracture_site", "noise", "reshape"]
