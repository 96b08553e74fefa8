"""Zero-shot classification: name findings in plain words, get scores, calibrated answers and reasons.

Names load lazily.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvlp.zero_shot.calibration import Calibration, ClassCalibration
    from kvlp.zero_shot.classifier import ZeroShotClassifier
    from kvlp.zero_shot.ensemble import Ensemble
    from kvlp.zero_shot.explain import Explanation, PromptScore
    from kvlp.zero_shot.heat import HeatMap, overlay
    from kvlp.zero_shot.scoring import ImplausibleImageWarning

_WHERE = {
    "Calibration": "calibration",
    "ClassCalibration": "calibration",
    "Ensemble": "ensemble",
    "Explanation": "explain",
    "HeatMap": "heat",
    "ImplausibleImageWarning": "scoring",
    "PromptScore": "explain",
    "ZeroShotClassifier": "classifier",
    "overlay": "heat",
}

__all__ = [
    "Calibration",
    "ClassCalibration",
    "Ensemble",
    "Explanation",
    "HeatMap",
    "ImplausibleImageWarning",
    "PromptScore",
    "ZeroShotClassifier",
    "overlay",
]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'kvlp.zero_shot' has no attribute {name!r}")
    value = getattr(import_module(f"kvlp.zero_shot.{_WHERE[name]}"), name)
    globals()[name] = value
    return value
