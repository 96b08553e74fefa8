"""Rewritten texts: a mention that only moves is moved as the long way moves it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kvlp.knowledge.linking.mention import Mention
from kvlp.knowledge.linking.rewriting import Edit, Rewriting
from kvlp.typing import Assertion

SPANS = st.tuples(st.integers(0, 40), st.integers(1, 6))


@given(st.lists(st.tuples(SPANS, st.text("ab ", min_size=1, max_size=5)), max_size=5), SPANS, SPANS, st.booleans())
def test_the_short_way_back_is_the_long_way(edits, found, cause, with_trigger):
    raw = "".join(chr(97 + i % 26) for i in range(60))
    rewriting = Rewriting(raw, [Edit(s, s + n, text, 0.9) for (s, n), text in edits])
    start, end = found[0], min(sum(found), len(rewriting.text))
    at, to = cause[0], min(sum(cause), len(rewriting.text))
    if not (start < end and at < to):
        return
    trigger = (rewriting.text[at:to], at, to) if with_trigger else (None, None, None)
    cues = (("side", at, to),)
    mention = Mention("x", rewriting.text[start:end], start, end, Assertion.PRESENT, *trigger, cues=cues)
    back = rewriting.restore(mention)
    assert back == rewriting._restored(mention)
    assert back.surface == raw[back.start : back.end]
