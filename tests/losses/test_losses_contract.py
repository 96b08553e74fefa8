"""Every loss: hand value, slow reference loop, order of the batch, gradient, float64 gradcheck, bf16, one row."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from kvlp.errors import ConfigError, ShapeError
from kvlp.losses import LOSSES, ClipLoss, ConceptAlignLoss, EntityLoss, KnowledgeAlignLoss, get_loss

B, C, D = 5, 3, 4
NAN = math.nan


def _unit(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return torch.nn.functional.normalize(values, dim=-1).to(dtype)


LABELS = torch.tensor([[1, 0, 1], [0, 0, NAN], [-1, 1, NAN], [NAN, 1, 1], [1, NAN, -1]])


@dataclass(frozen=True)
class Case:
    """How to call a loss: embeddings first (they get gradients), then the rest."""

    embeddings: Callable[[int, torch.dtype], list[Tensor]]
    rest: Callable[[int], list[Tensor]]
    permute: Callable[[list[Tensor], list[Tensor], Tensor], tuple[list[Tensor], list[Tensor]]]


def _clip_same(n: int) -> Tensor:
    same = torch.eye(n, dtype=torch.bool)
    if n > 3:
        same[1, 3] = same[3, 1] = True
    return same


CASES = {
    "clip": Case(
        lambda n, dtype: [_unit(n, D, seed=1, dtype=dtype), _unit(n, D, seed=2, dtype=dtype)],
        lambda n: [torch.tensor(7.0), _clip_same(n)],
        lambda e, r, p: ([e[0][p], e[1][p]], [r[0], r[1][p][:, p]]),
    ),
    "concept_align": Case(
        lambda n, dtype: [_unit(n, D, seed=1, dtype=dtype), _unit(C, D, seed=2, dtype=dtype)],
        lambda n: [LABELS[:n], torch.tensor(5.0), torch.tensor(-0.5)],
        lambda e, r, p: ([e[0][p], e[1]], [r[0][p], *r[1:]]),
    ),
    "entity": Case(
        lambda n, dtype: [_unit(n, D, seed=1, dtype=dtype), *(_unit(C, D, seed=s, dtype=dtype) for s in (2, 3))],
        lambda n: [LABELS[:n], torch.tensor(5.0), torch.tensor(-0.5)],
        lambda e, r, p: ([e[0][p], e[1], e[2]], [r[0][p], *r[1:]]),
    ),
    "knowledge": Case(
        lambda n, dtype: [_unit(n, D, seed=1, dtype=dtype), _unit(n, D, seed=2, dtype=dtype)],
        lambda n: [torch.tensor([4, 9, 4, 2, 7])[:n], torch.tensor(6.0)],
        lambda e, r, p: ([e[0][p], e[1][p]], [r[0][p], r[1]]),
    ),
}


def test_every_loss_has_a_case():
    assert set(CASES) == set(LOSSES)


@pytest.fixture(params=sorted(LOSSES))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_order_of_the_batch_does_not_matter(name: str):
    case, loss = CASES[name], LOSSES[name]()
    embeddings, rest = case.embeddings(B, torch.float32), case.rest(B)
    moved, moved_rest = case.permute(embeddings, rest, torch.tensor([3, 1, 4, 0, 2]))
    torch.testing.assert_close(loss(*moved, *moved_rest).total, loss(*embeddings, *rest).total)


def test_gradient_by_finite_differences(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Tensor, "float", Tensor.double)  # losses compute in fp32; here the maths is checked in fp64
    case, loss = CASES[name], LOSSES[name]()
    embeddings = [e.requires_grad_() for e in case.embeddings(B, torch.float64)]
    rest = [r.double() if r.is_floating_point() else r for r in case.rest(B)]
    assert torch.autograd.gradcheck(lambda *e: loss(*e, *rest).total, embeddings)


def test_bf16_is_near_fp32_and_returns_fp32(name: str):
    case, loss = CASES[name], LOSSES[name]()
    full = loss(*case.embeddings(B, torch.float32), *case.rest(B)).total
    half = loss(*case.embeddings(B, torch.bfloat16), *case.rest(B)).total
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, full, atol=0.08, rtol=0)


def test_one_row_gives_a_finite_loss_and_gradient(name: str):
    case, loss = CASES[name], LOSSES[name]()
    embeddings = [e.requires_grad_() for e in case.embeddings(1, torch.float32)]
    total = loss(*embeddings, *case.rest(1)).total
    total.backward()
    assert torch.isfinite(total)
    assert all(torch.isfinite(e.grad).all() for e in embeddings if e.grad is not None)


def test_fifty_gradient_steps_bring_the_loss_down(name: str):
    case, loss = CASES[name], LOSSES[name]()
    embeddings = [e.requires_grad_() for e in case.embeddings(B, torch.float32)]
    optimizer = torch.optim.SGD(embeddings, lr=0.05)
    before = loss(*embeddings, *case.rest(B)).total.item()
    for _ in range(50):
        optimizer.zero_grad()
        loss(*embeddings, *case.rest(B)).total.backward()
        optimizer.step()
    assert loss(*embeddings, *case.rest(B)).total.item() < 0.7 * before


def test_widths_that_differ_are_refused(name: str):
    case, loss = CASES[name], LOSSES[name]()
    first, *others = case.embeddings(B, torch.float32)
    with pytest.raises(ShapeError, match="one width"):
        loss(first[:, :-1], *others, *case.rest(B))


def _reference_softmax_loss(logits: list[list[float]], targets: list[list[float]], left_out: list[list[bool]]) -> float:
    total = 0.0
    for row, weights, out in zip(logits, targets, left_out, strict=True):
        norm = sum(math.exp(v) for v, skip in zip(row, out, strict=True) if not skip)
        total -= sum(w * (v - math.log(norm)) for v, w in zip(row, weights, strict=True) if w)
    return total / len(logits)


@pytest.mark.parametrize("duplicates", ["ignore", "positive"])
def test_clip_equals_a_slow_loop(duplicates: str):
    image, text = CASES["clip"].embeddings(B, torch.float32)
    same = _clip_same(B)
    logits = [[7.0 * float(image[i] @ text[j]) for j in range(B)] for i in range(B)]
    if duplicates == "ignore":
        targets = [[float(i == j) for j in range(B)] for i in range(B)]
        out = [[bool(same[i, j]) and i != j for j in range(B)] for i in range(B)]
    else:
        targets = [[float(same[i, j]) / int(same[i].sum()) for j in range(B)] for i in range(B)]
        out = [[False] * B for _ in range(B)]
    columns = [list(c) for c in zip(*logits, strict=True)]
    expected = (_reference_softmax_loss(logits, targets, out) + _reference_softmax_loss(columns, targets, out)) / 2
    total = ClipLoss(duplicates=duplicates)(image, text, torch.tensor(7.0), same).total
    assert float(total) == pytest.approx(expected, rel=1e-5)


def test_clip_by_hand():
    # two orthogonal pairs at scale 2: each row has logits (2, 0), so the loss is log(1 + e^-2)
    eye = torch.eye(2)
    assert float(ClipLoss()(eye, eye, torch.tensor(2.0)).total) == pytest.approx(math.log(1 + math.exp(-2)), rel=1e-6)


def test_clip_of_random_embeddings_is_near_log_n():
    image, text = _unit(256, 64, seed=3), _unit(256, 64, seed=4)
    assert float(ClipLoss()(image, text, torch.tensor(1.0)).total) == pytest.approx(math.log(256), abs=0.05)


def test_clip_never_repels_duplicates():
    image = _unit(2, D, seed=5)
    text = _unit(2, D, seed=6).requires_grad_()
    output = ClipLoss()(image, text, torch.tensor(10.0), torch.ones(2, 2, dtype=torch.bool))
    output.total.backward()
    assert float(output.total.detach()) == pytest.approx(0.0, abs=1e-6)
    assert float(text.grad.abs().max()) == pytest.approx(0.0, abs=1e-6)


def test_entity_equals_a_slow_loop():
    image, present, absent = CASES["entity"].embeddings(B, torch.float32)
    sums, norm = [0.0, 0.0], 0.0
    for c in range(C):
        known = {v: [i for i in range(B) if LABELS[i, c] == v] for v in (0.0, 1.0)}
        if not all(known.values()):
            continue  # a finding of which one side only is known
        norm += 1
        for value, rows in known.items():
            for i in rows:
                weight = 1 / len(rows) / 2
                for k, (prompts, target) in enumerate([(present, value), (absent, 1 - value)]):
                    p = 1 / (1 + math.exp(-(5.0 * float(image[i] @ prompts[c]) - 0.5)))
                    sums[k] -= weight * (math.log(p) if target else math.log(1 - p))
    total = EntityLoss()(image, present, absent, LABELS, torch.tensor(5.0), torch.tensor(-0.5)).total
    assert float(total) == pytest.approx((sums[0] + sums[1]) / norm / 2, rel=1e-5)


def test_entity_ignores_what_no_report_says():
    image, present, absent = CASES["entity"].embeddings(B, torch.float32)
    image.requires_grad_()
    unknown = torch.full((B, C), NAN)
    unknown[0, 0] = -1
    total = EntityLoss()(image, present, absent, unknown, torch.tensor(5.0), torch.tensor(0.0)).total
    total.backward()
    assert float(total.detach()) == 0.0
    assert float(image.grad.abs().sum()) == 0.0


def test_entity_pulls_present_images_to_the_present_prompt_only():
    image = torch.tensor([[1.0, 0.0]], requires_grad=True)
    present, absent = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, -1.0]])
    loss = EntityLoss(balanced=False)
    loss(image, present, absent, torch.tensor([[1.0]]), torch.tensor(4.0), torch.tensor(0.0)).total.backward()
    assert image.grad[0, 1] < 0  # a descent step moves the image towards "present" and away from "absent"


def test_entity_refuses_labels_of_another_shape():
    image, present, absent = CASES["entity"].embeddings(B, torch.float32)
    with pytest.raises(ShapeError, match=r"labels of shape \(5, 3\)"):
        EntityLoss()(image, present, absent, LABELS[:, :2], torch.tensor(1.0), torch.tensor(0.0))


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("unmentioned", ["ignore", "absent"])
def test_concept_align_equals_a_slow_loop(unmentioned: str, *, balanced: bool):
    projected, concepts = CASES["concept_align"].embeddings(B, torch.float32)
    told: dict[bool, list[float]] = {True: [], False: []}
    for i in range(B):
        for c in range(C):
            label = float(LABELS[i, c])
            p = 1 / (1 + math.exp(-(5.0 * float(projected[i] @ concepts[c]) - 0.5)))
            if label == 1:
                told[True].append(-math.log(p))
            elif label == 0 or (math.isnan(label) and unmentioned == "absent"):
                told[False].append(-math.log(1 - p))
    means = [sum(values) / len(values) for values in told.values()]
    everything = told[True] + told[False]
    expected = sum(means) / 2 if balanced else sum(everything) / len(everything)
    loss = ConceptAlignLoss(unmentioned=unmentioned, balanced=balanced)  # type: ignore[arg-type]
    output = loss(projected, concepts, LABELS, torch.tensor(5.0), torch.tensor(-0.5))
    assert float(output.total) == pytest.approx(expected, rel=1e-5)
    assert float(output.parts["present"]) == pytest.approx(means[0], rel=1e-5)


def test_concept_align_by_hand():
    # one row along the first of two orthogonal concepts, at scale 2: logits 2 (present) and 0 (absent)
    labels = torch.tensor([[1.0, 0.0]])
    total = ConceptAlignLoss()(torch.eye(2)[:1], torch.eye(2), labels, torch.tensor(2.0), torch.tensor(0.0)).total
    assert float(total) == pytest.approx((math.log(1 + math.exp(-2)) + math.log(2)) / 2, rel=1e-6)


def test_concept_align_pulls_to_what_is_present_and_away_from_what_is_absent():
    projected = torch.tensor([[0.6, 0.6, 0.0]], requires_grad=True)
    labels = torch.tensor([[1.0, 0.0, NAN]])
    ConceptAlignLoss()(projected, torch.eye(3), labels, torch.tensor(4.0), torch.tensor(0.0)).total.backward()
    toward, away, unmentioned = (-projected.grad[0]).tolist()
    assert toward > 0 > away
    assert unmentioned == 0.0


@pytest.mark.parametrize(("unmentioned", "expected"), [("ignore", 0.0), ("absent", math.log(2) / 2)])
def test_concept_align_of_what_no_report_says(unmentioned: str, expected: float):
    projected = torch.zeros(2, 3, requires_grad=True)
    labels = torch.tensor([[NAN, -1.0, NAN], [-1.0, NAN, NAN]])
    loss = ConceptAlignLoss(unmentioned=unmentioned)  # type: ignore[arg-type]
    total = loss(projected, torch.eye(3), labels, torch.tensor(4.0), torch.tensor(0.0)).total
    total.backward()
    assert float(total.detach()) == pytest.approx(expected)
    assert torch.isfinite(projected.grad).all()


def test_concept_align_refuses_labels_of_another_shape():
    projected, concepts = CASES["concept_align"].embeddings(B, torch.float32)
    with pytest.raises(ShapeError, match=r"labels of shape \(5, 3\)"):
        ConceptAlignLoss()(projected, concepts, LABELS[:, :2], torch.tensor(1.0), torch.tensor(0.0))


def test_knowledge_equals_a_slow_loop():
    first, second = CASES["knowledge"].embeddings(B, torch.float32)
    concept = [4, 9, 4, 2, 7]
    logits = [[6.0 * float(first[i] @ second[j]) for j in range(B)] for i in range(B)]
    targets = [[float(concept[i] == concept[j]) / concept.count(concept[i]) for j in range(B)] for i in range(B)]
    nothing = [[False] * B for _ in range(B)]
    columns = [list(c) for c in zip(*logits, strict=True)]
    expected = (
        _reference_softmax_loss(logits, targets, nothing) + _reference_softmax_loss(columns, targets, nothing)
    ) / 2
    total = KnowledgeAlignLoss()(first, second, torch.tensor(concept), torch.tensor(6.0)).total
    assert float(total) == pytest.approx(expected, rel=1e-5)


def test_an_unknown_loss_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match="did you mean 'clip'"):
        get_loss("clp")
