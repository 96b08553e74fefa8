"""The contract that every loss passes; see losses_suite.py. A loss without a case fails here."""

from __future__ import annotations

import inspect
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from losses_suite import Case, load_cases, tensors
from torch import Tensor, nn

import kvlp.losses
from kvlp.errors import ConfigError, ShapeError
from kvlp.losses import LOSSES, LossOutput, get_loss

ROWS = 5
CASES = load_cases()


@pytest.fixture(params=sorted(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def loss_classes() -> set[type[nn.Module]]:
    """Every public module class of every file in kvlp/losses."""
    found: set[type[nn.Module]] = set()
    for path in Path(kvlp.losses.__file__).parent.glob("[!_]*.py"):
        module = import_module(f"kvlp.losses.{path.stem}")
        named = (getattr(module, name) for name in module.__all__)
        found |= {
            c for c in named if inspect.isclass(c) and issubclass(c, nn.Module) and c.__module__ == module.__name__
        }
    return found


def test_every_loss_has_a_case() -> None:
    covered = {type(case.build()) for case in CASES.values()}
    lost = {c.__name__ for c in loss_classes() | set(LOSSES.values()) if c not in covered}
    assert not lost, f"no case for {sorted(lost)}: write tests/losses/case_NAME.py, as losses_suite.py says"


def test_every_loss_has_a_name_for_recipes() -> None:
    assert loss_classes() == set(LOSSES.values())


def total(case: Case, inputs: dict, dtype: torch.dtype = torch.float32) -> Tensor:
    output = case.build()(**tensors(case, inputs, dtype))
    assert isinstance(output, LossOutput)
    return output.total


def test_values_by_hand(case: Case) -> None:
    assert case.hands
    for hand in case.hands:
        assert total(case, hand.inputs).item() == pytest.approx(hand.expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("rows", [1, 2, ROWS])
def test_a_slow_loop_gives_the_same(case: Case, rows: int) -> None:
    inputs = case.inputs(rows)
    assert total(case, inputs).item() == pytest.approx(case.reference(inputs), rel=1e-5, abs=1e-6)


def test_the_order_of_the_batch_does_not_matter(case: Case) -> None:
    inputs = case.inputs(ROWS)
    moved = case.in_order(inputs, np.array([3, 1, 4, 0, 2]))
    torch.testing.assert_close(total(case, moved), total(case, inputs))


def test_the_two_sides_may_change_places(case: Case) -> None:
    inputs = case.inputs(ROWS)
    mirrored = case.mirror(inputs)
    assert any(mirrored[name] is not value for name, value in inputs.items())
    torch.testing.assert_close(total(case, mirrored), total(case, inputs))


def test_a_descent_step_pulls_the_right_way(case: Case) -> None:
    assert {pull.sign for pull in case.pulls} >= {1, -1}
    for pull in case.pulls:
        given = tensors(case, pull.inputs)
        case.build()(**given).total.backward()
        along = float(-given[pull.name].grad[pull.row].flatten() @ torch.tensor(pull.direction, dtype=torch.float32))
        assert abs(along) > 1e-4 if pull.sign else abs(along) < 1e-6
        assert np.sign(along) == pull.sign or pull.sign == 0, pull


def test_gradient_by_finite_differences(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "float", Tensor.double)  # losses compute in fp32; here the maths is checked in fp64
    loss, given = case.build(), tensors(case, case.inputs(ROWS), torch.float64)
    ask = case.smooth or (lambda loss, given: loss(**given).total)

    def at(*values: Tensor) -> Tensor:
        return ask(loss, {**given, **dict(zip(case.gradients, values, strict=True))})

    assert torch.autograd.gradcheck(at, [given[name] for name in case.gradients], fast_mode=True)


def test_bf16_is_near_fp32_and_returns_fp32(case: Case) -> None:
    inputs = case.inputs(ROWS)
    half = total(case, inputs, torch.bfloat16)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, total(case, inputs), atol=case.tolerance, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_row_gives_a_finite_loss_and_gradient(case: Case, dtype: torch.dtype) -> None:
    given = tensors(case, case.inputs(1), dtype)
    value = case.build()(**given).total
    value.backward()
    assert torch.isfinite(value)
    assert all(torch.isfinite(given[n].grad).all() for n in case.gradients if given[n].grad is not None)


def test_fifty_gradient_steps_bring_the_loss_down(case: Case) -> None:
    loss, given = case.build(), tensors(case, case.inputs(ROWS))
    optimizer = torch.optim.SGD([given[name] for name in case.gradients], lr=case.lr)
    before = loss(**given).total.item()
    for _ in range(50):
        optimizer.zero_grad()
        loss(**given).total.backward()
        optimizer.step()
    assert loss(**given).total.item() < case.fall * before


def test_parts_are_detached_scalars(case: Case) -> None:
    parts = case.build()(**tensors(case, case.inputs(ROWS))).parts
    assert parts
    assert all(value.ndim == 0 and not value.requires_grad for value in parts.values())


def test_widths_that_differ_are_refused(case: Case) -> None:
    inputs = case.inputs(ROWS)
    first = case.gradients[0]
    with pytest.raises(ShapeError, match="one width"):
        total(case, {**inputs, first: inputs[first][..., :-1]})


def test_an_unknown_loss_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="did you mean 'clip'"):
        get_loss("clp")
