"""The processes of one run, as torchrun starts them: who is who, and what they tell each other."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kvlp.errors import ConfigError, KvlpError
from kvlp.training.sharded import is_cut

if TYPE_CHECKING:
    from kvlp.training.recipe import Stage

__all__ = ["ProcessEnded", "Ranks", "Shares", "Together", "deaths_named", "is_first_process", "require_shareable"]

T = TypeVar("T")

#: So long a process waits for the others, which may be reading a large data set.
PATIENCE = timedelta(hours=6)
#: Gradients are averaged so many numbers at a time.
BUCKET = 1 << 24


class ProcessEnded(KvlpError):
    """Another process of the run ended, and without it the others cannot go on."""


def is_first_process() -> bool:
    """Whether this process writes files and speaks: the only one, or rank 0 of torchrun's."""
    return os.environ.get("RANK", "0") == "0"


@dataclass(frozen=True)
class Ranks:
    """Which process this is, of how many. What needs all of them is a call that each of them makes.

    Attributes:
        rank: number of this process; `world`: how many there are.
    """

    rank: int = 0
    world: int = 1

    @classmethod
    def join(cls, *, group: bool = False) -> Ranks:
        """Meet the other processes, where torchrun started several; the card is that of the local rank.

        Args:
            group: a process group is needed, if of one process.

        Raises:
            ConfigError: torchrun's variables are not whole. ProcessEnded: the others do not come.
        """
        if group and "WORLD_SIZE" not in os.environ:
            raise ConfigError("parallel fsdp2 needs torchrun: torchrun --nproc-per-node N -m kvlp pretrain ...")
        if not dist.is_initialized() and (group or int(os.environ.get("WORLD_SIZE", "1")) > 1):
            missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
            if missing:
                raise ConfigError(f"WORLD_SIZE is set but {missing[0]} is not; start several processes with torchrun")
            on_cards = torch.cuda.is_available()
            if on_cards:
                torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
            with deaths_named():
                dist.init_process_group("nccl" if on_cards else "gloo", timeout=PATIENCE)
            atexit.register(_leave)
        return cls.now()

    @classmethod
    def now(cls) -> Ranks:
        """The processes that have met; this one alone if none have."""
        return cls(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else cls()

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self.world == 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def wait(self) -> None:
        """Go on when all processes have come here."""
        if not self.alone:
            self.any(False)

    def any(self, value: bool) -> bool:  # noqa: FBT001
        """Whether it is true in some process."""
        if self.alone:
            return value
        told = torch.tensor([float(value)], device=_device())
        dist.all_reduce(told, dist.ReduceOp.MAX)
        return bool(told.item())

    def first_does(self, work: Callable[[], object]) -> None:
        """Let the first process do something while the others wait.

        Raises:
            ProcessEnded: in the others, where the first one's work raised an error of ours; in that one, the error.
        """
        error: KvlpError | None = None
        if self.first:
            try:
                work()
            except KvlpError as caught:
                error = caught
        failed = self.any(error is not None)
        if error is not None:
            raise error
        if failed:
            raise ProcessEnded("the first process of this run could not go on; it says why")

    def first_then_others(self, work: Callable[[], T]) -> T:
        """Let the first process do it, then the others, who find what the first has left in files.

        Raises:
            ProcessEnded: as `first_does`.
        """
        made: list[T] = []
        self.first_does(lambda: made.append(work()))
        return made[0] if made else work()

    def gather(self, rows: Tensor) -> Tensor:
        """(n, ...) of this process -> (world, n, ...) of all, by rank; of any type, equal in shape."""
        if not rows.numel():
            return rows.new_empty((self.world, *rows.shape))
        raw = rows.detach().contiguous().view(-1).view(torch.uint8)
        found = raw.new_empty(self.world * len(raw))
        dist.all_gather(list(found.chunk(self.world)), raw)
        return found.view(rows.dtype).view(self.world, *rows.shape)

    def begin_alike(self, modules: Iterable[nn.Module]) -> None:
        """Give every process the first one's weights and buffers."""
        if self.alone:
            return
        for module in modules:
            for value in module.state_dict().values():
                if is_cut(value):
                    continue
                plain = value.contiguous()  # image towers keep channels last
                dist.broadcast(plain, 0)
                value.copy_(plain)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their means over processes; one that a process lacks counts as 0 there.

        A parameter that has none in any process keeps none: the optimiser leaves it alone.
        """
        if self.alone:
            return
        learned = [p for p in parameters if p.requires_grad and not is_cut(p)]  # what is cut has its mean already
        has = torch.tensor([float(p.grad is not None) for p in learned], device=_device())
        dist.all_reduce(has, dist.ReduceOp.MAX)
        gradients = []
        for parameter, somewhere in zip(learned, has.tolist(), strict=True):
            if somewhere:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                gradients.append(parameter.grad)
        for bucket in _buckets(gradients):
            joined = torch.cat([gradient.flatten() for gradient in bucket])
            dist.all_reduce(joined)
            joined /= self.world
            for gradient, mean in zip(bucket, joined.split([g.numel() for g in bucket]), strict=True):
                gradient.copy_(mean.view_as(gradient))

    @contextmanager
    def own_draws(self) -> Iterator[None]:
        """Random numbers of this process's own, as dropout in rows wants them; those that all share do not move on."""
        if self.alone:
            yield
            return
        told = torch.Generator()
        told.set_state(torch.get_rng_state())
        seed = int(torch.randint(1 << 40, (), generator=told))
        with torch.random.fork_rng(devices=[torch.cuda.current_device()] if torch.cuda.is_available() else []):
            torch.manual_seed(seed + self.rank)
            yield


class Shares:
    """Which rows of a step each process has; joined, they stand as in one process.

    Args:
        ranks: the processes.
        sizes: rows of each micro-batch in this process; every process has a part of every micro-batch.
    """

    def __init__(self, ranks: Ranks, sizes: Sequence[int]) -> None:
        self.ranks = ranks
        counts = ranks.gather(torch.tensor(sizes, device=_device())).cpu()  # (world, micro-batches)
        starts = counts.cumsum(dim=1) - counts
        self.most = int(counts.sum(dim=1).max())
        places, owners = [], []
        for micro in range(counts.shape[1]):
            for rank in range(ranks.world):
                first = rank * self.most + int(starts[rank, micro])
                places.append(torch.arange(first, first + int(counts[rank, micro])))
                owners.append(torch.full_like(places[-1], rank))
        self.places = torch.cat(places)
        self.own = (torch.cat(owners) == ranks.rank).nonzero()[:, 0]

    def join(self, rows: Tensor) -> Tensor:
        """(n, ...) of this process -> (N, ...) of all, without gradient."""
        padded = rows.new_zeros((self.most, *rows.shape[1:]))
        padded[: len(rows)] = rows.detach()
        return self.ranks.gather(padded).flatten(0, 1)[self.places.to(rows.device)]

    def mine(self, joined: Tensor) -> Tensor:
        """(N, ...) of all -> (n, ...) of this process, in its order."""
        return joined[self.own.to(joined.device)]


class Together:
    """The rows of one micro-batch in all processes, for losses that compare rows while they encode them.

    Every process asks for the same things in the same order. In one process all rows are its own.

    Args:
        rows: of this process.

    Attributes:
        own: where these stand among the `count` of all, which are in the order of ranks.
    """

    def __init__(self, rows: int) -> None:
        self.ranks = Ranks.now()
        counts = [rows]
        if not self.ranks.alone:
            counts = self.ranks.gather(torch.tensor([rows], device=_device())).flatten().tolist()
        self._counts, self.count, first = counts, sum(counts), sum(counts[: self.ranks.rank])
        self.own = slice(first, first + rows)

    def join(self, rows: Tensor, *, pad: int | None = None) -> Tensor:
        """(n, ...) of this process -> (N, ...) of all, with their gradient.

        Args:
            rows: of this process.
            pad: bring a second axis that differs in length, such as that of tokens, to the longest by this number.
        """
        if self.ranks.alone:
            return rows
        if pad is not None:
            longest = int(self.ranks.gather(torch.tensor([rows.shape[1]], device=_device())).max())
            rows = nn.functional.pad(rows, (0, longest - rows.shape[1]), value=pad)
        padded = torch.cat([rows, rows.new_zeros((max(self._counts) - len(rows), *rows.shape[1:]))])
        found = _Joined.apply(padded, self.ranks)
        return torch.cat([part[:n] for part, n in zip(found, self._counts, strict=True)])


class _Joined(torch.autograd.Function):
    """`Ranks.gather`; what the processes' losses want of a row is added up where the row is from."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, ranks: Ranks) -> Tensor:
        ctx.rank = ranks.rank
        return ranks.gather(rows)

    @staticmethod
    def backward(ctx: Any, wanted: Tensor) -> tuple[Tensor, None]:
        total = wanted.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[ctx.rank], None


def require_shareable(stage: Stage, ranks: Ranks, fewest: int) -> None:
    """See that the processes can share the steps of a stage.

    Args:
        fewest: rows of its smallest micro-batch.

    Raises:
        ConfigError: a loss compares rows while it encodes them, or there are more processes than rows.
    """
    if ranks.alone:
        return
    for name, part in stage.losses.active.parts.items():
        if part.joint and not (part.row_by_row or part.gathers):
            raise ConfigError(
                f"stage '{stage.name}': the loss {name} chooses among the rows of a batch while it encodes them, which "
                f"{ranks.world} processes cannot share; run it in one process, or leave it out"
            )
    if stage.losses.with_images and fewest < ranks.world:
        raise ConfigError(
            f"stage '{stage.name}': {ranks.world} processes share micro-batches of {fewest} rows; "
            "start fewer of them, or raise batch_size"
        )


@contextmanager
def deaths_named() -> Iterator[None]:
    """Turn the backend's word of a process that is gone into an error of ours."""
    try:
        yield
    except RuntimeError as error:
        words = str(error).lower()
        if not isinstance(error, dist.DistError) and not ("gloo" in words or "nccl" in words):
            raise
        raise ProcessEnded(
            "another process of this run ended, without it the others cannot go on; its own message says why; "
            "mend that and go on with --resume"
        ) from None


def _device() -> torch.device:
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors of one type together, up to `BUCKET` numbers (or one that is larger)."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        full = sum(t.numel() for t in bucket) + tensor.numel() > BUCKET
        if bucket and (full or bucket[0].dtype != tensor.dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
