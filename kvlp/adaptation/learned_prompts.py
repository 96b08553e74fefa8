"""Learned prompts: the words before a class name become learned vectors, with or without a look at the image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kvlp.adaptation.few_shot import FewShot, Patients
from kvlp.errors import ConfigError
from kvlp.zero_shot.asking import class_prompts
from kvlp.zero_shot.scoring import Floats

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["LearnedPrompts"]

KINDS = ("present", "absent")
#: rows of text that go through the tower at once where each image has its own
_AT_ONCE = 512
#: the image's network is so much narrower than its feature
_NARROWER = 16


class LearnedPrompts(FewShot):
    """The vectors of the first words of "There is {class}." and "There is no {class}." are learned; all else stays.

    Before the first step the score is that of these sentences. Because the vectors belong to no class, they can ask for
    others too (`with_classes`).

    Args:
        conditional: a small network of the image shifts the vectors (CoCoOp): dearer, and meant for other classes.
        context: the words that are learned from, before the class name, that state and that deny.
        epochs: passes over the images.
        lr: learning rate of Adam.
        batch_size_images: images a step.
        anchor: weight of the squared distance of the class vectors to those before learning (KgCoOp); it keeps what
            the model knew of other classes.

    Attributes:
        losses_: mean loss of each epoch.

    Reference: Zhou et al. 2022 (CoOp, equation 2); Zhou et al. 2022 (CoCoOp, equation 3); Yao et al. 2023 (KgCoOp).
    Deviation: several findings can be present, so a class is stated and denied, each with vectors of its own, and the
    loss is the binary cross-entropy of the difference, positives and negatives of a class weighing the same.
    """

    def __init__(
        self,
        *args: Any,
        conditional: bool = False,
        context: tuple[str, str] = ("There is", "There is no"),
        epochs: int = 50,
        lr: float = 2e-3,
        batch_size_images: int = 32,
        anchor: float = 0.0,
        **settings: Any,
    ) -> None:
        super().__init__(*args, **settings)
        if epochs < 1 or lr <= 0 or batch_size_images < 1 or anchor < 0:
            raise ConfigError(
                f"expected epochs >= 1, lr > 0, batch_size_images >= 1 and anchor >= 0, "
                f"got {epochs}, {lr}, {batch_size_images} and {anchor}"
            )
        self.conditional, self.context, self.epochs, self.lr = conditional, context, epochs, lr
        self.batch_size_images, self.anchor = batch_size_images, anchor
        self._asked = self._sentences()

    def with_classes(self, classes: Sequence[str]) -> LearnedPrompts:
        """The same learned vectors around other class names."""
        other = copy(self)
        other.classes_ = list(classes)
        other._asked = other._sentences()
        return other

    def _sentences(self) -> list[_Asked]:
        templates = {kind: [words + " {}."] for kind, words in zip(KINDS, self.context, strict=True)}
        said = [
            class_prompts(name, self.graph, templates, synonyms=False, style="plain", kinds=KINDS)
            for name in self.classes_
        ]
        return [
            _asked(self.model, words, [one[kind][0] for one in said])
            for kind, words in zip(KINDS, self.context, strict=True)
        ]

    def _fit(self, images: Floats, labels: Floats, patients: Patients) -> None:
        import torch

        generator = torch.Generator().manual_seed(self.seed)
        embedding = token_embedding(self.model.module)
        with torch.no_grad():
            self._vectors = [embedding(asked.words).detach().clone().float() for asked in self._asked]
        self._shift = _shift(images.shape[1], self._vectors[0].shape[1], generator) if self.conditional else None
        learned = [v.requires_grad_() for v in self._vectors]
        learned += list(self._shift.parameters()) if self._shift is not None else []
        optimizer = torch.optim.Adam(learned, lr=self.lr)
        seen, truth = torch.from_numpy(images).float(), torch.from_numpy(labels).float()
        weights = _balance(truth)
        before = [asked.class_vectors().detach() for asked in self._asked]
        self.losses_ = []
        for _ in range(self.epochs):
            total = 0.0
            for rows in torch.randperm(len(seen), generator=generator).split(self.batch_size_images):
                loss = self._loss(seen[rows], truth[rows], weights[rows], before)
                for parameter, gradient in zip(learned, torch.autograd.grad(loss, learned), strict=True):
                    parameter.grad = gradient
                optimizer.step()
                total += float(loss.detach()) * len(rows) / len(seen)
            self.losses_.append(total)
        self._vectors = [v.detach() for v in self._vectors]

    def _loss(self, images: Tensor, truth: Tensor, weights: Tensor, before: list[Tensor]) -> Tensor:
        import torch.nn.functional as F

        logits, asked = self._logits(images)
        loss = F.binary_cross_entropy_with_logits(logits, truth.nan_to_num(0.0).clamp(min=0), weights, reduction="sum")
        loss = loss / len(images)
        if self.anchor > 0:
            loss = loss + self.anchor * sum(
                ((now - old) ** 2).sum(dim=-1).mean() for now, old in zip(asked, before, strict=True)
            )
        return loss

    def _logits(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(N, C) logits, and the vectors of the classes for each kind, (C, D) or (N, C, D)."""
        import torch

        shift = self._shift(images) if self._shift is not None else None
        asked = [one.class_vectors(v, shift) for one, v in zip(self._asked, self._vectors, strict=True)]
        product = "nd,ncd->nc" if shift is not None else "nd,cd->nc"
        stated, denied = (torch.einsum(product, images, vectors) for vectors in asked)
        return self.model.logit_scale * (stated - denied), asked

    def _scores(self, images: Floats) -> Floats:
        import torch

        seen, parts = torch.from_numpy(images).float(), []
        with torch.no_grad():
            at_once = max(1, _AT_ONCE // len(self.classes_)) if self.conditional else len(seen)
            for rows in seen.split(at_once):
                parts.append(self._logits(rows)[0])
        return torch.cat(parts).double().numpy()


@dataclass(frozen=True)
class _Asked:
    """The sentences of one kind, and where their learned words stand.

    Attributes:
        ids: (C, L) token ids.
        words: (M,) ids of the words that are learned.
        start: their first place in each sentence.
        module: the dual encoder.
    """

    ids: Tensor
    words: Tensor
    start: int
    module: Any

    def class_vectors(self, vectors: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        """Unit vectors (C, D) of the sentences, vectors (M, E) for their words; (N, C, D) with shifts (N, E)."""
        import torch.nn.functional as F

        if vectors is None:
            return F.normalize(self.module.encode_text(self.ids).float(), dim=-1)
        ids, context = self.ids, vectors[None]
        if shift is not None:
            count = len(self.ids)
            ids = self.ids.repeat(len(shift), 1)
            context = (vectors[None] + shift[:, None]).repeat_interleave(count, dim=0)
        with _replaced(token_embedding(self.module), self.start, context):
            found = F.normalize(self.module.encode_text(ids).float(), dim=-1)
        return found if shift is None else found.view(len(shift), len(self.ids), -1)


def _asked(model: Any, words: str, sentences: list[str]) -> _Asked:
    """Tokens of the sentences, which must begin, after marks, with the tokens of the words."""
    ids, alone = model.tokenizer(sentences), model.tokenizer([words])[0]
    same = (ids[:, : len(alone)] == alone[: ids.shape[1]]).all(dim=0).int().cumprod(dim=0).sum()
    bare = model.tokenizer(["a", words.split()[0]])
    start = int((bare[0] == bare[1]).int().cumprod(dim=0).sum())
    if int(same) <= start:
        raise ConfigError(f"context: the tokenizer reads {words!r} otherwise before a class name; choose other words")
    return _Asked(ids, ids[0, start : int(same)], start, model.module)


def token_embedding(module: Any) -> nn.Module:
    """The table of token vectors of a text tower: open_clip's, or a transformers model's in one.

    Raises:
        ConfigError: the tower has none that is known.
    """
    text = getattr(module, "text", module)
    found = getattr(text, "token_embedding", None)
    if found is None and hasattr(text, "transformer") and hasattr(text.transformer, "get_input_embeddings"):
        found = text.transformer.get_input_embeddings()
    if found is None:
        raise ConfigError("learned prompts need a text tower with token embeddings; this model's are not known")
    return found


@contextmanager
def _replaced(embedding: nn.Module, start: int, context: Tensor) -> Iterator[None]:
    """As long as the block lasts, `context` (1 or n, M, E) stands for the token vectors from `start` on."""
    import torch

    def put(_: Any, __: Any, output: Tensor) -> Tensor:
        rows = context.to(output.dtype).expand(len(output), -1, -1)
        return torch.cat([output[:, :start], rows, output[:, start + rows.shape[1] :]], dim=1)

    handle = embedding.register_forward_hook(put)
    try:
        yield
    finally:
        handle.remove()


def _shift(dim: int, width: int, generator: Any) -> nn.Module:
    """The network of CoCoOp: an image's feature to a shift of the vectors; it begins with none."""
    from torch import nn

    inner = max(1, dim // _NARROWER)
    first, last = nn.Linear(dim, inner), nn.Linear(inner, width)
    nn.init.kaiming_uniform_(first.weight, a=5**0.5, generator=generator)
    for zero in (first.bias, last.weight, last.bias):
        nn.init.zeros_(zero)
    return nn.Sequential(first, nn.ReLU(), last)


def _balance(truth: Tensor) -> Tensor:
    """(N, C) weights that sum to N: positives and negatives of each class weigh the same, unknown ones nothing."""
    shares = [mask.float() / mask.sum(dim=0).clamp(min=1) for mask in (truth == 1, truth == 0)]
    return (shares[0] + shares[1]) * (len(truth) / (2 * truth.shape[1]))
