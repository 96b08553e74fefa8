"""A checkpoint's query network, ready for use: images and texts in, a table of scores out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kvlp.errors import CheckpointError, ShapeError
from kvlp.models.image_tokens import encode_with_tokens
from kvlp.models.query_network import FALSE, TRUE, QueryNetwork

if TYPE_CHECKING:
    from kvlp.checkpoints import Model

__all__ = ["QueryScorer"]

#: Images that go through the network at once, each with all queries.
_BATCH = 32
_PREFIX = "query."


class QueryScorer:
    """Asks a model's query network; `kvlp.load(...).query` makes one.

    Stands wherever `score(images, prompts)` is all that is asked for, such as in `ZeroShotClassifier`. A prompt is any
    text. Its score does not depend on the other prompts (unless the network was built to mix queries, as published).

    Attributes:
        model: the dual encoder that embeds images and prompts.
        network: the query network.
        card: the model's card.
        source: where the model comes from.

    Raises:
        CheckpointError: the model has no query network, or its tensors do not fit.
    """

    def __init__(self, model: Model) -> None:
        settings = model.card.get("query_network")
        tensors = {k.removeprefix(_PREFIX): v for k, v in model.extra.items() if k.startswith(_PREFIX)}
        if not settings or not tensors:
            raise CheckpointError(
                f"{model.source or 'the model'} has no query network; train one by a recipe with query_network (kad)"
            )
        try:
            self.network = QueryNetwork(**settings)
            self.network.load_state_dict(tensors)
        except (TypeError, RuntimeError, ValueError):
            raise CheckpointError(
                f"{model.source}: its query network does not fit its settings in kvlp.json; copy the folder again"
            ) from None
        self.network.to(model.device).eval()
        self.model, self.card, self.source = model, model.card, model.source

    def __repr__(self) -> str:
        return f"QueryScorer({self.source!r}, states={self.network.settings['states']})"

    @cached_property
    def hash(self) -> str:
        """sha256 of the model's hash and the network's tensors."""
        digest = hashlib.sha256(self.model.hash.encode())
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def score(self, images: Sequence[object], prompts: Sequence[str]) -> NDArray[np.float32]:
        """Log-odds that what a prompt says is true rather than false: float32 (N, C), images as in `encode_image`."""
        logits, _ = self._asked(images, prompts, self.network)
        return logits[..., TRUE] - logits[..., FALSE]

    def states(self, images: Sequence[object], prompts: Sequence[str]) -> NDArray[np.float32]:
        """Probabilities that what a prompt says is false, true and (with three states) uncertain: float32 (N, C, S)."""
        logits, _ = self._asked(images, prompts, self.network)
        return torch.from_numpy(logits).softmax(dim=-1).numpy()

    def attention(self, images: Sequence[object], prompts: Sequence[str]) -> NDArray[np.float32]:
        """Where the network looks for a prompt: float32 (N, C, h, w) over the tower's last map; each map sums to 1."""
        weights, grid = self._asked(images, prompts, self.network.attention)
        return weights.reshape(*weights.shape[:2], *grid)

    @torch.inference_mode()
    def _asked(
        self, images: Sequence[object], prompts: Sequence[str], ask: Callable[[Tensor, Tensor], Tensor]
    ) -> tuple[NDArray[np.float32], tuple[int, int]]:
        """What `ask` says of every image and prompt, stacked over images, and the rows and columns of the map."""
        module: Any = self.model.module
        queries = torch.from_numpy(self.model.encode_text(list(prompts))).to(self.model.device)
        grid, parts = (0, 0), []
        for start in range(0, len(images), _BATCH):
            pixels = self.model.pixels(images, start, start + _BATCH).to(self.model.device)
            found = encode_with_tokens(module.visual, pixels)
            grid = found.grid
            parts.append(ask(queries, found.tokens.float()).float().cpu().numpy())
        if not parts:
            raise ShapeError("query network: expected at least one image, got none")
        return np.concatenate(parts), grid
