"""A run's folder: whose it is, whether it may be gone on with, and its row-a-step files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kvlp.datasets.files import atomic_write
from kvlp.datasets.manifest import Manifest
from kvlp.errors import ConfigError
from kvlp.training.recipe import Recipe

__all__ = ["METRICS", "VALIDATION", "open_run_folder", "rows_up_to"]

#: A row a step.
METRICS = "metrics.jsonl"
#: Figures on held-out images, a row now and then.
VALIDATION = "validation.jsonl"

#: What may differ when a run is gone on with: it says how the run is done, not what comes out.
FREE = frozenset(
    {
        "name",
        "description",
        "differences",
        "as_published",
        "threads",
        "save_every",
        "evaluation",
        "parallel",
        "tensorboard",
        "compile",
    }
)
FREE_OF_DATA = frozenset({"workers"})


def open_run_folder(recipe: Recipe, manifest: Manifest, out: Path, *, resume: bool) -> None:
    """Make the folder of a new run, or see that the one there is of this recipe and data.

    Raises:
        ConfigError: `out` holds a run and resume is off, or one of another recipe or data, or something else.
    """
    marker = out / "run.json"
    if marker.is_file():
        if not resume:
            raise ConfigError(f"{out} already holds a run; add --resume to go on with it, or choose another --out")
        _require_same(marker, recipe, manifest)
        return
    if resume and not out.exists():
        raise ConfigError(f"{out}: nothing to resume there; leave out --resume to start")
    if out.is_file():
        raise ConfigError(f"{out}: expected a folder to write to, got a file")
    left = [name for name in ("states", METRICS, VALIDATION, "checkpoint") if (out / name).exists()]
    if left:
        raise ConfigError(f"{out} holds {left[0]} of a run that run.json does not tell of; choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    atomic_write(out / "recipe.yaml", recipe.to_yaml().encode())
    told = {"recipe": recipe.model_dump(mode="json"), "data": manifest.content_hash}
    atomic_write(marker, json.dumps(told, sort_keys=True).encode())


def rows_up_to(path: Path, stage: int, step: int) -> None:
    """Drop the rows of steps that a killed run took after its last state: they will be taken again."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            break
        if (row["stage"], row["step"]) <= (stage, step):
            kept.append(line + "\n")
    atomic_write(path, "".join(kept).encode())


def _require_same(marker: Path, recipe: Recipe, manifest: Manifest) -> None:
    """Compare as read by this version, so that a key that is new since the run began has its default in both."""
    try:
        told = json.loads(marker.read_text(encoding="utf-8"))
        before, data = Recipe.model_validate(told["recipe"]), told["data"]
    except (ValidationError, ValueError, KeyError, TypeError):
        raise ConfigError(
            f"{marker}: expected the recipe of a run that this version of kvlp can go on with, got one that it cannot "
            "read; go on with the version that began it, or choose another --out"
        ) from None
    if data != manifest.content_hash:
        raise ConfigError(f"{marker.parent} holds a run of another recipe or of other data: the manifest's rows differ")
    changed = next(_differences(_what_counts(before), _what_counts(recipe)), None)
    if changed:
        raise ConfigError(
            f"{marker.parent} holds a run of another recipe or of other data: {changed} differs; "
            "set it as it was, or choose another --out"
        )


def _what_counts(recipe: Recipe) -> dict[str, Any]:
    dumped = recipe.model_dump(mode="json", exclude=set(FREE))
    dumped["data"] = {key: value for key, value in dumped["data"].items() if key not in FREE_OF_DATA}
    return dumped


def _differences(before: Any, now: Any, place: str = "") -> Any:
    """Dotted keys whose values differ."""
    if isinstance(before, dict) and isinstance(now, dict) and before.keys() == now.keys():
        for key in before:
            yield from _differences(before[key], now[key], f"{place}.{key}" if place else key)
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for number, pair in enumerate(zip(before, now, strict=True)):
            yield from _differences(*pair, f"{place}.{number}")
    elif before != now:
        yield place
