"""Fine-tuning of a fused model: a question (or any text) about an image, and one of a list of answers (or classes)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from kvlp.checkpoints import load, save_checkpoint
from kvlp.errors import CheckpointError, DataError
from kvlp.training.augment import augment
from kvlp.training.data import epoch_batches
from kvlp.training.loop import cosine_schedule
from kvlp.training.pairs import PREFIX, PairEncoder
from kvlp.training.settings import Positive, Share, Strict

if TYPE_CHECKING:
    from kvlp.checkpoints import Model
    from kvlp.knowledge.graph import KnowledgeGraph
    from kvlp.typing import FloatArray, IntArray, PathLike

__all__ = ["FineTuneSettings", "PairClassifier", "answer_list"]

_HEAD = "answers."


class FineTuneSettings(Strict):
    """How a head of answers is trained, with the fusion and the towers below it.

    Published for VQA-RAD: lr 5e-6, head x50, fusion x5, 50 epochs. `blind`: the images are left out of training and
    answering, so that only the question speaks: a baseline.
    """

    epochs: Positive = 50
    batch_size: Positive = 64
    lr: Annotated[float, Field(gt=0)] = 5e-6
    fusion_lr: Annotated[float, Field(gt=0)] = 5.0
    head_lr: Annotated[float, Field(gt=0)] = 50.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    warmup: Share = 0.1
    seed: Annotated[int, Field(ge=0)] = 0
    augment: bool = True
    blind: bool = False


def answer_list(answers: Iterable[str], *, min_count: int = 1) -> tuple[str, ...]:
    """The answers that can be given: lower case, each that comes `min_count` times, the commonest first."""
    counts = Counter(answer.strip().casefold() for answer in answers)
    kept = [answer for answer, count in counts.items() if answer and count >= min_count]
    return tuple(sorted(kept, key=lambda answer: (-counts[answer], answer)))


class PairClassifier:
    """Chooses an answer for an image and a text. `fit` trains one from a checkpoint with fusion, `load` opens one.

    Attributes:
        model: the checkpoint; training changes its towers.
        encoder: its fusion.
        answers: what it can say.
        head: (B, 2 D) -> (B, A).
        blind: it never looks at the image.
    """

    def __init__(
        self, model: Model, answers: Sequence[str], graph: KnowledgeGraph | None = None, *, blind: bool = False
    ) -> None:
        self.model, self.answers, self.blind = model, tuple(answers), blind
        self.encoder = PairEncoder(model, graph)
        width = self.encoder.width
        last = nn.Linear(width, len(answers))
        self.head = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width), nn.GELU(), last).to(model.device)

    @classmethod
    def fit(
        cls,
        model: Model,
        images: Sequence[object],
        texts: Sequence[str],
        answers: Sequence[str],
        graph: KnowledgeGraph | None = None,
        *,
        settings: FineTuneSettings | None = None,
        progress: Callable[[int, int, float], None] | None = None,
    ) -> PairClassifier:
        """Train on N images, texts and answers; an image that several texts ask about is the same object each time.

        Args:
            model: a checkpoint that was trained with fusion; it is changed.
            images: as `Model.encode_image` takes them.
            texts, answers: of each image; answers differ not by case.
            graph: finds what a text names.
            settings: see FineTuneSettings.
            progress: called with (steps done, all, loss).

        Raises:
            DataError: fewer than two answers, or lists of different lengths.
            CheckpointError: the model has no fusion.
        """
        settings = settings or FineTuneSettings()
        known = answer_list(answers)
        if len(known) < 2 or not len(images) == len(texts) == len(answers):
            raise DataError(
                f"fine-tuning: expected as many images, texts and answers and at least two kinds of answers, got "
                f"{len(images)}, {len(texts)}, {len(answers)} and {len(known)}"
            )
        torch.manual_seed(settings.seed)
        made = cls(model, known, graph, blind=settings.blind)
        number = {answer: i for i, answer in enumerate(known)}
        targets = np.array([number.get(answer.strip().casefold(), -100) for answer in answers], dtype=np.int64)
        made._train(_Pixels(model, images), list(texts), targets, settings, progress)
        return made

    def _train(
        self,
        pixels: _Pixels,
        texts: list[str],
        targets: IntArray,
        settings: FineTuneSettings,
        progress: Callable[[int, int, float], None] | None,
    ) -> None:
        seeds = [(settings.seed, 11, epoch) for epoch in range(settings.epochs)]
        batches = [batch for seed in seeds for batch in epoch_batches(len(texts), settings.batch_size, seed)]
        optimizer = self._optimizer(settings)
        schedule = cosine_schedule(settings.lr, len(batches), settings.warmup, 0.0)
        self.encoder.train()
        for step, batch in enumerate(batches):
            for group in optimizer.param_groups:
                group["lr"] = schedule(step) * group["lr_scale"]
            rng = np.random.default_rng([settings.seed, 12, step]) if settings.augment else None
            logits = self._logits(pixels(batch, rng), [texts[i] for i in batch])
            loss = F.cross_entropy(logits.float(), torch.from_numpy(targets[batch]).to(logits.device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_([p for g in optimizer.param_groups for p in g["params"]], 5.0)
            optimizer.step()
            if progress:
                progress(step + 1, len(batches), float(loss.detach()))
        self.model.module.eval()

    def _optimizer(self, settings: FineTuneSettings) -> torch.optim.Optimizer:
        parts = ((self.model.module, 1.0), (self.encoder.head, settings.fusion_lr), (self.head, settings.head_lr))
        groups = [
            {
                "params": [p for p in module.parameters() if p.requires_grad and (p.ndim > 1) is matrix],
                "weight_decay": settings.weight_decay if matrix else 0.0,
                "lr_scale": scale,
            }
            for module, scale in parts
            for matrix in (True, False)
        ]
        return torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, 0.98), eps=1e-6)

    def _logits(self, pixels: Tensor, texts: Sequence[str]) -> Tensor:
        pixels = torch.zeros_like(pixels) if self.blind else pixels
        logits: Tensor = self.head(self.encoder(self.encoder.places(pixels), self.encoder.read(texts)))
        return logits

    @torch.inference_mode()
    def predict_proba(self, images: Sequence[object], texts: Sequence[str], *, batch_size: int = 64) -> FloatArray:
        """Probability of each answer: float32 (N, A), in the order of `answers`."""
        if len(images) != len(texts):
            raise DataError(f"expected as many images as texts, got {len(images)} and {len(texts)}")
        self.encoder.eval()
        self.head.eval()
        pixels = _Pixels(self.model, images)
        parts = [
            self._logits(pixels(rows), [texts[i] for i in rows]).float().softmax(dim=1).cpu().numpy()
            for rows in np.array_split(np.arange(len(texts)), max(1, math.ceil(len(texts) / batch_size)))
            if len(rows)
        ]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.answers)), np.float32)

    def predict(self, images: Sequence[object], texts: Sequence[str]) -> list[str]:
        """The likeliest answer to each."""
        return [self.answers[int(i)] for i in self.predict_proba(images, texts).argmax(axis=1)]

    def save(self, folder: PathLike) -> Path:
        """Write a checkpoint folder with the head of answers in it; towers and fusion are the fine-tuned ones."""
        model = self.model
        kept = {k: v for k, v in model.extra.items() if not k.startswith((PREFIX, _HEAD))}
        ours = {PREFIX: self.encoder.head, _HEAD: self.head}
        extra = {f"{prefix}{k}": v.detach().cpu() for prefix, m in ours.items() for k, v in m.state_dict().items()}
        card = {**model.card, "answers": list(self.answers), "blind": self.blind}
        return save_checkpoint(
            folder, model.module, model.model_cfg, model.preprocess_cfg, model.tokenizer, card, extra={**kept, **extra}
        )

    @classmethod
    def load(cls, folder: PathLike, graph: KnowledgeGraph | None = None, *, device: str = "cpu") -> PairClassifier:
        """Open what `save` wrote.

        Raises:
            CheckpointError: no checkpoint there, or one without a head of answers.
        """
        model = load(folder, device)
        answers = model.card.get("answers")
        if not answers:
            raise CheckpointError(f"{folder}: has no head of answers; fine-tune one first")
        made = cls(model, answers, graph, blind=bool(model.card.get("blind")))
        tensors = {k.removeprefix(_HEAD): v for k, v in model.extra.items() if k.startswith(_HEAD)}
        _restore(made.head, tensors, folder)
        return made


def _restore(head: nn.Module, tensors: Mapping[str, Tensor], folder: PathLike) -> None:
    try:
        head.load_state_dict(dict(tensors))
    except RuntimeError:
        raise CheckpointError(f"{folder}: its head does not fit its answers; copy the folder again") from None


class _Pixels:
    """The images of N rows, each different one fitted to the model's size once."""

    def __init__(self, model: Model, images: Sequence[Any]) -> None:
        from kvlp.models.preprocess import as_grey_uint8

        self.model = model
        place: dict[int, int] = {}
        fitted: list[np.ndarray] = []
        self.row = np.empty(len(images), dtype=np.int64)
        for i, image in enumerate(images):
            if id(image) not in place:
                place[id(image)] = len(fitted)
                fitted.append(model.preprocess.fit(as_grey_uint8(image)))
            self.row[i] = place[id(image)]
        self.fitted = np.stack(fitted) if fitted else np.zeros((0, 1, 1), np.uint8)

    def __call__(self, rows: IntArray, rng: np.random.Generator | None = None) -> Tensor:
        pixels = torch.from_numpy(self.fitted[self.row[rows]])
        if rng is not None:
            pixels = augment(pixels, rng)
        return self.model.preprocess.normalise(pixels).to(self.model.device)
