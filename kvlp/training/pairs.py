"""A trained fusion ready for use: images and texts together, as pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from kvlp.errors import CheckpointError, ConfigError, ShapeError
from kvlp.models.fusion_head import FusionHead
from kvlp.models.tower_tokens import image_tokens, text_tokens
from kvlp.training.mentions import MentionReader, stacked

if TYPE_CHECKING:
    from kvlp.checkpoints import Model
    from kvlp.knowledge.graph import KnowledgeGraph
    from kvlp.typing import FloatArray, IntArray

__all__ = ["PREFIX", "PairEncoder", "reranked"]

#: Before the names of fusion's tensors in a checkpoint.
PREFIX = "fusion."
#: Pairs that are fused at once.
BATCH = 64


class PairEncoder(nn.Module):
    """The towers and the fusion of a checkpoint: text tokens, image tokens and the concepts that the text names.

    Args:
        model: a checkpoint that was trained with fusion (recipe arl).
        graph: finds what a text names; None leaves the third stream empty.

    Raises:
        CheckpointError: the model has no fusion, or its tensors do not fit.
        ConfigError: its tokenizer has no offsets.
    """

    def __init__(self, model: Model, graph: KnowledgeGraph | None = None) -> None:
        super().__init__()
        settings = model.card.get("fusion")
        tensors = {k.removeprefix(PREFIX): v for k, v in model.extra.items() if k.startswith(PREFIX)}
        if not settings or not tensors:
            raise CheckpointError(f"{model.source or 'the model'} has no fusion; train one by a recipe with it (arl)")
        try:
            self.head = FusionHead.restored(settings, tensors)
        except ConfigError:
            raise CheckpointError(
                f"{model.source}: its fusion does not fit its settings in kvlp.json; copy the folder again"
            ) from None
        self.towers: Any = model.module
        self.head.to(model.device)
        self.reader = _reader(model, graph, settings["concepts"])

    @property
    def width(self) -> int:
        """Length of a pair's vector."""
        return 2 * int(self.head.settings["width"])

    def read(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Texts as tensors: ids (B, L), entities (B, E), position (B, E, L)."""
        device = next(self.head.parameters()).device
        arrays = stacked([self.reader(text) for text in texts], self.reader.pad_id)
        return {name: torch.from_numpy(value).to(device) for name, value in arrays.items()}

    def places(self, pixels: Tensor) -> Tensor:
        """Image tokens (B, T, W) of pixels (B, 3, S, S)."""
        return image_tokens(self.towers.visual, pixels)

    def forward(self, places: Tensor, read: Mapping[str, Tensor]) -> Tensor:
        """Vectors (B, 2 D) of pairs; `places` from `places`, `read` from `read`."""
        ids = read["ids"]
        words = text_tokens(self.towers.text, ids)
        fused = self.head.fusion(places, words, ids != self.reader.pad_id, read["entities"], read["position"] > 0)
        return fused.pair


def _reader(model: Model, graph: KnowledgeGraph | None, concepts: Sequence[str]) -> MentionReader:
    if graph is None:
        return MentionReader(model.tokenizer, lambda _: (), {})
    from kvlp.knowledge.linking import EntityLinker

    numbers = {concept: row for row, concept in enumerate(concepts)}
    return MentionReader(model.tokenizer, EntityLinker(graph, attributes=False, language=None), numbers)


@torch.inference_mode()
def reranked(
    model: Model, encoder: PairEncoder, images: Sequence[object], texts: Sequence[str], *, k: int = 32, by: str = "text"
) -> tuple[IntArray, FloatArray]:
    """Retrieve with the two towers, then let fusion put the best `k` of each query in order.

    Every image and text goes through its tower once; of all pairs only `k` a query are fused.

    Args:
        model: the dual encoder, of the same checkpoint as `encoder`.
        encoder: the fusion.
        images: N images, as `Model.encode_image` takes them.
        texts: M texts.
        k: candidates a query; more than there are means all.
        by: "text": texts ask for images; "image": images ask for texts.

    Returns:
        Numbers of the candidates, best first, (Q, k); and fusion's log-odds of a match, in the same order.

    Raises:
        ConfigError: another `by`, or `k` below 1. ShapeError: no images or texts.
    """
    if by not in ("text", "image") or k < 1:
        raise ConfigError(f"re-ranking: expected by 'text' or 'image' and k from 1, got {by!r} and {k}")
    if not len(images) or not len(texts):
        raise ShapeError("re-ranking: expected images and texts, got none of one of them")
    encoder.eval()
    similarity = model.encode_text(texts) @ model.encode_image(images).T
    similarity = similarity if by == "text" else similarity.T
    near = np.argsort(-similarity, axis=1, kind="stable")[:, :k]  # (Q, k)
    query = np.repeat(np.arange(len(near)), near.shape[1])
    pairs = (near.ravel(), query) if by == "text" else (query, near.ravel())  # image, text
    odds = np.concatenate(list(_matches(model, encoder, images, texts, pairs))).reshape(near.shape)
    order = np.argsort(-odds, axis=1, kind="stable")
    return np.take_along_axis(near, order, axis=1), np.take_along_axis(odds, order, axis=1)


def _matches(
    model: Model, encoder: PairEncoder, images: Sequence[object], texts: Sequence[str], pairs: tuple[IntArray, IntArray]
) -> Iterator[FloatArray]:
    """Fusion's log-odds of the pairs, some at a time; image tokens are kept, so that each image is seen once."""
    wanted = np.unique(pairs[0])
    row = {int(image): place for place, image in enumerate(wanted)}
    chosen = [images[int(i)] for i in wanted]
    parts = [encoder.places(model.pixels(chosen, i, i + BATCH).to(model.device)) for i in range(0, len(chosen), BATCH)]
    places = torch.cat(parts)
    for start in range(0, len(pairs[0]), BATCH):
        image, text = (side[start : start + BATCH] for side in pairs)
        seen = places[[row[int(i)] for i in image]]
        vectors = encoder(seen, encoder.read([texts[int(t)] for t in text]))
        yield encoder.head.matches(vectors).float().cpu().numpy()
