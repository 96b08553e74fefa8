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

#: Images that go through the network at once, and queries that each of them is asked.
_BATCH, _QUERIES = 32, 512
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

    @torch.inference_mode()
    def score_vectors(self, vectors: NDArray[Any], prompts: Sequence[str]) -> NDArray[np.float32]:
        """The same where a vector (N, D) of the joint space, a text's for one, is all that is seen: float32 (N, C)."""
        device, queries = self.model.device, self._queries(prompts)
        seen = torch.from_numpy(np.asarray(vectors, np.float32)).to(device)[:, None]
        logits = self._chunked(self.network, queries, seen)
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
        queries, grid, parts = self._queries(prompts), (0, 0), []
        for start in range(0, len(images), _BATCH):
            pixels = self.model.pixels(images, start, start + _BATCH).to(self.model.device)
            found = encode_with_tokens(module.visual, pixels)
            grid = found.grid
            parts.append(self._chunked(ask, queries, found.tokens.float()))
        if not parts:
            raise ShapeError("query network: expected at least one image, got none")
        return np.concatenate(parts), grid

    def _queries(self, prompts: Sequence[str]) -> Tensor:
        return torch.from_numpy(self.model.encode_text(list(prompts))).to(self.model.device)

    @staticmethod
    def _chunked(ask: Callable[[Tensor, Tensor], Tensor], queries: Tensor, memory: Tensor) -> NDArray[np.float32]:
        """What is asked of some images, a part of the queries at a time, so that memory holds one part."""
        found = [ask(part, memory).float().cpu() for part in queries.split(_QUERIES)]
        return torch.cat(found, dim=1).numpy()
