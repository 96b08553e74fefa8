"""Who sees whom in the tree, what a fact weighs, what is found for whom, what a word of a report may see."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from kvlp.errors import ConfigError, ShapeError
from kvlp.knowledge.branches import BranchTree
from kvlp.models.knowledge_fusion import KnowledgeFusion, KnowledgeTree
from kvlp.models.knowledge_memory import KnowledgeMemory
from kvlp.models.report_decoder import ReportDecoder
from kvlp.models.report_head import ReportHead

PAD = 0
#: root; a and b below it; c below a, d below b
TREE = BranchTree(("a", "b", "c", "d"), np.array([-1, 0, 0, 1, 2]))
NAMES = torch.tensor([[PAD, PAD], [1, PAD], [2, PAD], [3, 5], [4, PAD]])


def tree_tensors() -> dict[str, torch.Tensor]:
    return {"names": NAMES, **{k: torch.from_numpy(getattr(TREE, k)) for k in ("depth", "branch", "mask")}}


def test_a_node_hears_only_of_those_it_sees() -> None:
    torch.manual_seed(0)
    tree = KnowledgeTree(*tree_tensors().values(), width=8, heads=2, layers=1)
    words = torch.randn(6, 8)
    before = tree(words)
    words[4] = torch.randn(8)  # the name of d
    changed = (tree(words) - before).abs().amax(dim=1) > 1e-6
    assert changed.tolist() == [True, False, True, False, True]  # the root, its parent b and d itself; not a, not c


def test_a_name_is_the_mean_of_its_tokens_whatever_padding() -> None:
    torch.manual_seed(0)
    tree = KnowledgeTree(*tree_tensors().values(), width=8, heads=2, layers=1)
    words = torch.randn(6, 8)
    before = tree(words)
    moved = words.clone()
    moved[PAD] += 5.0
    torch.testing.assert_close(tree(moved), before)
    moved[3], moved[5] = words[5], words[3]  # c has both
    torch.testing.assert_close(tree(moved), before)


def test_a_fact_counts_as_often_as_it_weighs_and_not_at_all_at_zero() -> None:
    torch.manual_seed(0)
    fusion = KnowledgeFusion(4, width=8, heads=2, layers=2)
    image, fact, other = torch.randn(2, 3, 4), torch.randn(2, 1, 4), torch.randn(2, 1, 4)
    once = torch.ones(2, 1)
    twice = fusion(image, None, torch.cat([fact, fact, other], 1), torch.cat([once, once, 0 * once], 1))
    torch.testing.assert_close(fusion(image, None, fact, 2 * once), twice)
    none = fusion(image, None, fact, 0 * once)
    torch.testing.assert_close(none, fusion(image, None, fact[:, :0], once[:, :0]))
    assert (none - twice).abs().max() > 1e-3
    with pytest.raises(ShapeError, match=r"expected facts \(2, M, D\) and a weight for each"):
        fusion(image, None, fact, once[:1])


# ---- what is found ---------------------------------------------------------------------------------------------------

#: rows along the axes; 0 and 1 are of one patient
EMB = torch.tensor([[1.0, 0, 0], [0.8, 0.6, 0], [0, 1, 0], [0, 0, 1]])
FACTS = torch.tensor([[0, 1], [1, -1], [2, 0], [-1, -1]])


def memory(*, built: bool = True) -> KnowledgeMemory:
    made = KnowledgeMemory(FACTS, torch.tensor([0, 0, 2, 3]), torch.zeros(4, 2), torch.zeros(3, 2), dim=3)
    if built:
        vectors = iter([EMB, torch.eye(3)])
        made.build(lambda ids: next(vectors))
    return made


def test_nothing_is_found_before_the_vectors_are_made() -> None:
    found = memory(built=False).find(EMB, 3, 1.0)
    assert found.rows.shape == found.weights.shape == (4, 0)
    assert found.facts.shape == (4, 0, 3)


def test_the_nearest_by_hand_their_weights_and_their_facts() -> None:
    found = memory().find(torch.tensor([[1.0, 0, 0]]), 2, 2.0)
    assert found.rows.tolist() == [[0, 1]]
    first = 1 / (1 + math.exp(2 * (0.8 - 1.0)))
    torch.testing.assert_close(found.weights, torch.tensor([[first, 1 - first]]))
    torch.testing.assert_close(found.counts, torch.tensor([[first, first, 1 - first, 0]]))
    torch.testing.assert_close(found.facts[0, :3], torch.eye(3)[[0, 1, 1]])
    summed = memory().find(torch.tensor([[1.0, 0, 0]]), 2, 2.0, mix="sum")
    torch.testing.assert_close(summed.facts, torch.tensor([[[first, 1 - first, 0], [0, first, 0]]]))
    assert summed.counts.tolist() == [[1, 1]]


def test_a_row_never_finds_its_own_patient() -> None:
    found = memory().find(EMB, 3, 1.0, groups=torch.tensor([0, 0, 2, 3]))
    assert [sorted(row) for row in found.rows.tolist()] == [[-1, 2, 3], [-1, 2, 3], [0, 1, 3], [0, 1, 2]]
    assert found.counts.isfinite().all()
    torch.testing.assert_close(found.weights.sum(dim=1), torch.ones(4))
    alone = memory().find(EMB[:1], 2, 1.0, groups=torch.tensor([7]))
    assert alone.rows.tolist() == [[0, 1]]


def test_where_all_are_of_one_patient_nothing_is_found_and_nothing_breaks() -> None:
    made = memory()
    made.groups.zero_()
    found = made.find(EMB, 2, 1.0, groups=torch.zeros(4, dtype=torch.int64))
    assert (found.rows == -1).all()
    assert not found.weights.any()
    assert not found.counts.any()


def test_vectors_and_steps_are_state_and_what_rows_say_is_not() -> None:
    made = memory()
    assert set(made.state_dict()) == {"emb", "fact_emb", "steps", "built"}
    again = memory(built=False)
    again.load_state_dict(made.state_dict())
    assert not again.empty
    torch.testing.assert_close(again.find(EMB, 2, 1.0).facts, made.find(EMB, 2, 1.0).facts)


# ---- what is written -------------------------------------------------------------------------------------------------


def test_a_word_sees_those_before_it_or_all_words_but_no_padding() -> None:
    torch.manual_seed(0)
    decoder = ReportDecoder(9, 6, width=8, heads=2, layers=2)
    ids, image = torch.tensor([[1, 5, 6, 7, 2]]), torch.randn(1, 3, 8)
    other = torch.tensor([[1, 5, 6, 8, 2]])
    changed = (decoder(ids, image) - decoder(other, image)).abs().amax(dim=2)[0] > 1e-6
    assert changed.tolist() == [False, False, False, True, True]
    assert ((decoder(ids, image, whole=True) - decoder(other, image, whole=True)).abs().amax(dim=2)[0] > 1e-6).all()
    padded = torch.cat([ids, torch.zeros(1, 1, dtype=torch.int64)], dim=1)
    torch.testing.assert_close(decoder(padded, image, whole=True)[:, :5], decoder(ids, image, whole=True))
    assert (decoder(ids, image) - decoder(ids, torch.randn(1, 3, 8))).abs().max() > 1e-6
    with pytest.raises(ShapeError, match="texts of at most 6 tokens"):
        decoder(torch.ones(1, 7, dtype=torch.int64), image)


def settings(**more: Any) -> dict[str, Any]:
    sizes = {"width": 8, "heads": 2, "layers": 1, "knowledge_layers": 1, "retrieve": 2, "mix": "tokens"}
    return {"token_width": 4, "vocab_size": 9, "context": 6, "pad_id": 0, **sizes, **more}


@pytest.mark.parametrize("tree", [True, False])
def test_a_head_comes_back_from_settings_and_tensors(tree: bool) -> None:
    torch.manual_seed(0)
    head = ReportHead(settings(), tree_tensors() if tree else None)
    again = ReportHead.restored(head.settings, head.state_dict())
    image = torch.randn(2, 3, 4)
    torch.testing.assert_close(again.see(image), head.see(image))
    tensors = dict(head.state_dict())
    del tensors["decoder.words"]
    with pytest.raises(ConfigError, match="do not fit its settings"):
        ReportHead.restored(head.settings, tensors)
    with pytest.raises(ConfigError, match="that the heads divide, got 9 by 2"):
        ReportHead(settings(width=9), None)
