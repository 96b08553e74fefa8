"""Many comparisons at once: Holm's correction, which keeps the chance of any false alarm at the level. NumPy alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kvlp.errors import ConfigError, DataError

__all__ = ["Holm", "holm"]


@dataclass(frozen=True, slots=True)
class Holm:
    """P-values corrected for how many there are.

    Attributes:
        adjusted: name -> corrected p-value; NaN where the p-value was not defined.
        rejected: names whose corrected p-value is at or below `level`, the smallest first.
        undefined: names without a p-value; they count as no comparison.
        level: the chance of any false rejection.
    """

    adjusted: Mapping[str, float]
    rejected: tuple[str, ...]
    undefined: tuple[str, ...]
    level: float


def holm(p_values: Mapping[str, float] | Sequence[float], level: float = 0.05) -> Holm:
    """Correct p-values for multiplicity, whatever their dependence.

    The smallest of m is multiplied by m, the next by m - 1, and so on; none may fall below one before it.

    Args:
        p_values: name -> p in [0, 1] or NaN; or a sequence (then names are "0", "1", ...).
        level: in (0, 1).

    Raises:
        DataError: a p-value outside [0, 1].
        ConfigError: a level outside (0, 1).

    Reference: Holm 1979.
    """
    if not 0 < level < 1:
        raise ConfigError(f"level is {level}; expected a number between 0 and 1, such as 0.05")
    named = dict(p_values) if isinstance(p_values, Mapping) else {str(i): float(p) for i, p in enumerate(p_values)}
    for name, p in named.items():
        if not (math.isnan(p) or 0 <= p <= 1):
            raise DataError(f"p-value of {name!r} is {p:g}; expected a number in [0, 1], or NaN if it is not defined")
    ranked = sorted((name for name in named if not math.isnan(named[name])), key=lambda name: named[name])
    adjusted: dict[str, float] = {}
    least = 0.0
    for rank, name in enumerate(ranked):
        least = max(least, min(1.0, named[name] * (len(ranked) - rank)))
        adjusted[name] = least
    return Holm(
        adjusted={name: adjusted.get(name, math.nan) for name in named},
        rejected=tuple(name for name in ranked if adjusted[name] <= level),
        undefined=tuple(name for name in named if name not in adjusted),
        level=level,
    )
