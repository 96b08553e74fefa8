"""The loop: cached features give the large batch's gradient, bad steps never reach the weights, order is a function."""

from __future__ import annotations

import hashlib
import math
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch

from kvlp.errors import DataError
from kvlp.losses.output import LossOutput
from kvlp.models.concept_head import ConceptHead
from kvlp.models.dual_encoder import build_dual_encoder
from kvlp.models.towers import model_config
from kvlp.training.augment import augment
from kvlp.training.data import epoch_batches
from kvlp.training.loop import MAX_BAD_STEPS, _forward_backward, cosine_schedule, train_steps
from kvlp.training.objectives import ClipPart, ConceptAlignPart, EntityPart, KnowledgePart, Losses
from kvlp.training.side_by_side import draws
from kvlp.training.task import MAX_LOG_SCALE, PretrainTask

ROWS, CLASSES = 8, 2


def _task(image: str = "tiny-vit") -> PretrainTask:
    torch.manual_seed(0)
    # a vision transformer: batch norm would see other statistics in a micro-batch
    cfg = model_config(image, "tiny-text", vocab_size=30, eos_id=3, embed_dim=16, image_size=24, context_length=6)
    losses = Losses(
        clip=ClipPart(), entity=EntityPart(), knowledge=KnowledgePart(pairs=3), concept_align=ConceptAlignPart()
    )
    head = ConceptHead(16, torch.randn(CLASSES, 5))
    return PretrainTask(build_dual_encoder(cfg), losses, heads={"concept_align": head})


def _tokens(n: int, seed: int) -> torch.Tensor:
    tokens = torch.from_numpy(np.random.default_rng(seed).integers(5, 30, size=(n, 6)))
    tokens[:, 4], tokens[:, 5] = 3, 0
    return tokens


def _batch(rows: slice) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(0)
    labels = torch.tensor([[1, 0], [0, 1], [math.nan, 1], [1, math.nan], [0, 0], [-1, 1], [1, 1], [0, math.nan]])
    whole = {
        "row": torch.arange(ROWS),
        "image": torch.from_numpy(rng.normal(size=(ROWS, 3, 24, 24)).astype(np.float32)),
        "text": _tokens(ROWS, 1),
        "labels": labels,
        "signature": torch.tensor([0, 1, 2, 0, 4, 5, 6, 7]),
    }
    return {name: value[rows] for name, value in whole.items()}


SHARED = {"prompts": _tokens(2 * CLASSES, 2), "pairs": _tokens(6, 3), "concept": torch.tensor([0, 1, 0])}


def _gradient(parts: list[slice], *, side_by_side: bool = False) -> dict[str, torch.Tensor]:
    task = _task()
    _forward_backward(task, [_batch(part) for part in parts], SHARED, nullcontext, side_by_side=side_by_side)
    return {name: p.grad for name, p in task.named_parameters() if p.grad is not None}


def test_towers_side_by_side_have_the_same_gradient() -> None:
    whole = [slice(0, ROWS)]
    together, apart = _gradient(whole), _gradient(whole, side_by_side=True)
    assert set(together) == set(apart)
    assert len(together) > 20
    for name, gradient in together.items():
        torch.testing.assert_close(apart[name], gradient, rtol=1e-6, atol=1e-8, msg=name)
    again = _gradient(whole, side_by_side=True)
    assert all(torch.equal(apart[name], again[name]) for name in apart)


def test_what_draws_random_numbers_is_not_trained_side_by_side() -> None:
    assert not draws(_task().model)
    assert draws(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.1)))
    assert not draws(torch.nn.Sequential(torch.nn.Dropout(0.0)))


def test_micro_batches_give_the_gradient_of_the_whole_batch():
    whole = _gradient([slice(0, 8)])
    parts = _gradient([slice(0, 3), slice(3, 6), slice(6, 8)])
    assert parts.keys() == whole.keys()
    assert "heads.concept_align.image.0.weight" in whole
    for name, value in whole.items():
        largest = value.abs().max().item()
        assert (parts[name] - value).abs().max().item() <= 2e-6 * largest + 1e-9, name


def test_dropout_leaves_out_the_same_when_micro_batches_are_encoded_again():
    """Else the gradient would be that of other features than the loss was computed from."""
    task, said = _task(), []

    def dropped(_: torch.nn.Module, __: object, output: torch.Tensor) -> torch.Tensor:
        said.append(torch.nn.functional.dropout(output, 0.5))
        return said[-1]

    task.model.visual.register_forward_hook(dropped)
    torch.manual_seed(3)
    _forward_backward(task, [_batch(slice(0, 3)), _batch(slice(3, 8))], SHARED, nullcontext)
    after = torch.rand(1)
    assert len(said) == 4
    assert torch.equal(said[0], said[2])
    assert torch.equal(said[1], said[3])
    assert not torch.equal(said[0][0] == 0, said[1][0] == 0)
    torch.manual_seed(3)
    torch.nn.functional.dropout(torch.ones(8, 16), 0.5)
    assert torch.equal(after, torch.rand(1))  # the second pass moves no generator on


def _steps(task: PretrainTask, batches: list[dict[str, torch.Tensor]]) -> list[bool]:
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-3)
    items = [([batch], SHARED) for batch in batches]
    return [info.skipped for info in train_steps(task, items, optimizer, lambda _: 1e-3, autocast=nullcontext)]


def test_a_step_that_is_not_finite_never_reaches_the_weights():
    task = _task()
    broken = _batch(slice(0, 8))
    broken["image"] = broken["image"].clone()
    broken["image"][2, 0, 0, 0] = math.nan
    before = {name: value.clone() for name, value in task.state_dict().items()}
    assert _steps(task, [broken]) == [True]
    assert all(torch.equal(value, before[name]) for name, value in task.state_dict().items())
    assert _steps(task, [broken, _batch(slice(0, 8)), broken]) == [True, False, True]
    assert not torch.equal(task.model.logit_scale, before["model.logit_scale"])


def _sha(task: PretrainTask, optimizer: torch.optim.Optimizer) -> str:
    """Of weights, of the averages of batch norm, and of the optimiser's moments."""
    moments = [value for state in optimizer.state.values() for value in state.values()]
    digest = hashlib.sha256()
    for value in (*task.state_dict().values(), *moments):
        digest.update(value.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize(
    ("where", "value", "image"),
    [
        ("pixel", math.nan, "tiny-vit"),
        ("pixel", math.inf, "tiny-cnn"),
        ("loss", math.nan, "tiny-cnn"),
        ("loss", math.inf, "tiny-vit"),
        ("gradient", math.nan, "tiny-vit"),
        ("gradient", math.inf, "tiny-cnn"),
    ],
)
def test_a_step_that_is_not_finite_changes_nothing_and_names_its_rows(
    where: str, value: float, image: str, monkeypatch: pytest.MonkeyPatch
):
    task, good, bad = _task(image), _batch(slice(0, 5)), _batch(slice(3, 8))
    optimizer = torch.optim.AdamW(task.parameters(), lr=1e-3)
    shas: list[str] = []
    if where == "pixel":
        bad["image"] = bad["image"].clone()
        bad["image"][2, 0, 3, 4] = value
    elif where == "loss":
        loss = task.loss

        def broken(*inputs: dict[str, torch.Tensor]) -> LossOutput:
            output = loss(*inputs)
            return replace(output, total=output.total * value) if len(shas) == 1 else output

        monkeypatch.setattr(task, "loss", broken)
    else:
        parameter = next(task.model.text.parameters())
        parameter.register_hook(lambda g: g * value if len(shas) == 1 else g)
    infos = train_steps(
        task, [([batch], SHARED) for batch in (good, bad, good)], optimizer, lambda _: 1e-3, autocast=nullcontext
    )
    told = []
    for info in infos:
        told.append(info)
        shas.append(_sha(task, optimizer))
        assert 0 <= task.model.logit_scale.item() <= MAX_LOG_SCALE
    assert [info.skipped for info in told] == [False, True, False]
    assert told[1].rows == (3, 4, 5, 6, 7)
    assert shas[0] == shas[1] != shas[2]


def test_bad_steps_in_a_row_stop_the_run():
    broken = _batch(slice(0, 8))
    broken["image"] = torch.full_like(broken["image"], math.inf)
    with pytest.raises(DataError, match=f"{MAX_BAD_STEPS} steps in a row"):
        _steps(_task(), [broken] * 5)


def test_scales_stay_between_1_and_100():
    task = _task()
    with torch.no_grad():
        task.model.logit_scale.fill_(9.0)
        task.learned["knowledge"]["log_scale"].fill_(-2.0)
        task.heads["concept_align"].log_scale.fill_(9.0)
    task.clamp_scales()
    assert task.heads["concept_align"].log_scale.item() == pytest.approx(MAX_LOG_SCALE)
    assert task.model.logit_scale.item() == pytest.approx(MAX_LOG_SCALE)
    assert task.learned["knowledge"]["log_scale"].item() == 0.0


def test_schedule_by_hand():
    at = cosine_schedule(1.0, 100, 0.1, 0.0)
    assert [at(0), at(4), at(9), at(10)] == pytest.approx([0.1, 0.5, 1.0, 1.0])
    assert at(55) == pytest.approx(0.5)
    assert at(100) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(("rows", "size"), [(100, 32), (5, 64), (64, 64), (97, 10)])
def test_every_row_comes_once_an_epoch_in_an_order_of_seed_and_epoch(rows: int, size: int):
    batches = epoch_batches(rows, size, (3, 0, 1))
    assert sorted(np.concatenate(batches)) == list(range(rows))
    assert max(map(len, batches)) - min(map(len, batches)) <= 1
    again, other = epoch_batches(rows, size, (3, 0, 1)), epoch_batches(rows, size, (3, 0, 2))
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))
    assert any(not np.array_equal(a, b) for a, b in zip(batches, other, strict=True))


def test_augmentation_keeps_sides_and_is_a_function_of_the_generator():
    left = np.zeros((4, 40, 40), dtype=np.uint8)
    left[:, :, 5:12] = 200
    changed = augment(torch.from_numpy(left), np.random.default_rng(1))
    assert changed.dtype == torch.uint8
    assert (changed[:, :, :20].float().mean(dim=(1, 2)) > changed[:, :, 20:].float().mean(dim=(1, 2)) + 20).all()
    assert torch.equal(changed, augment(torch.from_numpy(left), np.random.default_rng(1)))
    assert not torch.equal(changed, augment(torch.from_numpy(left), np.random.default_rng(2)))
