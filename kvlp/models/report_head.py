"""The head that reads an image with knowledge and writes its report: tree, fusion, decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kvlp.errors import ConfigError
from kvlp.models.knowledge_fusion import KnowledgeFusion, KnowledgeTree
from kvlp.models.knowledge_memory import Found
from kvlp.models.report_decoder import ReportDecoder

__all__ = ["ReportHead"]

_TREE = ("names", "depth", "branch", "mask")


class ReportHead(nn.Module):
    """`KnowledgeTree`, `KnowledgeFusion` and `ReportDecoder`, built from plain values and the tree's tensors.

    Attributes:
        settings: everything it is built from but the tree; kept in a checkpoint's card. `token_width` (of image
            tokens and facts), `vocab_size`, `context`, `pad_id`, `start`, `end`, `width`, `heads`, `layers`,
            `knowledge_layers`, `retrieve` and `mix` (see `KnowledgeMemory.find`).
        tree: None where the recipe leaves general knowledge out.

    Raises:
        ConfigError: a width that the heads do not divide.
    """

    def __init__(self, settings: Mapping[str, Any], tree: Mapping[str, Tensor] | None) -> None:
        super().__init__()
        self.settings = dict(settings)
        s = self.settings
        width, heads = s["width"], s["heads"]
        if width % heads:
            raise ConfigError(f"report decoder: expected a width that the heads divide, got {width} by {heads}")
        sizes = {"width": width, "heads": heads}
        self.tree = None
        if tree is not None:
            self.tree = KnowledgeTree(
                *(tree[name] for name in _TREE), width=width, heads=heads, layers=s["knowledge_layers"],
                pad_id=s["pad_id"],
            )  # fmt: skip
        self.fusion = KnowledgeFusion(s["token_width"], **sizes, layers=s["knowledge_layers"])
        self.decoder = ReportDecoder(
            s["vocab_size"], s["context"], **sizes, layers=s["layers"], pad_id=s["pad_id"]
        )  # fmt: skip

    @classmethod
    def restored(cls, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> ReportHead:
        """Build it again from its settings and tensors.

        Raises:
            ConfigError: tensors that are missing, too many or of another shape.
        """
        try:
            tree = {name: tensors[f"tree.{name}"] for name in _TREE} if "tree.names" in tensors else None
            head = cls(settings, tree)
            head.load_state_dict(dict(tensors))
        except (KeyError, TypeError, RuntimeError) as error:
            raise ConfigError(f"report decoder: its tensors do not fit its settings ({type(error).__name__})") from None
        return head

    def see(self, image_tokens: Tensor, found: Found | None = None) -> Tensor:
        """Image tokens (B, T, token_width) with what is known: (B, T, width); without `found`, what all share alone."""
        if found is None:
            rows, width = len(image_tokens), image_tokens.shape[2]
            facts, counts = image_tokens.new_zeros(rows, 0, width), torch.zeros(rows, 0, device=image_tokens.device)
        else:
            facts, counts = found.facts, found.counts
        tree = None if self.tree is None else self.tree(self.decoder.words)
        seen: Tensor = self.fusion(image_tokens, tree, facts, counts)
        return seen
