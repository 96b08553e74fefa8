"""Texts token by token: the likeliest token, one drawn from the likeliest few, or the best of several beams."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from kvlp.errors import ConfigError

__all__ = ["Limits", "beam_search", "next_tokens"]

#: (ids (n, L), rows (n,)) -> logits (n, V) of the next token; `rows` tells which input each text is for.
Ask = Callable[[Tensor, Tensor], Tensor]


class Limits(NamedTuple):
    """Where texts begin and end.

    Attributes:
        start, end, pad: token ids.
        most: tokens of a text at most, `start` and `end` among them; `least`: `end` comes no earlier than as the
            token of that number.
        never: ids that are never written.
    """

    start: int
    end: int
    pad: int
    most: int
    least: int = 2
    never: tuple[int, ...] = ()


def next_tokens(
    ask: Ask, rows: int, limits: Limits, *, top_p: float | None = None, generator: torch.Generator | None = None
) -> Tensor:
    """Write one text for each of `rows` inputs, taking the likeliest token each time.

    Args:
        ask: see `Ask`.
        rows: number of inputs.
        limits: where texts begin and end.
        top_p: instead draw from the fewest tokens whose probabilities sum to at least this (nucleus sampling).
        generator: for the draws; the same seed writes the same texts.

    Returns:
        (rows, L) int64, L at most `limits.most`, padded after `end`; a text without room for it has no `end`.

    Raises:
        ConfigError: limits or top_p that make no sense.
    """
    _check(limits, top_p)
    ids = torch.full((rows, 1), limits.start)
    every = torch.arange(rows)
    while ids.shape[1] < limits.most and not bool((ids == limits.end).any(dim=1).all()):
        log_p = _allowed(ask(ids, every), ids.shape[1], limits)
        chosen = log_p.argmax(dim=1) if top_p is None else _drawn(log_p.softmax(dim=1), top_p, generator)
        over = (ids == limits.end).any(dim=1)
        ids = torch.cat([ids, torch.where(over, limits.pad, chosen)[:, None]], dim=1)
    return ids


def beam_search(ask: Ask, rows: int, limits: Limits, *, beams: int = 3, length_penalty: float = 1.0) -> Tensor:
    """Write for each input the best of the texts that `beams` beams come upon.

    A text's score is the sum of the logarithms of its tokens' probabilities, divided by their number to the power of
    `length_penalty` (0: the sum itself).

    Returns:
        (rows, L) int64, as `next_tokens`.

    Raises:
        ConfigError: limits or a number of beams that make no sense.
    """
    _check(limits, None)
    if beams < 1:
        raise ConfigError(f"expected at least 1 beam, got {beams}")
    ids = torch.full((rows, 1, 1), limits.start)
    scores = torch.zeros(rows, 1)
    while ids.shape[2] < limits.most and not bool(_over(ids, limits).all()):
        log_p = _continued(ask, ids, limits)  # (rows, beams so far, V)
        found = _normed(scores[..., None] + log_p, ids, limits, length_penalty)
        best = found.flatten(1).topk(min(beams, found.flatten(1).shape[1]), dim=1).indices
        source, token = best // log_p.shape[2], best % log_p.shape[2]
        scores = (scores[..., None] + log_p).flatten(1).gather(1, best)
        ids = torch.cat([ids.gather(1, source[..., None].expand(-1, -1, ids.shape[2])), token[..., None]], dim=2)
    final = scores / _lengths(ids, limits).float().pow(length_penalty)
    return ids[torch.arange(rows), final.argmax(dim=1)]


def _continued(ask: Ask, ids: Tensor, limits: Limits) -> Tensor:
    """Log-probabilities of the next token of every beam; one that has ended goes on with padding alone."""
    rows, beams, length = ids.shape
    owners = torch.arange(rows).repeat_interleave(beams)
    log_p = _allowed(ask(ids.flatten(0, 1), owners), length, limits).unflatten(0, (rows, beams))
    only = torch.full_like(log_p, -torch.inf)
    only[..., limits.pad] = 0.0
    return torch.where(_over(ids, limits)[..., None], only, log_p)


def _normed(scores: Tensor, ids: Tensor, limits: Limits, penalty: float) -> Tensor:
    """Scores by length, so that an ended text is compared fairly with those that go on."""
    lengths = _lengths(ids, limits) + (~_over(ids, limits)).long()
    return scores / lengths.clamp(min=1).float().pow(penalty)[..., None]


def _over(ids: Tensor, limits: Limits) -> Tensor:
    return (ids == limits.end).any(dim=-1)


def _lengths(ids: Tensor, limits: Limits) -> Tensor:
    """Tokens that were chosen: neither `start` nor padding after the end."""
    ended = (ids == limits.end).cumsum(dim=-1)
    return (ended == 0).sum(dim=-1) - 1 + _over(ids, limits).long()


def _allowed(logits: Tensor, length: int, limits: Limits) -> Tensor:
    logits = logits.detach().float().cpu().clone()
    logits[:, [limits.start, limits.pad, *limits.never]] = -torch.inf
    if length + 1 < limits.least:
        logits[:, limits.end] = -torch.inf
    return logits.log_softmax(dim=1)


def _drawn(p: Tensor, top_p: float, generator: torch.Generator | None) -> Tensor:
    sorted_p, order = p.sort(dim=1, descending=True, stable=True)
    before = sorted_p.cumsum(dim=1) - sorted_p
    kept = sorted_p.masked_fill(before >= top_p, 0.0)
    return order.gather(1, torch.multinomial(kept, 1, generator=generator))[:, 0]


def _check(limits: Limits, top_p: float | None) -> None:
    if not 2 <= limits.least <= limits.most:
        raise ConfigError(f"expected limits of 2 to {limits.most} tokens at least, got {limits.least}")
    if top_p is not None and not 0 < top_p <= 1:
        raise ConfigError(f"expected top_p above 0 and at most 1, got {top_p:g}")
