"""Several models as one: an ensemble of checkpoints answers the contract that one model answers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvlp.errors import ConfigError

__all__ = ["Ensemble", "encodes", "logit_bias", "logit_scale"]


def encodes(model: object) -> bool:
    """Whether a model encodes images and texts, or only scores."""
    return all(encodes(m) for m in model.members) if isinstance(model, Ensemble) else hasattr(model, "encode_text")


def logit_scale(model: object) -> float:
    """Factor of a model's scores to logits; 1 where it names none."""
    return float(getattr(model, "logit_scale", 1.0))


def logit_bias(model: object) -> float:
    """What a model adds to a single logit (SigLIP's); 0 where it names none."""
    return float(getattr(model, "logit_bias", 0.0))


class Ensemble:
    """Scores by the mean of its members' logits.

    Members that encode make a dual encoder again: its vectors are the members' vectors side by side, weighted so that
    their product times `logit_scale` is the mean of the members' logits. So an ensemble stands wherever a model does.

    Args:
        members: models from `kvlp.load`, or anything with `score(images, prompts) -> (N, P)`; each once.
    """

    def __init__(self, members: Sequence[Any]) -> None:
        if not members:
            raise ConfigError("Ensemble: expected at least one model, got none")
        for position, member in enumerate(members):
            if not hasattr(member, "encode_text") and not hasattr(member, "score"):
                raise ConfigError(
                    f"Ensemble: member {position} is {type(member).__name__}; expected a model from kvlp.load, "
                    "or an object with score(images, prompts)"
                )
        self.members = tuple(members)

    def __repr__(self) -> str:
        return f"Ensemble({list(self.members)!r})"

    @property
    def logit_scale(self) -> float:
        """Mean of the members' factors."""
        return float(np.mean([logit_scale(m) for m in self.members]))

    @property
    def logit_bias(self) -> float:
        """Mean of the members' biases."""
        return float(np.mean([logit_bias(m) for m in self.members]))

    @property
    def dim(self) -> int:
        """Length of the members' vectors side by side."""
        return sum(int(m.dim) for m in self.members)

    @property
    def source(self) -> str:
        """What the members were loaded from."""
        return " + ".join(str(getattr(m, "source", type(m).__name__)) for m in self.members)

    @property
    def hash(self) -> str:
        """sha256 over the members' hashes, in order; "" if one has none."""
        hashes = [str(getattr(m, "hash", "")) for m in self.members]
        return hashlib.sha256("\n".join(hashes).encode()).hexdigest() if all(hashes) else ""

    @property
    def card(self) -> dict[str, Any]:
        """What the members' training texts named, together; without that if one does not say."""
        cards = [getattr(m, "card", {}) for m in self.members]
        if any(card.get("named_concepts") is None for card in cards):
            return {}
        return {"named_concepts": sorted({str(name) for card in cards for name in card["named_concepts"]})}

    def encode_image(self, images: Sequence[Any], *, batch_size: int = 64) -> NDArray[np.float32]:
        """Unit vectors (N, D) of grey images, D the sum of the members' lengths."""
        return self._joined([self._encoder(m).encode_image(images, batch_size=batch_size) for m in self.members])

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors (N, D) of texts."""
        return self._joined([self._encoder(m).encode_text(texts) for m in self.members])

    def score(self, images: Sequence[Any], prompts: Sequence[str]) -> NDArray[np.float32]:
        """Weighted mean of the members' scores: float32 (N, P); times `logit_scale` it is the mean of their logits."""
        parts = [
            m.score(images, prompts) if hasattr(m, "score") else m.encode_image(images) @ m.encode_text(prompts).T
            for m in self.members
        ]
        return np.tensordot(self._weights(), np.stack(parts), axes=1).astype(np.float32)

    def split(self, vectors: NDArray[Any]) -> list[NDArray[Any]]:
        """Take vectors (N, D) apart into each member's unit vectors."""
        ends = np.cumsum([int(m.dim) for m in self.members])[:-1]
        parts = np.split(vectors, ends, axis=1)
        return [part / np.sqrt(weight) for part, weight in zip(parts, self._weights(), strict=True)]

    def _weights(self) -> NDArray[np.float64]:
        scales = np.array([logit_scale(m) for m in self.members])
        return scales / scales.sum()

    def _joined(self, parts: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        scaled = [np.sqrt(w) * np.asarray(part) for w, part in zip(self._weights(), parts, strict=True)]
        return np.concatenate(scaled, axis=1).astype(np.float32)

    def _encoder(self, member: Any) -> Any:
        if not hasattr(member, "encode_text"):
            raise ConfigError(f"Ensemble: {type(member).__name__} only scores; its images have no vectors, use score")
        return member
