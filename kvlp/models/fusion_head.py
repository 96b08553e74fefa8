"""Fusion with what teaches it: the words it tells, the patches it paints, whether image and text belong together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kvlp.errors import ConfigError
from kvlp.models.fusion import ThreeStreamFusion
from kvlp.models.reconstruction import MapDecoder, PatchDecoder
from kvlp.models.tower_tokens import image_width, map_size, patch_size, text_width

__all__ = ["FusionHead", "fusion_sizes"]

#: Settings that go to `ThreeStreamFusion` as they are.
_FUSION = ("width", "heads", "layers", "tap", "entity_width", "entity_heads", "entity_hidden", "reason")


class FusionHead(nn.Module):
    """A `ThreeStreamFusion` and three heads on it.

    Attributes:
        settings: everything it is built from but the concept vectors; plain values, kept in a checkpoint's card.
        fusion: image tokens and text tokens in, what they have become out.
        tell: (..., D) features of words -> (..., D), to be compared with `words` (V, D) and `word_bias` (V,).
        decoder: `PatchDecoder` where the image tower can leave patches out, `MapDecoder` where it sees them covered;
            None where the places of its map do not fill the image.
        judge: (..., 2 D) vectors of pairs -> (..., 2) logits, no match and match.

    Args:
        settings: see `fusion_sizes`.
        concepts: (C, W) concept vectors, those of `settings["concepts"]` in order; None for no third stream.

    Raises:
        ConfigError: sizes that do not fit.
    """

    def __init__(self, settings: Mapping[str, Any], concepts: Tensor | None) -> None:
        super().__init__()
        self.settings = dict(settings)
        s = self.settings
        self.fusion = ThreeStreamFusion(s["image_width"], s["text_width"], concepts, **{k: s[k] for k in _FUSION})
        width = s["width"]
        self.tell = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        self.words = nn.Parameter(torch.randn(s["vocab_size"], width) * 0.02)
        self.word_bias = nn.Parameter(torch.zeros(s["vocab_size"]))
        self.judge = nn.Linear(2 * width, 2)
        self.decoder: PatchDecoder | MapDecoder | None = None
        pixels = 3 * s["patch"] ** 2
        if pixels and s.get("covered"):
            self.decoder = MapDecoder(width, s["patches"], pixels)
        elif pixels:
            self.decoder = PatchDecoder(
                width, s["patches"], pixels, dim=s["decoder_width"], layers=s["decoder_layers"],
                heads=s["decoder_heads"], prefix=s["prefix"],
            )  # fmt: skip

    @classmethod
    def restored(cls, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> FusionHead:
        """Build it again from its settings and tensors.

        Raises:
            ConfigError: tensors that are missing, too many or of another shape.
        """
        try:
            head = cls(settings, tensors.get("fusion.concepts"))
            head.load_state_dict(dict(tensors))
        except (KeyError, TypeError, RuntimeError) as error:
            raise ConfigError(f"fusion: its tensors do not fit its settings ({type(error).__name__})") from None
        return head

    def matches(self, pair: Tensor) -> Tensor:
        """Log-odds that image and text belong together: (..., 2 D) -> (...)."""
        logits: Tensor = self.judge(pair)
        return logits[..., 1] - logits[..., 0]


def fusion_sizes(model: Any, image_size: int, concepts: Sequence[str], **tokenizer: int) -> dict[str, Any]:
    """The settings of a fusion head that the two towers decide.

    Args:
        model: the dual encoder.
        image_size: side of its input.
        concepts: ids of the concept vectors, in order.
        tokenizer: vocab_size, context (most tokens) and pad_id of its tokenizer.

    Returns:
        These, image_width and text_width, and patches, patch, prefix, covered: how many patches the image has, their
        side, the tokens before them, and whether the tower sees them covered (one without patches of its own, whose
        map's places stand for them); patch is 0 where they do not fill the image.
    """
    trunk = getattr(model.visual, "trunk", None)
    try:
        patch, own = patch_size(model.visual), True
        patches = (image_size // patch) ** 2
    except ConfigError:
        patches, own = map_size(model.visual, image_size), False
        side = math.isqrt(patches)
        patch = image_size // side if side * side == patches and image_size % side == 0 else 0
    return {
        "image_width": image_width(model.visual),
        "text_width": text_width(model.text),
        **tokenizer,
        "concepts": list(concepts),
        "patch": patch,
        "patches": patches if patch else 0,
        "prefix": int(getattr(trunk, "num_prefix_tokens", 1)) if own else 0,
        "covered": not own,
    }
