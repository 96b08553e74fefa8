"""Rewritten texts: a mention that only moves is moved as the long way moves it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvlp.knowledge.linking.mention import Mention
from kvlp.knowledge.linking.rewriting import Edit, Rewriting
from kvlp.typing import Assertion

SPANS = st.tuples(st.integers(0, 40), st.integers(1, 6))


@given(
    st.lists(st.tuples(SPANS, st.text("ab ", min_size=1, max_size=5)), max_size=5),
    st.lists(st.tuples(SPANS, SPANS, st.booleans()), max_size=4),
)
def test_the_short_way_back_is_the_long_way(edits, places) -> None:
    raw = "".join(chr(97 + i % 26) for i in range(60))
    rewriting = Rewriting(raw, [Edit(s, s + n, text, 0.9) for (s, n), text in edits])
    mentions = [m for place in places if (m := _mention(rewriting.text, *place)) is not None]
    back = rewriting.restore(mentions)
    assert back == [rewriting._restored(m) for m in mentions]
    assert [m.surface for m in back] == [raw[m.start : m.end] for m in back]


def _mention(text: str, found, cause, with_trigger: bool) -> Mention | None:
    start, end = found[0], min(sum(found), len(text))
    at, to = cause[0], min(sum(cause), len(text))
    if not (start < end and at < to):
        return None
    trigger = (text[at:to], at, to) if with_trigger else (None, None, None)
    return Mention("x", text[start:end], start, end, Assertion.PRESENT, *trigger, cues=(("side", at, to),))
