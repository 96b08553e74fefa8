"""The gradient of a large batch from parts of it: micro-batches one after another, rows of several processes.

The loss is computed from the features of all rows. Its gradient with respect to the features is then carried back
through the towers, each micro-batch on its own (Gao et al. 2021, GradCache) and in each process through its own rows:
the memory is that of one micro-batch, the gradient that of the whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor

from kvlp.training.joint_norm import joint_batch_norm
from kvlp.training.ranks import Ranks, Shares
from kvlp.training.task import PretrainTask

__all__ = ["by_features"]

Batch = dict[str, Tensor]
Autocast = Callable[[], AbstractContextManager[object]]


def by_features(
    task: PretrainTask, micro: Sequence[Batch], shared: Batch, whole: Batch, autocast: Autocast
) -> tuple[Tensor, dict[str, Tensor], Batch]:
    """Loss and gradient of the batch that all processes' micro-batches make together.

    Every process computes the same loss of all rows. What the loss reaches by itself (scales, heads, shared texts) thus
    has its whole gradient in each, and rows of one process have theirs times the number of processes: the mean over
    processes, which is not taken here, is the gradient.

    Args:
        whole: labels and the like of the rows of this process.

    Returns:
        The loss, its parts, and `whole` of all processes.
    """
    ranks = Ranks.now()
    sizes = [len(batch["row"]) for batch in micro]
    shares = None if ranks.alone else Shares(ranks, sizes)
    if shares is not None:
        whole = {name: shares.join(value) for name, value in whole.items()}
    norm = joint_batch_norm(task.model) if shares is not None else _plain
    once = len(micro) == 1  # its graph is kept; of several, each is encoded again
    draws, pieces = [], []
    with ranks.own_draws(), torch.set_grad_enabled(once), autocast(), norm():
        for batch in micro:
            draws.append(_generators())
            pieces.append(task.encode(batch))
    own = {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
    leaves = {n: (shares.join(v) if shares else v.detach()).requires_grad_() for n, v in own.items()}
    with autocast():
        output = task.loss({**leaves, **task.encode_shared(shared)}, whole, shared)
    output.total.backward()
    gradients: dict[str, Sequence[Tensor]] = {}
    for name, leaf in leaves.items():
        if leaf.grad is not None:
            mine = ranks.world * shares.mine(leaf.grad) if shares is not None else leaf.grad
            gradients[name] = mine.split(sizes)
    for i, batch in enumerate(micro):
        features = pieces[i]
        if not once:
            with _drawn_again(draws[i]), autocast(), norm():
                features = task.encode(batch)
        names = [name for name in gradients if features[name].requires_grad]
        torch.autograd.backward([features[n] for n in names], [gradients[n][i].to(features[n].dtype) for n in names])
    return output.total.detach(), output.parts, whole


@contextmanager
def _plain() -> Iterator[None]:
    yield


def _generators() -> list[Tensor]:
    """The state of the generators that dropout draws from."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if torch.cuda.is_available() else [])]


@contextmanager
def _drawn_again(states: Sequence[Tensor]) -> Iterator[None]:
    """Draw once more what was drawn from these states; afterwards go on from where the generators were."""
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if len(states) > 1 else []):
        torch.set_rng_state(states[0])
        if len(states) > 1:
            torch.cuda.set_rng_state(states[1])
        yield
