"""Hard negatives differ in labels, are drawn in proportion, and are a function of the draw."""

from __future__ import annotations

import math

import pytest
import torch

from kvlp.errors import ShapeError
from kvlp.losses.image_text_matching import hard_negatives

DIFFERS = torch.tensor([[False, True, True], [True, False, False], [False, False, False]])


def chosen(similarity: torch.Tensor, draw: float) -> list[int]:
    return hard_negatives(similarity, DIFFERS, torch.full((3,), draw)).tolist()


def test_by_hand() -> None:
    # row 0 may choose columns 1 and 2, three times as readily the second; row 1 only column 0; row 2 none
    similarity = torch.tensor([[50.0, 0.0, math.log(3)], [0.0, 50.0, 50.0], [1.0, 2.0, 3.0]])
    assert chosen(similarity, 0.0) == [1, 0, -1]
    assert chosen(similarity, 0.24) == [1, 0, -1]
    assert chosen(similarity, 0.26) == [2, 0, -1]
    assert chosen(similarity, 1 - 1e-7) == [2, 0, -1]


def test_a_row_of_the_same_labels_is_never_chosen() -> None:
    torch.manual_seed(0)
    signature = torch.randint(0, 4, (64,))
    differs = signature[:, None] != signature[None]
    similarity = 100 * torch.randn(64, 64)
    for draw in (torch.rand(64), torch.zeros(64), torch.full((64,), 1 - 1e-7)):
        column = hard_negatives(similarity, differs, draw)
        assert (signature[column] != signature).all()
    assert (hard_negatives(similarity, differs & False, torch.rand(64)) == -1).all()


def test_a_harder_one_comes_more_often() -> None:
    torch.manual_seed(0)
    similarity = torch.tensor([[0.0, 1.0, 2.0, 3.0]]).expand(4000, 4)
    column = hard_negatives(similarity, torch.ones(4000, 4, dtype=torch.bool), torch.rand(4000))
    share = torch.bincount(column, minlength=4) / 4000
    torch.testing.assert_close(share, similarity[0].softmax(0), atol=0.03, rtol=0)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match="tables of one shape"):
        hard_negatives(torch.zeros(2, 2), torch.zeros(2, 3, dtype=torch.bool), torch.zeros(2))
