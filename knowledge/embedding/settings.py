"""Which methods make concept vectors, with which settings. Light: loads neither torch nor PyKEEN."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from kvlp.errors import ConfigError
from kvlp.knowledge.surfaces import near

__all__ = ["METHODS", "STARTS", "resolve", "statements_have_types"]

#: what the nodes of the GAT are before they are trained
STARTS = ("random", "text", "transe")

_LEARNED = {"dim": 64, "seed": 0, "epochs": 500, "lr": 0.01, "relation_types": True}
#: method -> its settings with their defaults; how they were chosen stands in docs/vectors.md
_DEFAULTS: dict[str, dict[str, Any]] = {
    "transe": {**_LEARNED, "epochs": 300, "batch_size": 256, "negatives": 25},
    "rotate": {**_LEARNED, "epochs": 300, "lr": 0.03, "batch_size": 256, "negatives": 25},
    "complex": {**_LEARNED, "epochs": 100, "lr": 0.03, "batch_size": 256, "negatives": 25},
    "gat": {**_LEARNED, "epochs": 300, "lr": 0.005, "start": "random"},
    "text": {"dim": 64, "seed": 0},
    "random": {"dim": 64, "seed": 0},
}
METHODS = tuple(_DEFAULTS)
_COMPLEX = ("rotate", "complex")


def resolve(method: str, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return all settings of a method: those given, and the method's own for the rest (and for None).

    Args:
        method: one of `METHODS`.
        given: of dim (length of a vector as it comes out, even for rotate and complex), seed, and where the method
            learns: epochs, lr, batch_size, negatives (false ends per statement), relation_types (False: all relations
            are one; for gat: its network does not see them, as published, only its score does), start (gat: what the
            nodes begin as).

    Raises:
        ConfigError: an unknown method or setting (the nearest is named), or a value out of its range.
    """
    if method not in _DEFAULTS:
        hint = near(str(method), METHODS, n=1)
        close = f"; did you mean '{hint[0]}'?" if hint else ""
        raise ConfigError(f"concept vectors: expected a method among {', '.join(METHODS)}, got '{method}'{close}")
    settings = dict(_DEFAULTS[method])
    for key, value in (given or {}).items():
        if value is None:
            continue
        if key not in settings:
            hint = near(key, settings, n=1)
            close = f"; did you mean '{hint[0]}'?" if hint else f"; it has {', '.join(settings)}"
            raise ConfigError(f"concept vectors: method '{method}' has no setting '{key}'{close}")
        settings[key] = _checked(key, value)
    if method in _COMPLEX and settings["dim"] % 2:
        raise ConfigError(
            f"concept vectors: method '{method}' has complex numbers, two places each; expected an even dim, "
            f"got {settings['dim']}"
        )
    return settings


def statements_have_types(method: str, settings: Mapping[str, Any]) -> bool:
    """Whether statements keep their relation types: the GAT's score needs them even where its network sees none."""
    return method == "gat" or bool(settings.get("relation_types", True))


def _checked(key: str, value: Any) -> Any:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if key == "relation_types":
        good, expected = isinstance(value, bool), "true or false"
    elif key == "start":
        good, expected = value in STARTS, f"one of {', '.join(STARTS)}"
    elif key == "lr":
        good = (whole or isinstance(value, float)) and 0 < value < math.inf
        expected = "a number above 0"
    elif key == "seed":
        good, expected = whole and 0 <= value < 2**32, "a whole number from 0 to 2^32 - 1"
    else:
        least = 0 if key == "epochs" else 1
        good, expected = whole and value >= least, f"a whole number from {least}"
    if not good:
        raise ConfigError(f"concept vectors: {key}: expected {expected}, got {value!r}")
    return value
