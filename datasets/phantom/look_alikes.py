"""Pairs of studies that differ only in an unseen finding or in the seen ones that it looks like.

A score that finds a hydropneumothorax because it shows fluid and air gives an effusion and a pneumothorax on opposite
sides as much. So each pair is one chest twice: once with the unseen finding, once with its stand-ins, of the same
severity and difficulty and at the same place.
"""

from typing import Final

import numpy as np

from kvlp.datasets.phantom.cases import DIFFICULTIES, Case, FindingSpec, sample_case
from kvlp.datasets.phantom.fields import stream

__all__ = ["STAND_INS", "look_alike_cases", "pair_finding"]

#: unseen finding -> the seen ones that stand in for it, each on its "same" or the "other" side
STAND_INS: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "hydropneumothorax": (("pleural_effusion", "same"), ("pneumothorax", "other")),
    "lung_cavity": (("lung_mass", "same"),),
    "miliary_pattern": (("interstitial_opacities", "same"),),
}
_BOTH_SIDES: Final = frozenset({"miliary_pattern"})
_OTHER: Final = {"left": "right", "right": "left", "bilateral": "bilateral"}


def pair_finding(patient: int) -> str:
    """The unseen finding of a pair; they take turns, so that each has as many pairs as the others."""
    return list(STAND_INS)[patient % len(STAND_INS)]


def look_alike_cases(seed: int, patient: int) -> list[Case]:
    """The two studies of a pair, the unseen finding's first: a pure function of (seed, patient)."""
    name = pair_finding(patient)
    plain = sample_case(np.random.default_rng([seed, 3, patient]))
    chest = plain.without(*plain.findings)
    rng = stream(chest.seed, "look_alikes")
    side = "bilateral" if name in _BOTH_SIDES else ("left", "right")[int(rng.integers(2))]
    severity = int(rng.integers(2, 4))
    difficulty = DIFFICULTIES[int(rng.choice(3, p=(0.6, 0.3, 0.1)))]
    zone = ("upper", "mid", "lower")[int(rng.integers(3))] if name == "lung_cavity" else ""

    def spec(finding: str, where: str) -> FindingSpec:
        return FindingSpec(finding, where, severity, difficulty, zone, int(rng.integers(2**62)))

    stand_ins = chest
    for finding, at in STAND_INS[name]:
        stand_ins = stand_ins.adding(spec(finding, side if at == "same" else _OTHER[side]))
    return [chest.adding(spec(name, side)), stand_ins]
