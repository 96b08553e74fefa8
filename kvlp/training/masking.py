"""What is covered for masked modelling: whole mentions among the words, most patches of an image."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kvlp.losses.masked_language import IGNORED

if TYPE_CHECKING:
    from kvlp.typing import FloatArray, IntArray

__all__ = ["Covered", "Vocabulary", "cover_mentions", "kept_count", "units_of"]

#: What becomes of the words that are asked for: covered by [MASK], or replaced by others; the rest stay as they are.
MASKED, REPLACED = 0.8, 0.1


class Vocabulary(NamedTuple):
    """What covering needs to know of a tokenizer: its mask, which entries are no words, and which are."""

    mask_id: int
    special: frozenset[int]
    words: IntArray


class Covered(NamedTuple):
    """A text with some of its words covered.

    Attributes:
        ids: (L,) token ids; targets: (L,) what stood there, -100 where nothing is asked.
        entities: (E,) as given, -1 for each entity of which any token is asked for: its vector would tell the answer.
    """

    ids: IntArray
    targets: IntArray
    entities: IntArray


def units_of(ids: IntArray, position: FloatArray, special: Collection[int]) -> tuple[IntArray, ...]:
    """Which tokens are covered together: those of a mention (or of mentions that share one), and every other alone.

    Args:
        ids: (L,) token ids; position: (E, L) bool, the tokens of each mention; special: ids that are no words.

    Returns:
        Token numbers of each unit.
    """
    unit = np.arange(len(ids))
    for mention in position.astype(bool):
        tokens = np.flatnonzero(mention)
        if len(tokens):
            unit[np.isin(unit, unit[tokens])] = unit[tokens].min()
    words = ~np.isin(ids, list(special))
    return tuple(np.flatnonzero((unit == first) & words) for first in np.unique(unit[words]))


def cover_mentions(
    ids: IntArray,
    units: Sequence[IntArray],
    entities: IntArray,
    position: FloatArray,
    vocabulary: Vocabulary,
    rng: np.random.Generator,
    *,
    share: float = 0.15,
) -> Covered:
    """Cover `share` of a text's words in expectation, the tokens of a unit all together or not at all.

    Units are taken in random order until the share is reached; the last one is taken with the probability that keeps
    the mean at `share`, so that long mentions are not shut out of short texts. A unit taken is masked in 80 %, replaced
    by random words in 10 % and left as it is in 10 % of cases, as a whole.

    Args:
        ids: (L,) token ids, padding and special tokens among them; units: see `units_of`.
        entities: (E,) numbers of concepts, -1 for none; position: (E, L) bool, the tokens of each one's mention.
        vocabulary: of the tokenizer.
        rng: what chance comes from.
        share: of the words to ask for, in [0, 1].
    """
    left = share * sum(map(len, units))
    covered, targets = ids.copy(), np.full(len(ids), IGNORED, dtype=np.int64)
    for number in rng.permutation(len(units)):
        unit = units[number]
        if left < len(unit) and rng.random() >= left / len(unit):
            break
        targets[unit] = ids[unit]
        covered[unit] = _instead(ids[unit], vocabulary, rng)
        left -= len(unit)
        if left <= 0:
            break
    asked = (position.astype(bool) & (targets != IGNORED)).any(axis=1)
    return Covered(covered, targets, np.where(asked, -1, entities))


def _instead(told: IntArray, vocabulary: Vocabulary, rng: np.random.Generator) -> IntArray:
    chance = rng.random()
    if chance < MASKED:
        return np.full(len(told), vocabulary.mask_id, dtype=np.int64)
    if chance < MASKED + REPLACED:
        return vocabulary.words[rng.integers(len(vocabulary.words), size=len(told))]
    return told


def kept_count(patches: int, hidden: float) -> int:
    """How many of the patches stay when the share `hidden` is left out: at least one, and at least one is left out."""
    return min(max(1, round(patches * (1 - hidden))), patches - 1)
