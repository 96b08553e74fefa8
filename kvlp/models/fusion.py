"""Three streams that look at each other: the words of a text, the places of an image, the concepts that the text names.

Reference: ARL (Chen et al. 2022, "Align, Reason and Learn with Knowledge"), the reason step, on METER's co-attention.
Deviations: norms stand before each block, not after it; the concept vectors are given and stay as they are.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kvlp.errors import ConfigError, ShapeError
from kvlp.models.attention import Attention, FeedForward

__all__ = ["Fused", "ThreeStreamFusion"]


class Fused(NamedTuple):
    """What fusion hands out.

    Attributes:
        text: (B, L, D) words after the last layer; padding means nothing.
        image: (B, T, D) places after the last layer.
        middle: (B, T, D) places after layer `tap`, for masked image modelling.
    """

    text: Tensor
    image: Tensor
    middle: Tensor

    @property
    def pair(self) -> Tensor:
        """One vector (B, 2 D) for the pair: the text's first token and the mean of the image's places."""
        return torch.cat([self.text[:, 0], self.image.mean(dim=1)], dim=1)


class ThreeStreamFusion(nn.Module):
    """Co-attention of text and image with a third stream of concept vectors.

    In every layer each entity looks at the other entities, then at the image; what it has become is projected to the
    width of the text and added to the tokens of its mention. Then words look at words and at the image, places at
    places and at the words. `reason=False` leaves the third stream out.

    Args:
        image_width, text_width: of the towers' token features.
        concepts: (C, W) concept vectors, kept as they are; None switches the third stream off.
        width: D of the two large streams; heads: their attention heads.
        layers: number of layers; tap: after which one `middle` is taken (1 is the first).
        entity_width, entity_heads, entity_hidden: of the third stream.
        reason: whether there is a third stream.

    Shape: image (B, T, image_width); text (B, L, text_width); text_mask (B, L) bool, True for words; entities (B, E)
        int64, rows of `concepts`, -1 for none; position (B, E, L) bool, True for the tokens of an entity's mention.
    Raises: ConfigError: `tap` or heads that do not fit; ShapeError: shapes that do not fit.
    """

    def __init__(  # noqa: PLR0913 - the widths of three streams
        self,
        image_width: int,
        text_width: int,
        concepts: Tensor | None,
        *,
        width: int = 768,
        heads: int = 12,
        layers: int = 6,
        tap: int = 3,
        entity_width: int = 256,
        entity_heads: int = 4,
        entity_hidden: int = 1024,
        reason: bool = True,
    ) -> None:
        super().__init__()
        if not 1 <= tap <= layers:
            raise ConfigError(f"fusion: expected tap between 1 and layers ({layers}), got {tap}")
        if width % heads or entity_width % entity_heads:
            raise ConfigError(
                f"fusion: expected widths that heads divide, got {width} by {heads}, {entity_width} by {entity_heads}"
            )
        self.tap = tap
        self.reason = reason and concepts is not None
        self.image_in, self.text_in = nn.Linear(image_width, width), nn.Linear(text_width, width)
        self.kind = nn.Parameter(torch.randn(2, width) * 0.02)  # which stream a token is of
        self.layers = nn.ModuleList(_Layer(width, heads) for _ in range(layers))
        self.text_norm, self.image_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        if self.reason and concepts is not None:
            self.concepts: Tensor
            self.register_buffer("concepts", F.normalize(concepts.float(), dim=1))
            self.entity_in = nn.Linear(concepts.shape[1], entity_width)
            sizes = (entity_width, entity_heads, entity_hidden, width)
            self.entity_layers = nn.ModuleList(_EntityLayer(*sizes) for _ in range(layers))

    def forward(self, image: Tensor, text: Tensor, text_mask: Tensor, entities: Tensor, position: Tensor) -> Fused:
        _check(image, text, text_mask, entities, position)
        x, y = self.text_in(text) + self.kind[0], self.image_in(image) + self.kind[1]
        seen = text_mask[:, None, None, :]
        known = entities >= 0
        named = (position & known[..., None]).to(x.dtype)  # (B, E, L)
        reasons = self.reason and entities.shape[1] > 0
        entity = self.entity_in(self.concepts[entities.clamp(min=0)]) if reasons else x
        middle = y
        for number, layer in enumerate(self.layers):
            if reasons:
                entity, words = self.entity_layers[number](entity, y, known)
                x = x + named.transpose(1, 2).to(words.dtype) @ words
            x, y = layer(x, y, seen)
            if number + 1 == self.tap:
                middle = y
        return Fused(self.text_norm(x), self.image_norm(y), middle)


class _Layer(nn.Module):
    """Words look at words, then at the image; places at places, then at the words; both as they came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.text_self, self.image_self = Attention(width, heads), Attention(width, heads)
        self.text_cross, self.image_cross = (Attention(width, heads, source_dim=width) for _ in range(2))
        self.text_ff, self.image_ff = FeedForward(width, 4 * width), FeedForward(width, 4 * width)

    def forward(self, x: Tensor, y: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        words, places = self.text_self(x, mask=seen), self.image_self(y)
        text, image = self.text_cross(words, y), self.image_cross(places, x, mask=seen)
        return self.text_ff(text), self.image_ff(image)


class _EntityLayer(nn.Module):
    """Entities look at entities, then at the image; the second result is what each says to the words of its mention."""

    def __init__(self, width: int, heads: int, hidden: int, text_width: int) -> None:
        super().__init__()
        self.among = Attention(width, heads)
        self.see = nn.Linear(text_width, width)
        self.cross = Attention(width, heads, source_dim=width)
        self.ff = FeedForward(width, hidden)
        self.norm, self.say = nn.LayerNorm(width), nn.Linear(width, text_width)

    def forward(self, entity: Tensor, image: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        itself = torch.eye(known.shape[1], dtype=torch.bool, device=known.device)
        mask = known[:, None, None, :] | itself  # an empty place looks at itself, else softmax has nothing to choose
        entity = self.ff(self.cross(self.among(entity, mask=mask), self.see(image)))
        return entity, self.say(self.norm(entity))


def _check(image: Tensor, text: Tensor, text_mask: Tensor, entities: Tensor, position: Tensor) -> None:
    rows, length = text.shape[:2]
    if (
        len(image) != rows
        or text_mask.shape != (rows, length)
        or len(entities) != rows
        or position.shape != (*entities.shape, length)
    ):
        raise ShapeError(
            f"fusion: expected image (B, T, W), text (B, L, W), mask (B, L), entities (B, E), position (B, E, L), got "
            f"{tuple(image.shape)}, {tuple(text.shape)}, {tuple(text_mask.shape)}, {tuple(entities.shape)} and "
            f"{tuple(position.shape)}"
        )
