"""One pretraining run: from a recipe and a manifest to a checkpoint folder, stage by stage, resumable to the bit."""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kvlp.datasets.manifest import Manifest
from kvlp.errors import ConfigError, KvlpError
from kvlp.training.average import WeightAverage
from kvlp.training.compiled import compile_blocks
from kvlp.training.curves import Curves
from kvlp.training.data import Batches
from kvlp.training.loop import StepInfo, cosine_schedule, train_steps
from kvlp.training.optimizer import build_optimizer, choose_trained
from kvlp.training.ranks import Ranks, deaths_named, require_shareable
from kvlp.training.recipe import Recipe, Stage
from kvlp.training.run_folder import METRICS, VALIDATION, open_run_folder, rows_up_to
from kvlp.training.setup import Prepared, finish, prepare
from kvlp.training.sharded import Cut
from kvlp.training.side_by_side import draws
from kvlp.training.state import latest_state, load_state, save_state, state_tensors
from kvlp.training.task import PretrainTask
from kvlp.training.validation import Validation
from kvlp.training.workers import worker_deaths_named

__all__ = ["VALIDATION", "Interrupted", "Progress", "autocast_of", "run_recipe"]

_LOG = logging.getLogger(__name__)

#: Images of a locked tower are embedded so many at a time.
EMBEDDED_AT_ONCE = 256
#: Features of a locked tower are kept in memory up to so many bytes.
MOST_LOCKED = 16 * 2**30


class Interrupted(KvlpError):
    """The run was told to stop (SIGTERM or Ctrl-C) and has written its state."""


@dataclass(frozen=True)
class Progress:
    """Where a run is: `done` of `total` things of a phase, at `rate` a second, `left` seconds to go."""

    phase: str
    done: int
    total: int
    rate: float
    left: float
    note: str = ""


def run_recipe(
    recipe: Recipe,
    manifest: Manifest,
    out: Path,
    *,
    resume: bool = False,
    shards: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Path:
    """Pretrain by `recipe` on `manifest` and return the final checkpoint folder, `out/checkpoint`.

    `out` gets recipe.yaml (as resolved), metrics.jsonl (a row a step), validation.jsonl (where the recipe asks for it),
    states/ (the two newest) and checkpoint/.
    With `shards` (a folder that `write_shards` made of the manifest) the images are read from there.
    With `resume` a run that was killed goes on from its newest state; on CPU the weights at the end are those of
    the run that was never killed, bit for bit.

    Raises:
        ConfigError: `out` already holds a run and resume is off, or holds a run of another recipe or data.
        Interrupted: SIGTERM or Ctrl-C arrived; the state is written.
    """
    ranks = Ranks.join(group=recipe.parallel == "fsdp2")
    report = (progress if ranks.first else None) or (lambda _: None)
    if recipe.tensorboard:
        Curves.require()  # before hours of work

    def prepared() -> tuple[Prepared, Validation | None]:
        found = prepare(recipe, manifest, out, _phases(report), shards=shards)
        return found, Validation.of(recipe, manifest, found, out / "cache")

    with deaths_named():
        ranks.first_does(lambda: open_run_folder(recipe, manifest, out, resume=resume))
        if (out / "checkpoint" / "kvlp.json").is_file():
            return out / "checkpoint"
        torch.set_num_threads(_threads(recipe))
        ready, validation = ranks.first_then_others(prepared)  # who come later find pixels and vectors made
        runner = _Runner(recipe, ready, validation, out, report)
        with _stop_signals() as stop, worker_deaths_named():
            runner.run(stop)
        ranks.first_does(lambda: finish(recipe, ready, out))
    return out / "checkpoint"


def _threads(recipe: Recipe) -> int:
    """Of this process: what the recipe says, or its share of the cores."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if not Ranks.now().alone else 1
    return recipe.threads or max(1, (os.cpu_count() or 1) // here)


def _phases(report: Callable[[Progress], None]) -> Callable[[str, int, int, float], None]:
    def phase(name: str, done: int, total: int, rate: float) -> None:
        report(Progress(name, done, total, rate, (total - done) / rate if rate else 0.0))

    return phase


class _Runner:
    """Runs the stages in turn, writes metrics and states, and starts where the newest state ends."""

    def __init__(
        self,
        recipe: Recipe,
        prepared: Prepared,
        validation: Validation | None,
        out: Path,
        report: Callable[[Progress], None],
    ) -> None:
        self.validation = validation
        self.recipe, self.prepared, self.out, self.report = recipe, prepared, out, report
        self.ranks = Ranks.now()
        self.device = next(prepared.model.parameters()).device
        self.autocast = autocast_of(recipe.precision, self.device)
        self.average = WeightAverage(prepared.model, prepared.heads, decay=recipe.ema) if recipe.ema else None
        self.curves: Curves | None = None
        self.cut: Cut | None = None
        if recipe.parallel == "fsdp2":
            self.ranks.begin_alike([prepared.model])
            self.cut = Cut(prepared.model, recipe)
        if recipe.compile:
            compile_blocks(prepared.model, recipe, self.ranks)
        self.began = time.perf_counter()

    def run(self, stop: list[int]) -> None:
        state = latest_state(self.out / "states")
        done = json.loads((state / "state.json").read_text(encoding="utf-8"))["progress"] if state else None
        first = done["stage"] if done else 0
        for name in (METRICS, VALIDATION) if self.ranks.first else ():
            rows_up_to(self.out / name, first, done["step"] if done else 0)
        told = self.out / METRICS if self.ranks.first else Path(os.devnull)
        with ExitStack() as stack:
            log = stack.enter_context(told.open("a", encoding="utf-8"))
            if self.recipe.tensorboard and self.ranks.first:
                self.curves = stack.enter_context(closing(Curves(self.out)))
            for number in range(first, len(self.recipe.stages)):
                self._stage(number, state if number == first else None, log, stop)
        if self.cut is not None:
            self.cut.end()
        if self.average is not None:
            self.average.give(self.prepared.model, self.prepared.heads)

    def _stage(self, number: int, state: Path | None, log: Any, stop: list[int]) -> None:
        stage = self.recipe.stages[number]
        torch.manual_seed(self.recipe.seed + number)
        pad_id = self.prepared.tokenize.pad_id
        model: Any = self.prepared.model
        still = choose_trained(model, stage)
        task = PretrainTask(
            model, stage.losses, pad_id=pad_id, heads=self.prepared.heads, sources=self.prepared.sources
        ).to(self.device)
        task.still, task.average = still, self.average
        optimizer = build_optimizer(task, stage)
        if self.cut is not None:
            self.cut.begin(task, optimizer, stage.name)
        start = load_state(state, task, optimizer)["step"] if state else 0
        batches = self._batches(number, stage, task)
        total = stage.steps or stage.epochs * batches.steps_per_epoch
        if not batches.draws:
            _LOG.warning("stage '%s' is left out: without a graph there is no text for it to learn from", stage.name)
            return
        require_shareable(stage, self.ranks, batches.fewest)
        self.ranks.begin_alike([task])
        schedule = cosine_schedule(stage.lr, total, stage.warmup, stage.final_lr)
        task.train()
        apart = self._towers_apart(stage)
        torch.set_num_threads(max(1, _threads(self.recipe) // (2 if apart else 1)))
        made = batches.steps(start, total, workers=self.recipe.data.workers)
        steps = train_steps(
            task, _moved(made, self.device), optimizer, schedule,
            start=start, grad_clip=stage.grad_clip, autocast=self.autocast, side_by_side=apart,
        )  # fmt: skip
        clock = time.perf_counter()
        with closing(made):
            for info in steps:
                if self.average is not None and not info.skipped:
                    self.average.follow(self.prepared.model, self.prepared.heads)
                told = self._metrics_row(number, stage, info)
                log.write(json.dumps(told) + "\n")
                log.flush()
                if self.curves is not None:
                    self.curves.step(told)
                self._tell(stage, info, total, (info.step - start) / (time.perf_counter() - clock))
                if self.validation is not None and (info.step % self.validation.every == 0 or info.step == total):
                    self._validate(number, stage, info.step, task)
                stopping = self.ranks.any(bool(stop))
                if stopping or info.step % self.recipe.save_every == 0 or info.step == total:
                    self._save(number, info.step, task, optimizer)
                if stopping:
                    raise Interrupted(f"stopped after step {info.step} of {total}; go on with --resume")

    def _towers_apart(self, stage: Stage) -> bool:
        """Whether both towers train at once: on a processor of several cores, if none of them draws random numbers."""
        busy = self.ranks.alone and stage.losses.with_images and not stage.lock_image and stage.accumulate == 1
        busy = busy and not self.recipe.compile and not any(part.joint for part in stage.losses.active.parts.values())
        model: Any = self.prepared.model
        return busy and self.device.type == "cpu" and _threads(self.recipe) > 1 and not draws(model)

    def _batches(self, number: int, stage: Stage, task: PretrainTask) -> Batches:
        p = self.prepared
        return Batches(
            rows=p.rows,
            tokenize=p.tokenize,
            normalise=p.normalise,
            batch_size=stage.batch_size,
            accumulate=stage.accumulate,
            seed=(self.recipe.seed, number),
            max_sentences=self.recipe.data.max_sentences,
            augmented=self.recipe.data.augment,
            with_images=stage.losses.with_images,
            image_features=self._image_features(task) if stage.lock_image else None,
            samplers=[part.samplers(p.sources) for part in stage.losses.active.parts.values()],
            share=(self.ranks.rank, self.ranks.world),
        )

    @torch.no_grad()
    def _image_features(self, task: PretrainTask) -> dict[str, Tensor]:
        """What the losses need of every row's image, encoded once, as it is: name -> (N, ...)."""
        p, pieces = self.prepared, []
        p.model.eval()
        for start in range(0, len(p.rows), EMBEDDED_AT_ONCE):
            pixels = torch.from_numpy(np.array(p.rows.pixels[start : start + EMBEDDED_AT_ONCE]))
            with self.autocast():
                found = task.encode_images({"image": p.normalise(pixels).to(self.device)})
            pieces.append({name: value.float().cpu() for name, value in found.items()})
            _require_room(pieces[0], len(p.rows))
            self.report(Progress("embed images", start + len(pixels), len(p.rows), 0.0, 0.0))
        return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}

    def _validate(self, number: int, stage: Stage, step: int, task: PretrainTask) -> None:
        """Write a row of figures on held-out images; weights and random numbers stay as they are."""
        assert self.validation is not None
        with self.autocast():
            figures = self.validation(task.model if self.average is None else self.average.model.copy)
        task.train()
        row = {"stage": number, "name": stage.name, "step": step, **figures}
        if not self.ranks.first:
            return
        if self.curves is not None:
            self.curves.validation(row)
        with (self.out / VALIDATION).open("a", encoding="utf-8") as log:
            log.write(json.dumps(row) + "\n")

    def _save(self, number: int, step: int, task: PretrainTask, optimizer: torch.optim.Optimizer) -> None:
        tensors = state_tensors(task, optimizer)
        if self.ranks.first:
            task.leave(self.out, self.prepared.sources)
            progress = {"stage": number, "step": step}
            save_state(self.out / "states", tensors, progress, name=f"step-{number:02d}-{step:08d}")
        self.ranks.wait()  # nobody ends before the state is written

    def _metrics_row(self, number: int, stage: Stage, info: StepInfo) -> dict[str, Any]:
        row = {k: v for k, v in asdict(info).items() if k != "rows"}
        if info.skipped:
            row["skipped_rows"] = [self.prepared.rows.keys[i] for i in info.rows]
        return {"stage": number, "name": stage.name, **row}

    def _tell(self, stage: Stage, info: StepInfo, total: int, rate: float) -> None:
        note = f"loss {info.loss:.3f}" + (f", {rate * len(info.rows):.0f} images/s" if info.rows else "")
        self.report(Progress(f"train {stage.name}", info.step, total, rate, (total - info.step) / rate, note))


def _require_room(piece: dict[str, Tensor], rows: int) -> None:
    """Places of every image may not fit into memory."""
    some = next(iter(piece.values())).shape[0]
    need = sum(value.nbytes for value in piece.values()) / some * rows
    if need > MOST_LOCKED:
        raise ConfigError(
            f"lock_image with a loss on the places of images keeps {need / 2**30:.0f} GiB of features, more than "
            f"{MOST_LOCKED / 2**30:.0f}; leave that loss out of this stage, or set lock_image to false"
        )


def autocast_of(precision: str, device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """bf16 where asked for or, with auto, where the processor multiplies it natively."""
    native = device.type == "cuda" or bool(torch.cpu._is_avx512_bf16_supported())
    if precision == "bf16" or (precision == "auto" and native):
        return lambda: torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext


def _moved(batches: Iterator[Any], device: torch.device) -> Iterator[Any]:
    for micro, shared in batches:
        yield (
            [{k: v.to(device, non_blocking=True) for k, v in batch.items()} for batch in micro],
            {k: v.to(device, non_blocking=True) for k, v in shared.items()},
        )


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect SIGTERM and SIGINT instead of dying, where this thread may (only the main one)."""
    received: list[int] = []
    try:
        previous = {s: signal.signal(s, lambda n, _: received.append(n)) for s in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
