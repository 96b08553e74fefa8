"""Whole mentions are covered together, the share is kept, and what is asked for is told by no entity."""

from __future__ import annotations

import numpy as np

from kvlp.training.masking import Vocabulary, cover_mentions, kept_count, units_of

VOCABULARY = Vocabulary(mask_id=4, special=frozenset(range(5)), words=np.arange(5, 60))
#: [CLS] a (b c d) e (f g) h i j [SEP] [PAD]: two mentions of three and two tokens
IDS = np.array([2, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 3, 0])
POSITION = np.zeros((3, len(IDS)), dtype=bool)
POSITION[0, 2:5], POSITION[1, 6:8] = True, True
ENTITIES = np.array([7, 9, -1])


def draws(n: int, share: float = 0.15, position: np.ndarray = POSITION):
    rng = np.random.default_rng(0)
    units = units_of(IDS, position, VOCABULARY.special)
    return [cover_mentions(IDS, units, ENTITIES, position, VOCABULARY, rng, share=share) for _ in range(n)]


def test_units_are_mentions_and_single_words() -> None:
    units = units_of(IDS, POSITION, VOCABULARY.special)
    assert [list(unit) for unit in units] == [[1], [2, 3, 4], [5], [6, 7], [8], [9], [10]]


def test_the_mean_share_is_what_was_asked_for() -> None:
    words = 10
    for share in (0.15, 0.3):
        asked = np.mean([(c.targets >= 0).sum() / words for c in draws(3000, share)])
        assert abs(asked - share) < 0.01
    assert all((c.targets >= 0).sum() == words for c in draws(5, 1.0))
    assert all((c.targets < 0).all() for c in draws(5, 0.0))


def test_a_mention_is_asked_for_whole_and_its_entity_goes() -> None:
    whole = 0
    for covered in draws(500):
        asked = covered.targets >= 0
        for mention, entity, left in zip(POSITION[:2], ENTITIES, covered.entities, strict=False):
            assert asked[mention].all() or not asked[mention].any()
            assert left == (-1 if asked[mention].any() else entity)
            whole += bool(asked[mention].all())
        assert (covered.targets[asked] == IDS[asked]).all()
        assert (covered.ids[~asked] == IDS[~asked]).all()
        assert not asked[[0, 11, 12]].any()  # special tokens and padding
    assert whole > 50


def test_mentions_that_share_a_token_are_one_unit() -> None:
    position = POSITION.copy()
    position[2, 4:7] = True
    for covered in draws(200, position=position):
        assert len(set((covered.targets[2:8] >= 0).tolist())) == 1


def test_eighty_ten_ten_by_unit() -> None:
    kinds = {"masked": 0, "kept": 0, "replaced": 0}
    for covered in draws(3000):
        if covered.targets[2] >= 0:
            now = covered.ids[2:5]
            kinds["masked" if (now == 4).all() else "kept" if (now == IDS[2:5]).all() else "replaced"] += 1
            assert (now == 4).all() or not (now == 4).any()
            assert not np.isin(now, [0, 1, 2, 3]).any()
    total = sum(kinds.values())
    assert abs(kinds["masked"] / total - 0.8) < 0.05
    assert abs(kinds["kept"] / total - 0.1) < 0.05


def test_the_same_generator_covers_the_same() -> None:
    for a, b in zip(draws(20), draws(20), strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_how_many_patches_stay() -> None:
    assert [kept_count(16, share) for share in (0.75, 0.5, 0.9, 0.0, 1.0)] == [4, 8, 2, 15, 1]
