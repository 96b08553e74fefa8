"""Shapes that do not fit are refused with what was expected; and what no case of the contract says."""

from __future__ import annotations

import math

import pytest
import torch
from losses_suite import unit

from kvlp.errors import ShapeError
from kvlp.losses import ClipLoss, ConceptAlignLoss, EntityLoss, KnowledgeAlignLoss

ONE = torch.tensor(1.0)


def emb(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(unit(rows, 4, seed=seed)).float()


def test_clip_wants_as_many_texts_as_images() -> None:
    with pytest.raises(ShapeError, match="as many texts as images, got 2 and 3"):
        ClipLoss()(emb(3), emb(2), ONE)


def test_clip_of_random_embeddings_is_near_log_n() -> None:
    image, text = (torch.from_numpy(unit(256, 64, seed=seed)).float() for seed in (3, 4))
    assert float(ClipLoss()(image, text, ONE).total) == pytest.approx(math.log(256), abs=0.05)


@pytest.mark.parametrize("labels", [(5, 2), (4, 3)])
def test_entity_refuses_labels_of_another_shape(labels: tuple[int, int]) -> None:
    with pytest.raises(ShapeError, match=r"labels of shape \(5, 3\)"):
        EntityLoss()(emb(5), emb(3), emb(3), torch.zeros(labels), ONE, ONE)


def test_concept_align_refuses_labels_of_another_shape() -> None:
    with pytest.raises(ShapeError, match=r"labels of shape \(5, 3\), got \(5, 2\)"):
        ConceptAlignLoss()(emb(5), emb(3), torch.zeros(5, 2), ONE, ONE)


def test_knowledge_refuses_a_concept_too_few() -> None:
    with pytest.raises(ShapeError, match="one concept a row"):
        KnowledgeAlignLoss()(emb(3), emb(3), torch.zeros(2), ONE)


def test_images_that_denials_do_not_teach_learn_from_statements_alone() -> None:
    """What is false of the absent prompts moves them, not the images."""
    labels = torch.tensor([[1.0, 0], [0, 1], [1, math.nan]])
    moved = {}
    for taught, absent_seed in ((True, 3), (False, 3), (False, 4)):
        image, present, absent = (emb(n, s).requires_grad_() for n, s in ((3, 1), (2, 2), (2, absent_seed)))
        EntityLoss(denials_teach_images=taught)(image, present, absent, labels, 5 * ONE, -ONE).total.backward()
        assert absent.grad is not None
        assert absent.grad.abs().sum() > 0
        moved[taught, absent_seed] = image.grad
    assert moved[False, 3] is not None
    torch.testing.assert_close(moved[False, 3], moved[False, 4])  # whatever the denials are
    assert not torch.allclose(moved[True, 3], moved[False, 3])
