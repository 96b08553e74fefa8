"""A case: one patient in one study, with its view, findings and devices; drawn by `render`, told by `write_report`."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from kvlp.datasets.phantom.fields import stream
from kvlp.datasets.phantom.lists import (
    ALL_UNSEEN,
    CHRONIC,
    DEVICE_RATES,
    DEVICES,
    FINDINGS,
    LABELS,
    LOOKS_LIKE,
    NORMAL_SHARE,
    RATES,
    SEEN,
    VIEW_RATES,
    VIEWS,
)
from kvlp.errors import ConfigError

DIFFICULTIES = ("easy", "medium", "hard")
_ZONES = ("upper", "mid", "lower")
_ROUND = frozenset({"lung_nodule", "lung_mass", "lung_cavity", "lung_abscess", "calcified_granuloma"})
_MIDLINE = frozenset({"cardiomegaly", "hiatal_hernia", "dextrocardia", "aortic_enlargement"})
_BILATERAL = frozenset(
    {
        "pulmonary_edema",
        "hyperinflation",
        "interstitial_opacities",
        "miliary_pattern",
        "bilateral_hilar_lymphadenopathy",
    }
)
#: Pairs that hide or contradict each other; the second is dropped.
_NEVER_WITH: dict[str, frozenset[str]] = {
    "hyperinflation": frozenset({"elevated_hemidiaphragm", "miliary_pattern"}),
    "interstitial_opacities": frozenset({"miliary_pattern"}),
    "pulmonary_edema": frozenset({"miliary_pattern", "interstitial_opacities"}),
    "enlarged_hilum": frozenset({"bilateral_hilar_lymphadenopathy"}),
    "mediastinal_shift": frozenset({"dextrocardia", "scoliosis"}),
}


@dataclass(frozen=True, slots=True)
class FindingSpec:
    """How one finding or device looks in one case.

    Attributes:
        id: concept id of the chest graph.
        side: "left", "right" (the patient's), "bilateral" or "midline".
        severity: 1 (small, mild) to 3 (large, severe).
        difficulty: "easy", "medium" or "hard": contrast and size as drawn.
        zone: "upper", "mid", "lower" or "" where a zone says nothing.
        seed: the finding's own random stream.
    """

    id: str
    side: str = "midline"
    severity: int = 2
    difficulty: str = "easy"
    zone: str = ""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if self.id not in LABELS:
            raise ConfigError(f"the phantom draws no {self.id!r}; it draws: {', '.join(LABELS)}")
        if self.severity not in (1, 2, 3) or self.difficulty not in DIFFICULTIES:
            raise ConfigError(
                f"{self.id}: expected severity 1..3 and difficulty {'/'.join(DIFFICULTIES)}, "
                f"got {self.severity} and {self.difficulty!r}"
            )
        if self.side not in ("left", "right", "bilateral", "midline"):
            raise ConfigError(f"{self.id}: expected side left, right, bilateral or midline, got {self.side!r}")

    @property
    def contrast(self) -> float:
        """Factor on density: 1 easy, 0.85 medium, 0.7 hard."""
        return {"easy": 1.0, "medium": 0.85, "hard": 0.7}[self.difficulty]

    @property
    def signs(self) -> tuple[int, ...]:
        """Sides as signs: +1 is the patient's left, at the picture's right."""
        return {"left": (1,), "right": (-1,), "bilateral": (-1, 1), "midline": (1,)}[self.side]


@dataclass(frozen=True, slots=True)
class Case:
    """One study of one patient.

    Attributes:
        patient_seed: the stream of the patient's anatomy.
        seed: the study's stream (position, exposure, noise).
        view: "PA", "AP" or "AP supine".
        findings: id -> FindingSpec.
        devices: id -> FindingSpec.
        previous: findings of the study before, None for a first study.
    """

    patient_seed: int
    seed: int
    view: str = "PA"
    findings: Mapping[str, FindingSpec] = field(default_factory=dict)
    devices: Mapping[str, FindingSpec] = field(default_factory=dict)
    previous: tuple[str, ...] | None = None

    def without(self, *ids: str) -> "Case":
        """The same study without these findings or devices; everything else stays as it is.

        Raises:
            ConfigError: the case does not have one of them.
        """
        missing = [i for i in ids if i not in self.findings and i not in self.devices]
        if missing:
            have = ", ".join([*self.findings, *self.devices]) or "nothing"
            raise ConfigError(f"the case has no {missing[0]!r} to take away; it has: {have}")
        return replace(
            self,
            findings={k: v for k, v in self.findings.items() if k not in ids},
            devices={k: v for k, v in self.devices.items() if k not in ids},
        )

    def adding(self, spec: FindingSpec) -> "Case":
        """The same study with one more finding or device."""
        if spec.id in DEVICES:
            return replace(self, devices={**self.devices, spec.id: spec})
        return replace(self, findings={**self.findings, spec.id: spec})

    @property
    def labels(self) -> dict[str, float]:
        """Truth as drawn: 1 and 0 for every finding and device.

        A label is left out where a drawn finding looks partly like it (see LOOKS_LIKE: a hydropneumothorax
        holds fluid and air, yet is neither a plain effusion nor a plain pneumothorax): it counts neither way.
        """
        present = {*self.findings, *self.devices}
        blank = frozenset().union(*(LOOKS_LIKE.get(i, frozenset()) for i in present)) - present
        return {name: float(name in present) for name in LABELS if name not in blank}


class _Room:
    """Which part of which side is taken, so that findings do not hide each other."""

    def __init__(self) -> None:
        self.taken: set[tuple[int, str]] = set()

    def claim(self, rng: np.random.Generator, parts: tuple[str, ...], *, both: float = 0.0) -> str | None:
        """A free side ("left", "right", "bilateral") for these parts, or None."""
        free = [s for s in (-1, 1) if not any((s, p) in self.taken for p in parts)]
        if not free:
            return None
        wants_both = rng.random() < both
        chosen = free if wants_both and len(free) == 2 else [free[int(rng.integers(len(free)))]]
        self.taken.update((s, p) for s in chosen for p in parts)
        return "bilateral" if len(chosen) == 2 else {1: "left", -1: "right"}[chosen[0]]


def _place(name: str, severity: int, room: _Room, rng: np.random.Generator) -> tuple[str, str] | None:
    """Side and zone for a finding, or None when there is no room for it to be seen."""
    if name in _MIDLINE:
        return "midline", ""
    if name in _BILATERAL:
        return "bilateral", ""
    if name in _ROUND or name == "consolidation":
        for zone in rng.permutation(_ZONES):
            side = room.claim(rng, (str(zone),))
            if side:
                return side, str(zone)
        return None
    parts, both = {
        "hydropneumothorax": (("apex", "upper", "mid", "lower", "base", "wall"), 0.0),
        "pleural_effusion": (("base", "lower") + (("mid",) if severity == 3 else ()), 0.35),
        "pneumothorax": (("apex", "wall") + (("upper",) if severity == 3 else ()), 0.0),
        "atelectasis": (("lower",), 0.1),
        "elevated_hemidiaphragm": (("base", "lower"), 0.0),
        "pneumoperitoneum": (("base",), 0.4),
        "pleural_thickening": (("wall",), 0.25),
        "enlarged_hilum": (("hilum",), 0.15),
        "bulla": (("apex", "upper"), 0.0),
        "rib_fracture": (("rib",), 0.0),
        "subcutaneous_emphysema": (("skin",), 0.3),
    }.get(name, (("own:" + name,), 0.0))
    claimed = room.claim(rng, parts, both=both)
    zone = {"atelectasis": "lower", "bulla": "upper"}.get(name, "")
    return None if claimed is None else (claimed, zone)


def _spec(name: str, seed: int, room: _Room) -> FindingSpec | None:
    rng = stream(seed, name)
    severity = int(rng.choice(3, p=(0.2, 0.4, 0.4))) + 1
    difficulty = DIFFICULTIES[int(rng.choice(3, p=(0.6, 0.3, 0.1)))]
    placed = _place(name, severity, room, rng)
    if placed is None:
        return None
    return FindingSpec(name, placed[0], severity, difficulty, placed[1], int(rng.integers(2**62)))


def _wanted(seed: int) -> list[str]:
    """Ids the study should have, each from its own draw; edema and effusion follow the heart, moderately."""
    draws = stream(seed, "has").random(1 + len(FINDINGS)).tolist()
    if draws[0] < NORMAL_SHARE:
        return []
    chance = dict(zip(FINDINGS, draws[1:]))
    factor = dict.fromkeys(FINDINGS, 1.0)
    heart = chance["cardiomegaly"] < RATES["cardiomegaly"]
    factor["pulmonary_edema"] = 2.6 if heart else 0.95
    edema = chance["pulmonary_edema"] < RATES["pulmonary_edema"] * factor["pulmonary_edema"]
    factor["pleural_effusion"] = 2.4 if edema else 1.2 if heart else 0.95
    effusion = chance["pleural_effusion"] < RATES["pleural_effusion"] * factor["pleural_effusion"]
    factor["atelectasis"] = 1.5 if effusion else 0.95
    factor["subcutaneous_emphysema"] = 1.8 if chance["rib_fracture"] < RATES["rib_fracture"] else 0.95
    return [name for name in FINDINGS if chance[name] < RATES[name] * factor[name]]


def _sample_findings(seed: int, kept: Mapping[str, FindingSpec] | None) -> dict[str, FindingSpec]:
    """Findings of a study; `kept` (a second study) replaces the chronic ones."""
    wanted = [n for n in _wanted(seed) if kept is None or n not in CHRONIC] + list(kept or {})
    room = _Room()
    found: dict[str, FindingSpec] = {}
    rank = dict(zip(FINDINGS, stream(seed, "order").permutation(len(FINDINGS)).tolist()))
    # What a patient already has stays; then the rarer, unseen findings choose their place.
    for name in sorted(wanted, key=lambda n: (kept is None or n not in kept, n not in ALL_UNSEEN, rank[n])):
        if any(name in _NEVER_WITH.get(o, ()) or o in _NEVER_WITH.get(name, ()) for o in found):
            continue
        if kept is not None and name in kept:
            found[name] = kept[name]
            continue
        spec = _spec(name, seed, room)
        if spec is not None:
            found[name] = spec
    return {name: found[name] for name in FINDINGS if name in found}


def _sample_devices(seed: int, view: str) -> dict[str, FindingSpec]:
    column = VIEWS.index(view)
    out = {}
    for name in DEVICES:
        rng = stream(seed, "device:" + name)
        if rng.random() < DEVICE_RATES[name][column]:
            side = "left" if rng.random() < 0.8 else "right"
            if name == "central_venous_catheter":
                side = "right" if rng.random() < 0.7 else "left"
            elif name != "pacemaker":
                side = "midline"
            out[name] = FindingSpec(name, side, 2, "easy", "", int(rng.integers(2**62)))
    return out


def sample_case(rng: np.random.Generator, *, previous: Case | None = None, view: str | None = None) -> Case:
    """Draw a case.

    Args:
        rng: one draw from it seeds every stream of the case.
        previous: an earlier study of the same patient; chronic findings and a pacemaker stay.
        view: "PA", "AP" or "AP supine"; drawn when None. View, like devices, is independent of disease.
    """
    seed = int(rng.integers(2**62))
    if view is None:
        view = VIEWS[int(stream(seed, "view").choice(len(VIEWS), p=VIEW_RATES))]
    devices = _sample_devices(seed, view)
    if previous is None:
        return Case(seed, seed, view, _sample_findings(seed, None), devices)
    kept = {k: v for k, v in previous.findings.items() if k in CHRONIC}
    devices = {k: v for k, v in devices.items() if k != "pacemaker"}
    devices |= {k: v for k, v in previous.devices.items() if k == "pacemaker"}
    findings = _sample_findings(seed, kept)
    return Case(previous.patient_seed, seed, view, findings, devices, tuple(previous.findings))


__all__ = ["DIFFICULTIES", "SEEN", "Case", "FindingSpec", "sample_case"]
