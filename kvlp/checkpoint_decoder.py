"""A checkpoint's decoder of reports, ready for use: images in, texts out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kvlp.errors import CheckpointError, ConfigError, KvlpError, ShapeError
from kvlp.models.generation import Limits, beam_search, next_tokens
from kvlp.models.image_tokens import encode_with_tokens
from kvlp.models.knowledge_memory import Found, KnowledgeMemory
from kvlp.models.report_head import ReportHead

if TYPE_CHECKING:
    from kvlp.checkpoints import Model

__all__ = ["ReportWriter", "Retrieved"]

#: Images that go through the network at once.
_BATCH = 32
_PREFIX, _KNOWN = "decoder.", "knowledge."


class Retrieved(NamedTuple):
    """Whose facts are looked at for N images: rows (N, k) of the training data, -1 for none, and their weights."""

    rows: NDArray[np.int64]
    weights: NDArray[np.float32]


class ReportWriter:
    """Writes reports; `kvlp.load(...).decoder` makes one.

    Attributes:
        model: the dual encoder that embeds images.
        head: tree, fusion and decoder.
        knowledge: vectors and facts of the training rows; None where the recipe retrieves nothing.

    Raises:
        CheckpointError: the model has no decoder, or its tensors do not fit.
    """

    def __init__(self, model: Model) -> None:
        settings = model.card.get("report_decoder")
        tensors = _named(model, _PREFIX)
        if not settings or not tensors:
            raise CheckpointError(
                f"{model.source or 'the model'} writes no reports; train one by a recipe with report_decoder (motor)"
            )
        try:
            self.head = ReportHead.restored(settings, tensors)
            self.knowledge = _knowledge(_named(model, _KNOWN), int(settings["pad_id"]))
        except (KvlpError, KeyError, RuntimeError):
            raise CheckpointError(
                f"{model.source}: its decoder does not fit its settings in kvlp.json; copy the folder again"
            ) from None
        for module in (self.head, self.knowledge):
            if module is not None:
                module.to(model.device).eval()
        self.model = model

    def __repr__(self) -> str:
        return f"ReportWriter({self.model.source!r}, context={self.head.settings['context']})"

    def generate(
        self,
        images: Sequence[object],
        *,
        method: Literal["greedy", "beam", "nucleus"] = "greedy",
        beams: int = 3,
        top_p: float = 0.9,
        length_penalty: float = 1.0,
        max_tokens: int | None = None,
        min_tokens: int = 0,
        seed: int = 0,
    ) -> list[str]:
        """Write a report for each image, as in `encode_image`.

        Args:
            images: N images; for those the model was trained on, their own reports may be among what is retrieved.
            method: the likeliest token each time; the best of `beams` beams, by `length_penalty` (see
                `kvlp.models.generation`); or draws from the likeliest tokens of probability `top_p` together.
            max_tokens, min_tokens: of a report, its ends not counted; None for as many as the model knows.
            seed: of the draws.

        Returns:
            N texts in the tokenizer's letters (lower case, for a vocabulary of ours).

        Raises:
            ConfigError: an unknown method, or numbers that make no sense.
            ImageError, ShapeError: as `encode_image`.
        """
        if method not in ("greedy", "beam", "nucleus"):
            raise ConfigError(f"method: expected greedy, beam or nucleus, got {method!r}")
        limits = self._limits(max_tokens, min_tokens)
        generator = torch.Generator().manual_seed(seed)
        texts: list[str] = []
        for start in range(0, len(images), _BATCH):
            seen = self._seen(images, start)[0]

            def ask(ids: Tensor, rows: Tensor, seen: Tensor = seen) -> Tensor:
                with torch.inference_mode():
                    hidden = self.head.decoder(ids.to(seen.device), seen[rows.to(seen.device)])
                    return self.head.decoder.logits(hidden[:, -1]).cpu()

            if method == "beam":
                ids = beam_search(ask, len(seen), limits, beams=beams, length_penalty=length_penalty)
            else:
                top = top_p if method == "nucleus" else None
                ids = next_tokens(ask, len(seen), limits, top_p=top, generator=generator)
            texts += self._texts(ids)
        return texts

    def retrieved(self, images: Sequence[object]) -> Retrieved:
        """The training rows whose facts are looked at for each image; `run/knowledge_store` tells what they state."""
        parts = [self._seen(images, start)[1] for start in range(0, len(images), _BATCH)]
        if not parts:
            raise ShapeError("report decoder: expected at least one image, got none")
        return Retrieved(*(torch.cat([getattr(p, name) for p in parts]).cpu().numpy() for name in ("rows", "weights")))

    def match(self, images: Sequence[object], texts: Sequence[str]) -> NDArray[np.float32]:
        """Log-odds that each text belongs to the image in its place: float32 (N,)."""
        if len(images) != len(texts):
            raise ShapeError(f"report decoder: expected a text for each of {len(images)} images, got {len(texts)}")
        odds = [np.zeros(0, np.float32)]
        for start in range(0, len(images), _BATCH):
            seen = self._seen(images, start)[0]
            ids = self.model.tokenizer(list(texts[start : start + _BATCH])).to(seen.device)
            with torch.inference_mode():
                logits = self.head.decoder.judge(self.head.decoder(ids, seen, whole=True)[:, 0])
            odds.append((logits[:, 1] - logits[:, 0]).float().cpu().numpy())
        return np.concatenate(odds)

    @torch.inference_mode()
    def _seen(self, images: Sequence[object], start: int) -> tuple[Tensor, Found]:
        """Tokens of a batch of images from `start` on that have looked at what is known, and what was found."""
        module: Any = self.model.module
        s = self.head.settings
        pixels = self.model.pixels(images, start, start + _BATCH).to(self.model.device)
        found = encode_with_tokens(module.visual, pixels)
        query, tokens = torch.nn.functional.normalize(found.pooled.float(), dim=-1), found.tokens.float()
        if self.knowledge is None:
            none = Found(
                torch.zeros(len(query), 0, dtype=torch.int64), torch.zeros(len(query), 0),
                tokens.new_zeros(len(query), 0, tokens.shape[2]), tokens.new_zeros(len(query), 0),
            )  # fmt: skip
            return self.head.see(tokens, none), none
        known = self.knowledge.find(query, s["retrieve"], self.model.logit_scale, mix=s["mix"])
        return self.head.see(tokens, known), known

    def _limits(self, most: int | None, least: int) -> Limits:
        s = self.head.settings
        context = int(s["context"])
        if most is not None and not 1 <= most <= context - 2:
            raise ConfigError(f"max_tokens: expected 1 to {context - 2}, the model's context, got {most}")
        source: Any = self.model.tokenizer.source
        never = tuple(set(source.all_special_ids) - {s["start"], s["end"], s["pad_id"]})
        return Limits(
            s["start"], s["end"], s["pad_id"], context if most is None else most + 2, max(2, least + 2), never
        )

    def _texts(self, ids: Tensor) -> list[str]:
        source: Any = self.model.tokenizer.source
        texts = source.batch_decode(ids.tolist(), skip_special_tokens=True, clean_up_tokenization_spaces=True)
        return [" ".join(str(text).split()) for text in texts]


def _named(model: Model, prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in model.extra.items() if k.startswith(prefix)}


def _knowledge(tensors: dict[str, Tensor], pad_id: int) -> KnowledgeMemory | None:
    if not tensors:
        return None
    rows, dim = tensors["emb"].shape
    told = torch.full((len(tensors["fact_emb"]), 1), pad_id)
    memory = KnowledgeMemory(
        tensors["facts"], torch.arange(rows), torch.full((rows, 1), pad_id), told, dim=dim, pad_id=pad_id
    )  # fmt: skip
    memory.emb.copy_(tensors["emb"])
    memory.fact_emb.copy_(tensors["fact_emb"])
    memory.built.fill_(0)
    return memory
