"""How a recipe describes fusion, and the head that is built of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kvlp.training.settings import Positive, Strict

if TYPE_CHECKING:
    from kvlp.knowledge.embedding import ConceptVectors
    from kvlp.knowledge.graph import KnowledgeGraph
    from kvlp.models.fusion_head import FusionHead
    from kvlp.training.texts import TextRows

__all__ = ["FusionPart", "build_fusion", "fusion_concepts"]

#: A graph of more concepts than this gives the vectors of those that the texts name, not of all.
ALL_CONCEPTS = 20_000


class FusionPart(Strict):
    """How the three-stream fusion is built; it lasts over the stages and is saved in the checkpoint.

    `reason`: whether the concepts that a text names are a third stream; it needs `concept_vectors`. `tap`: after which
    layer the features for masked image modelling are taken. Published: 6 layers of width 768, the third stream of
    width 256; the decoder of masked patches has 4 layers of width 384.
    """

    reason: bool = True
    layers: Positive = 6
    tap: Positive = 3
    width: Positive = 768
    heads: Positive = 12
    entity_width: Positive = 256
    entity_heads: Positive = 4
    entity_hidden: Positive = 1024
    decoder_width: Positive = 384
    decoder_layers: Positive = 4
    decoder_heads: Positive = 6


def fusion_concepts(taught: KnowledgeGraph, texts: TextRows) -> tuple[str, ...]:
    """Ids of the concepts whose vectors the third stream holds, in order: all, or of a large graph those named."""
    ids = [concept.id for concept in taught.concepts]
    return tuple(ids) if len(ids) <= ALL_CONCEPTS else tuple(i for i in ids if i in texts.named)


def build_fusion(
    part: FusionPart,
    model: Any,
    image_size: int,
    concepts: tuple[str, ...],
    vectors: ConceptVectors | None,
    **tokenizer: int,
) -> FusionHead:
    """Build the head of a recipe.

    Args:
        part: its settings.
        model: the dual encoder; image_size: side of its input.
        concepts: see `fusion_concepts`; vectors: of the graph, or None, which leaves the third stream out.
        tokenizer: vocab_size, context and pad_id of its tokenizer.
    """
    import torch

    from kvlp.models.fusion_head import FusionHead, fusion_sizes

    known = vectors if part.reason else None
    settings = fusion_sizes(model, image_size, concepts if known is not None else (), **tokenizer)
    rows = None if known is None else torch.from_numpy(known.rows(concepts))
    return FusionHead({**settings, **part.model_dump(), "reason": known is not None}, rows)
