"""The state of an interrupted run on disk: weights, optimiser, random generators. Atomic, hashed, never a pickle."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from kvlp.errors import CheckpointError
from kvlp.training.sharded import cut_like, whole
from kvlp.training.task import PretrainTask

__all__ = ["KEPT", "latest_state", "load_state", "save_state", "state_tensors"]

#: So many states are kept; an older one is a way back if the newest is damaged.
KEPT = 2


def state_tensors(task: PretrainTask, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Tensor]]:
    """What a state holds, by file and name, whole also where it is cut over processes: all of them call it."""
    cards = torch.cuda.is_available()
    return {
        "weights": {k: v.contiguous() for k, v in _unshared(task.state_dict()).items()},
        "optimizer": _optimizer_tensors(task, optimizer),
        "random": {"torch": torch.get_rng_state(), **({"cuda": torch.cuda.get_rng_state()} if cards else {})},
    }


def save_state(folder: Path, tensors: dict[str, dict[str, Tensor]], progress: dict[str, Any], *, name: str) -> Path:
    """Write `folder/name` whole or not at all, then drop all but the newest `KEPT` states.

    `progress` (stage, step, ...) is stored as JSON beside the tensors; names must sort in the order of time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary, final = folder / f".{name}.tmp", folder / name
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    hashes = {}
    for part, values in tensors.items():
        path = temporary / f"{part}.safetensors"
        save_file(values, path)
        hashes[path.name] = _synced_sha256(path)
    (temporary / "state.json").write_text(json.dumps({"sha256": hashes, "progress": progress}), encoding="utf-8")
    _synced_sha256(temporary / "state.json")
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    _sync_folder(folder)
    for old in _states(folder)[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def latest_state(folder: Path) -> Path | None:
    """The newest state that is whole (its hashes fit), or None."""
    for state in reversed(_states(folder)):
        try:
            _read_json(state)
        except CheckpointError:
            continue
        return state
    return None


def load_state(state: Path, task: PretrainTask, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put a saved state into the task, the optimiser and torch's generator; return its progress.

    Raises:
        CheckpointError: a file is missing or damaged, or the state is of another model.
    """
    progress = _read_json(state)
    try:
        weights, moments, random = (load_file(state / f"{p}.safetensors") for p in ("weights", "optimizer", "random"))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{state}: expected readable tensors, got {type(error).__name__}") from None
    own = task.state_dict()
    fitted = {name: cut_like(value, own.get(name)) for name, value in weights.items()}
    missing, unexpected = task.load_state_dict(fitted, strict=False)
    if set(missing) - set(_shared_names(task)) or unexpected:
        raise CheckpointError(f"{state}: it was written by a model of another shape; use the recipe of that run")
    names = {id(p): n for n, p in task.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            prefix = f"{names[id(parameter)]}::"
            found = {k.removeprefix(prefix): v for k, v in moments.items() if k.startswith(prefix)}
            if found:
                optimizer.state[parameter] = {key: cut_like(value, parameter) for key, value in found.items()}
    torch.set_rng_state(random["torch"])
    if "cuda" in random and torch.cuda.is_available():
        torch.cuda.set_rng_state(random["cuda"])
    return progress


def _optimizer_tensors(task: PretrainTask, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    names = {id(p): n for n, p in task.named_parameters()}
    return {
        f"{names[id(parameter)]}::{key}": whole(value).contiguous()
        for parameter, values in optimizer.state.items()
        for key, value in values.items()
    }


def _unshared(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """safetensors refuses tensors that share memory; keep the first name of each."""
    seen: set[int] = set()
    state = {name: whole(value) for name, value in state.items()}
    return {k: v for k, v in state.items() if v.data_ptr() not in seen and not seen.add(v.data_ptr())}  # type: ignore[func-returns-value]


def _shared_names(task: PretrainTask) -> list[str]:
    state = task.state_dict()
    return [name for name in state if name not in _unshared(state)]


def _states(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob("step-*") if p.is_dir()) if folder.is_dir() else []


def _read_json(state: Path) -> dict[str, Any]:
    try:
        content = json.loads((state / "state.json").read_text(encoding="utf-8"))
        hashes, progress = content["sha256"], content["progress"]
    except (OSError, ValueError, KeyError, TypeError):
        raise CheckpointError(f"{state}: expected state.json with hashes, got none that reads") from None
    for name, expected in hashes.items():
        path = state / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            raise CheckpointError(f"{path}: missing or damaged (its hash differs); remove {state} and resume")
    return progress


def _synced_sha256(path: Path) -> str:
    with path.open("rb+") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    return digest


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
