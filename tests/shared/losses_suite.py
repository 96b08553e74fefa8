"""The contract of losses: what a `Case` tells of a loss, and how to call it. `test_contract.py` asks the questions.

A loss of `kvlp/losses/NAME.py` has its cases in `tests/losses/case_NAME.py`, in a dict `CASES` from a readable name to
a `Case`. The reference is written there in plain NumPy loops, from the formula, not from the loss.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Inputs = dict[str, Any]  # name of an argument of forward -> NumPy array, number or None


@dataclass(frozen=True)
class Hand:
    """A loss worked out on paper."""

    inputs: Inputs
    expected: float


@dataclass(frozen=True)
class Pull:
    """A descent step moves `inputs[name][row]` along `direction` (sign 1), against it (-1) or not at all (0)."""

    inputs: Inputs
    name: str
    row: int
    direction: Sequence[float]
    sign: int


@dataclass(frozen=True)
class Case:
    """One loss in one setting.

    Attributes:
        build: makes the loss.
        inputs: number of rows -> arguments of forward by name; floats as float64.
        gradients: the arguments that get a gradient.
        rows: arguments whose first axis is the batch; `squares` those whose first two are.
        mirror: inputs -> inputs with the two sides exchanged; the loss is the same.
        reference: inputs -> the loss, by slow loops in NumPy.
        hands, pulls: values and directions worked out by hand.
        permute: inputs and an order -> inputs in that order, where `rows` and `squares` do not say it all.
        smooth: what gradcheck looks at where the total has steps (a matching): loss, tensors -> scalar.
        tolerance: of bf16 against fp32. `fall`: share of the loss that is left after fifty steps of rate `lr`.
    """

    build: Callable[[], nn.Module]
    inputs: Callable[[int], Inputs]
    gradients: tuple[str, ...]
    rows: tuple[str, ...]
    mirror: Callable[[Inputs], Inputs]
    reference: Callable[[Inputs], float]
    hands: tuple[Hand, ...]
    pulls: tuple[Pull, ...]
    squares: tuple[str, ...] = ()
    permute: Callable[[Inputs, np.ndarray], Inputs] | None = None
    smooth: Callable[[nn.Module, dict[str, Any]], Tensor] | None = None
    tolerance: float = 0.08
    fall: float = 0.7
    lr: float = 0.05

    def in_order(self, inputs: Inputs, order: np.ndarray) -> Inputs:
        """The same batch with its rows in another order."""
        if self.permute is not None:
            return self.permute(inputs, order)
        moved = {name: inputs[name][order] for name in self.rows}
        moved |= {name: inputs[name][order][:, order] for name in self.squares}
        return {**inputs, **moved}


def unit(*shape: int, seed: int) -> np.ndarray:
    """Random float64 vectors of unit length along the last axis."""
    values = np.random.default_rng(seed).normal(size=shape)
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def sigmoid_cost(logit: float, *, target: bool) -> float:
    """Binary cross-entropy of one logit."""
    return float(np.log1p(np.exp(-logit if target else logit)))


def softmax_cost(logits: Sequence[float], targets: Sequence[float], left_out: Sequence[bool]) -> float:
    """Cross-entropy of one row whose left-out columns take no part."""
    norm = sum(np.exp(v) for v, out in zip(logits, left_out, strict=True) if not out)
    return float(-sum(t * (v - np.log(norm)) for v, t in zip(logits, targets, strict=True) if t))


def tensors(case: Case, inputs: Inputs, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Arguments as tensors: those with a gradient in `dtype`, other floats in float32 (float64 if that is asked)."""
    other = torch.float64 if dtype == torch.float64 else torch.float32

    def made(name: str, value: Any) -> Any:
        if value is None:
            return None
        tensor = torch.as_tensor(np.ascontiguousarray(value).reshape(np.shape(value)))
        if name in case.gradients:
            return tensor.to(dtype).requires_grad_()
        return tensor.to(other) if tensor.is_floating_point() else tensor

    return {name: made(name, value) for name, value in inputs.items()}


def load_cases(folder: Path = Path(__file__).parents[1] / "losses") -> Mapping[str, Case]:
    """All cases of the folder, by `module: name`."""
    found: dict[str, Case] = {}
    for path in sorted(folder.glob("case_*.py")):
        spec = importlib.util.spec_from_file_location(f"losses_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        cases: Mapping[str, Case] = module.CASES
        found |= {f"{path.stem.removeprefix('case_')}: {name}": case for name, case in cases.items()}
    return found
