"""Texts as tokens with the concepts they name and where: what the third stream of a fusion model is fed with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kvlp.errors import ConfigError
from kvlp.training.masking import Vocabulary, units_of

if TYPE_CHECKING:
    from kvlp.knowledge.linking import Mention
    from kvlp.tokenizers import TextTokenizer
    from kvlp.typing import IntArray

__all__ = ["MentionReader", "ReadText", "stacked"]

#: So many texts are remembered with what was read in them.
REMEMBERED = 1 << 14


class ReadText(NamedTuple):
    """A text in tokens, and the concepts that it names.

    Attributes:
        ids: (L,) token ids.
        entities: (E,) numbers of the concepts, in the order of their mentions.
        position: (E, L) bool, the tokens of each mention.
        units: the tokens that are covered together, see `units_of`.
    """

    ids: IntArray
    entities: IntArray
    position: np.ndarray
    units: tuple[IntArray, ...] = ()


class MentionReader:
    """Tokenises texts and finds the concepts they name.

    Args:
        tokenizer: must be a transformers tokenizer that knows offsets and a mask.
        link: text -> mentions, as an EntityLinker.
        numbers: concept id -> its row among the concept vectors; a concept without one is passed over.
        most: entities of a text at most; later ones are passed over.

    Raises:
        ConfigError: the tokenizer has no offsets or no mask token.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        link: Callable[[str], Iterable[Mention]],
        numbers: Mapping[str, int],
        *,
        most: int = 24,
    ) -> None:
        from open_clip.tokenizer import get_clean_fn

        source: Any = tokenizer.source
        if not getattr(source, "is_fast", False) or source.mask_token_id is None:
            raise ConfigError(
                "fusion needs a transformers tokenizer with offsets and a [MASK] token, and this model has none: "
                "train from a recipe's own vocabulary, or start from a text tower that has one"
            )
        self._source, self._length, self._link = source, tokenizer.context_length, link
        self._clean: Callable[[str], str] = get_clean_fn("whitespace")
        self._numbers, self._most = numbers, most
        self.pad_id = tokenizer.pad_id
        special = frozenset(map(int, source.all_special_ids))
        words = np.array(sorted(set(source.get_vocab().values()) - special), dtype=np.int64)
        self.vocabulary = Vocabulary(int(source.mask_token_id), special, words)
        self.read = lru_cache(maxsize=REMEMBERED)(self._read)

    def __call__(self, text: str) -> ReadText:
        return self.read(text)

    def _read(self, text: str) -> ReadText:
        text = self._clean(text)
        told = self._source(text, max_length=self._length, truncation=True, return_offsets_mapping=True)
        offsets = np.array(told["offset_mapping"], dtype=np.int64).reshape(-1, 2)
        entities: list[int] = []
        places: list[np.ndarray] = []
        for mention in self._link(text):
            number = self._numbers.get(mention.concept)
            place = (offsets[:, 0] < mention.end) & (offsets[:, 1] > mention.start) & (offsets[:, 1] > offsets[:, 0])
            if number is not None and place.any() and len(entities) < self._most:
                entities.append(number)
                places.append(place)
        position = np.array(places, dtype=bool).reshape(len(places), len(offsets))
        ids = np.array(told["input_ids"], dtype=np.int64)
        units = units_of(ids, position, self.vocabulary.special)
        return ReadText(ids, np.array(entities, dtype=np.int64), position, units)


def stacked(texts: Sequence[ReadText], pad_id: int) -> dict[str, np.ndarray]:
    """Pad read texts to one length and one number of entities.

    Returns:
        ids (B, L) int64, entities (B, E) int64 with -1 for none (E at least 1), position (B, E, L) int64 0 or 1.
    """
    length = max(len(text.ids) for text in texts)
    most = max(1, *(len(text.entities) for text in texts))
    ids = np.full((len(texts), length), pad_id, dtype=np.int64)
    entities = np.full((len(texts), most), -1, dtype=np.int64)
    position = np.zeros((len(texts), most, length), dtype=np.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text.ids)] = text.ids
        entities[row, : len(text.entities)] = text.entities
        position[row, : len(text.entities), : len(text.ids)] = text.position
    return {"ids": ids, "entities": entities, "position": position}
