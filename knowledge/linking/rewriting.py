"""A text as it should have been written, and the way back: misspelt words put right, abbreviations written out.

The linker reads the rewritten text with all its rules, so that a misspelt mention is ruled on as any other, and what it
finds goes back to the words that stand in the raw text.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import Any, NamedTuple

from kvlp.knowledge.linking.mention import Mention, moved

__all__ = ["Edit", "Rewriting"]


#: fields of a mention that hold words and their place
_PLACES = (("surface", "start", "end"), ("trigger", "trigger_start", "trigger_end"))


class Edit(NamedTuple):
    """A span of the raw text, what is to stand there, and how sure that is, in (0, 1]."""

    start: int
    end: int
    text: str
    score: float


class Rewriting:
    """A text with some spans replaced.

    Args:
        raw: the text as it is.
        edits: what to replace; those that overlap an earlier one are left out.

    Attributes:
        text: the text to read.
    """

    def __init__(self, raw: str, edits: Iterable[Edit]) -> None:
        self._raw = raw
        self._edits: list[Edit] = []
        self._starts: list[int] = []  # of the edits, in the new text
        pieces: list[str] = []
        done = length = 0
        for edit in sorted(edits):
            if edit.start < done:
                continue
            pieces += (raw[done : edit.start], edit.text)
            length += edit.start - done
            self._edits.append(edit)
            self._starts.append(length)
            length += len(edit.text)
            done = edit.end
        self.text = "".join([*pieces, raw[done:]])

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The raw span of a non-empty span of the new text; what touches a replaced span holds all of it."""
        return self._back(start, last=False), self._back(end - 1, last=True)

    def score(self, start: int, end: int) -> float:
        """The least score of the edits that a span of the new text touches; 1 without any."""
        rows = range(max(bisect_right(self._starts, start) - 1, 0), bisect_left(self._starts, end))
        touched = [self._edits[r] for r in rows if start < self._starts[r] + len(self._edits[r].text)]
        return min((e.score for e in touched), default=1.0)

    def restore(self, mentions: Iterable[Mention]) -> list[Mention]:
        """The mentions with spans and words of the raw text, the score of each lessened by the edits it rests on."""
        restored: list[Mention] = []
        low = high = by = 0  # between two edits everything moves by the same
        for mention in mentions:
            first, last = _extent(mention)
            if not low <= first < high:
                low, high, by = self._gap(first)
            if low <= first and last <= high:
                restored.append(moved(mention, by) if by else mention)
            else:
                restored.append(self._restored(mention))
        return restored

    def _gap(self, at: int) -> tuple[int, int, int]:
        """Where the edit before a place of the new text ends, where the next one starts, and how far back what is
        between them goes."""
        row = bisect_right(self._starts, at)
        high = self._starts[row] if row < len(self._starts) else len(self.text)
        if row == 0:
            return 0, high, 0
        edit = self._edits[row - 1]
        low = self._starts[row - 1] + len(edit.text)
        return low, high, edit.end - low

    def _restored(self, mention: Mention) -> Mention:
        changed: dict[str, Any] = {"score": mention.score * self.score(mention.start, mention.end)}
        for word, first, last in _PLACES:
            start, end = getattr(mention, first), getattr(mention, last)
            if start is not None:
                start, end = self.span(start, end)
                changed |= {word: self._raw[start:end], first: start, last: end}
        changed["cues"] = tuple((name, *self.span(start, end)) for name, start, end in mention.cues)
        return mention._replace(**changed)

    def _back(self, index: int, *, last: bool) -> int:
        row = bisect_right(self._starts, index) - 1
        if row < 0:
            return index + last
        edit, over = self._edits[row], index - self._starts[row]
        if over < len(edit.text):
            return edit.end if last else edit.start
        return edit.end + over - len(edit.text) + last


def _extent(mention: Mention) -> tuple[int, int]:
    """From the first to the last character of a mention, its trigger and its cues."""
    first, last, at, to = mention.start, mention.end, mention.trigger_start, mention.trigger_end
    if at is not None and to is not None:
        first, last = min(first, at), max(last, to)
    for _, start, end in mention.cues:
        first, last = min(first, start), max(last, end)
    return first, last
