"""Shortest ways in a graph of any size: from both ends at once, all of a step together."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["shortest_way"]


def shortest_way(linked: Callable[[set[int]], set[int]], start: int, end: int) -> list[int]:
    """Return the numbers on a shortest way, both ends among them; empty if there is none.

    Args:
        linked: all numbers that are one step away from any of a set; a step can be taken back.
        start: where to begin.
        end: where to come to.
    """
    levels, seen = ([{start}], [{end}]), ({start}, {end})
    while not levels[0][-1] & levels[1][-1]:
        side = 0 if len(levels[0][-1]) <= len(levels[1][-1]) else 1
        fresh = linked(levels[side][-1]) - seen[side]
        if not fresh:
            return []
        levels[side].append(fresh)
        seen[side].update(fresh)
    middle = min(levels[0][-1] & levels[1][-1])
    return [*reversed(_back(linked, levels[0], middle)), middle, *_back(linked, levels[1], middle)]


def _back(linked: Callable[[set[int]], set[int]], levels: list[set[int]], at: int) -> list[int]:
    """Return the way from `at`, which stands in the last level, to the first level, without `at`."""
    way: list[int] = []
    for level in reversed(levels[:-1]):
        at = min(linked({at}) & level)
        way.append(at)
    return way
