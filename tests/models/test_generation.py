"""Texts token by token, on a small chain whose probabilities are known: greedy, beams, draws, limits."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from kvlp.errors import ConfigError
from kvlp.models.generation import Limits, beam_search, next_tokens

PAD, START, END, A, B, C = range(6)
LIMITS = Limits(START, END, PAD, most=8)
#: a is likelier than b, but b's one way on is surer than a's three
CHAIN = {START: {A: 0.6, B: 0.4}, A: {C: 0.4, B: 0.32, END: 0.28}, B: {END: 0.9, A: 0.1}, C: {END: 1.0}}


def ask(ids: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Row 1 has a and b the other way round."""
    p = torch.full((len(ids), 6), 1e-9)
    turned = {A: B, B: A}
    for i, (last, row) in enumerate(zip(ids[:, -1].tolist(), rows.tolist(), strict=True)):
        name = turned.get(last, last) if row else last
        for token, value in CHAIN.get(name, {END: 1.0}).items():
            p[i, turned.get(token, token) if row else token] = value
    return p.log()


def test_the_likeliest_token_each_time() -> None:
    assert next_tokens(ask, 1, LIMITS).tolist() == [[START, A, C, END]]


def test_beams_find_what_is_likeliest_as_a_whole() -> None:
    """b end has .36, a c end .24; by the mean of the logarithms the longer one is ahead: -.476 against -.511."""
    assert beam_search(ask, 1, LIMITS, beams=2, length_penalty=0)[0].tolist() == [START, B, END, PAD]
    assert beam_search(ask, 1, LIMITS, beams=2, length_penalty=1)[0].tolist() == [START, A, C, END]
    assert beam_search(ask, 1, LIMITS, beams=1).tolist() == next_tokens(ask, 1, LIMITS).tolist()


def test_each_input_has_its_own_text() -> None:
    assert next_tokens(ask, 2, LIMITS).tolist() == [[START, A, C, END], [START, B, C, END]]
    assert beam_search(ask, 2, LIMITS, beams=3, length_penalty=0)[:, :3].tolist() == [[START, B, END], [START, A, END]]


def test_draws_stay_within_the_likeliest_and_follow_their_seed() -> None:
    def draw(top_p: float, seed: int = 0) -> list[tuple[int, ...]]:
        # 400 inputs that are all alike
        return [
            tuple(row)
            for row in next_tokens(
                lambda ids, rows: ask(ids, torch.zeros_like(rows)), 400, LIMITS, top_p=top_p,
                generator=torch.Generator().manual_seed(seed),
            ).tolist()
        ]  # fmt: skip

    assert set(draw(0.1)) == {(START, A, C, END)}  # only the likeliest
    some = draw(0.5)
    assert {row[1] for row in some} == {A}  # a alone makes up half
    second = Counter(row[2] for row in some)
    assert set(second) == {C, B}  # .4 and .32 make up half, end is out
    assert second[C] / 400 == pytest.approx(0.4 / 0.72, abs=0.08)
    assert {row[1] for row in draw(1.0)} == {A, B}
    assert draw(1.0) == draw(1.0) != draw(1.0, seed=1)


def test_limits_of_length() -> None:
    assert next_tokens(ask, 1, LIMITS._replace(most=3)).tolist() == [[START, A, C]]
    assert beam_search(ask, 1, LIMITS._replace(most=2), beams=2).tolist() == [[START, A]]
    late = beam_search(ask, 1, LIMITS._replace(least=5), beams=4, length_penalty=0)[0].tolist()
    assert late.index(END) >= 4
    assert C not in next_tokens(ask, 1, LIMITS._replace(never=(C,)))[0].tolist()


def test_an_ended_text_goes_on_with_padding_alone() -> None:
    def two(ids: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        p = torch.full((len(ids), 6), 1e-9)
        for i, row in enumerate(rows.tolist()):
            p[i, END if row == 0 or ids.shape[1] > 3 else A] = 1.0
        return p.log()

    assert next_tokens(two, 2, LIMITS).tolist() == [[START, END, PAD, PAD, PAD], [START, A, A, A, END]]
    assert beam_search(two, 2, LIMITS, beams=1).tolist() == [[START, END, PAD, PAD, PAD], [START, A, A, A, END]]


@pytest.mark.parametrize(
    ("change", "message"),
    [({"least": 9}, "2 to 8 tokens at least, got 9"), ({"least": 1}, "at least, got 1")],
)
def test_limits_that_make_no_sense(change: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        next_tokens(ask, 1, LIMITS._replace(**change))


def test_other_numbers_that_make_no_sense() -> None:
    with pytest.raises(ConfigError, match="top_p above 0"):
        next_tokens(ask, 1, LIMITS, top_p=0.0)
    with pytest.raises(ConfigError, match="at least 1 beam"):
        beam_search(ask, 1, LIMITS, beams=0)
