"""Training steps of the benchmark `train`, on the same tensors: kvlp's, and open_clip's own."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvlp.datasets.manifest import Manifest
from kvlp.training.recipe import load_recipe

if TYPE_CHECKING:
    import torch

    from kvlp.training.data import Step
    from kvlp.training.objectives import Losses
    from kvlp.training.recipe import Recipe
    from kvlp.training.setup import Prepared

__all__ = ["Work", "kvlp_steps", "open_clip_steps", "prepare_work"]


@dataclass(frozen=True)
class Work:
    """What the contestants share.

    Attributes:
        recipe, prepared: towers as they begin, tokenizer, texts; `losses` of the stage `align`.
        steps: batches of that stage, made beforehand; texts are padded to the context length, as open_clip pads them.
        threads: of the processor, for each contestant.
    """

    recipe: Recipe
    prepared: Prepared
    losses: Losses
    steps: Sequence[Step]
    threads: int

    @property
    def images(self) -> int:
        """Images in all steps."""
        return sum(len(batch["row"]) for micro, _ in self.steps for batch in micro)


def prepare_work(name: str, manifest: Manifest, out: Path, *, steps: int, overrides: Sequence[str] = ()) -> Work:
    """Read the data and build the towers of a recipe whose image stage is called `align`; see `Work.threads`."""
    from kvlp.training.data import Batches
    from kvlp.training.setup import prepare

    recipe = load_recipe(name, ["precision=fp32", *overrides])
    out.mkdir(parents=True, exist_ok=True)
    prepared = prepare(recipe, manifest, out, lambda *_: None)
    number, stage = next((i, s) for i, s in enumerate(recipe.stages) if s.name == "align")
    batches = Batches(
        rows=prepared.rows,
        tokenize=prepared.tokenize,
        normalise=prepared.normalise,
        batch_size=stage.batch_size,
        accumulate=1,
        seed=(recipe.seed, number),
        max_sentences=recipe.data.max_sentences,
        augmented=False,
        samplers=[part.samplers(prepared.sources) for part in stage.losses.active.parts.values()],
    )
    model: Any = prepared.model
    device = model.logit_scale.device
    made = [([_on(device, _padded(m[0], prepared))], _on(device, shared)) for m, shared in batches.steps(0, steps)]
    return Work(recipe, prepared, stage.losses, made, recipe.threads or os.cpu_count() or 1)


def _on(device: torch.device, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.to(device) for name, value in batch.items()}


def _padded(batch: dict[str, torch.Tensor], prepared: Prepared) -> dict[str, torch.Tensor]:
    import torch.nn.functional as F

    tokens, pad = batch["text"], prepared.tokenize.pad_id
    return {**batch, "text": F.pad(tokens, (0, prepared.tokenize.context_length - tokens.shape[1]), value=pad)}


def kvlp_steps(work: Work, losses: Losses) -> Callable[[], None]:
    """Each call trains a copy of the towers on all batches, as a run does: gradient clipped, scales clamped, rows told.

    On a processor of several cores the towers work side by side where a run would let them.
    """
    import torch

    from kvlp.training.loop import cosine_schedule, train_steps
    from kvlp.training.optimizer import build_optimizer
    from kvlp.training.recipe import Stage
    from kvlp.training.run import autocast_of
    from kvlp.training.side_by_side import draws
    from kvlp.training.task import PretrainTask

    stage = Stage(name="align", steps=len(work.steps), losses=losses)
    parts = losses.active.parts.values()
    needed = {part.head for part in parts} - {""}
    model: Any = deepcopy(work.prepared.model)
    heads = {name: deepcopy(head) for name, head in work.prepared.heads.items() if name in needed}
    task = PretrainTask(model, losses, pad_id=work.prepared.tokenize.pad_id, heads=heads).train()
    optimizer = build_optimizer(task, stage)
    schedule = cosine_schedule(stage.lr, stage.steps, stage.warmup, stage.final_lr)
    device, threads = model.logit_scale.device, work.threads
    apart = device.type == "cpu" and threads > 1 and not draws(model) and not any(part.joint for part in parts)
    autocast = autocast_of(work.recipe.precision, device)

    def run() -> None:
        torch.set_num_threads(max(1, threads // 2) if apart else threads)
        for _ in train_steps(task, work.steps, optimizer, schedule, autocast=autocast, side_by_side=apart):
            pass

    return run


def open_clip_steps(work: Work) -> Callable[[], None]:
    """Each call trains a copy of the same towers on the same images and texts by `open_clip_train`'s own epoch.

    Its loss, groups of parameters, schedule and settings are open_clip's defaults; nothing is logged but what it logs.
    """
    import torch
    from open_clip import ClipLoss
    from open_clip_train.scheduler import cosine_lr
    from open_clip_train.train import train_one_epoch

    from kvlp.models.plain_attention import use_plain_attention

    model: Any = deepcopy(work.prepared.model).to(memory_format=torch.contiguous_format)
    use_plain_attention(model, plain=False)
    model.output_dict = True
    device, count = model.logit_scale.device, len(work.steps)
    named = list(model.named_parameters())
    plain = [p for n, p in named if p.ndim < 2 or any(part in n for part in ("bn", "ln", "bias", "logit_scale"))]
    others = [p for _, p in named if not any(p is other for other in plain)]
    groups = [{"params": plain, "weight_decay": 0.0}, {"params": others, "weight_decay": 0.2}]
    optimizer = torch.optim.AdamW(groups, lr=5e-4, betas=(0.9, 0.98), eps=1e-6)
    pairs = [(micro[0]["image"], micro[0]["text"]) for micro, _ in work.steps]
    data = {"train": Namespace(set_epoch=lambda epoch: None, dataloader=_Loader(pairs))}
    args = Namespace(
        device=str(device), precision="amp_bf16" if work.recipe.precision == "bf16" else "fp32", distill=False,
        accum_freq=1, skip_scheduler=False, grad_clip_norm=None, horovod=False, log_every_n_steps=100, rank=0,
        local_rank=0, world_size=1, batch_size=len(pairs[0][0]), wandb=False,
    )  # fmt: skip
    scheduler, loss = cosine_lr(optimizer, 5e-4, count // 10 + 1, count), ClipLoss()

    def run() -> None:
        torch.set_num_threads(work.threads)
        train_one_epoch(model, data, loss, 0, optimizer, None, scheduler, None, args)
        model.logit_scale.item()  # on a card: wait until all is done

    return run


class _Loader(list[Any]):
    """Batches with the counts that open_clip asks for."""

    @property
    def num_batches(self) -> int:
        return len(self)

    @property
    def num_samples(self) -> int:
        return sum(len(images) for images, _ in self)
