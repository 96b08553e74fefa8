"""A report in pieces that can be read by themselves, so that what a piece says is remembered: reports repeat theirs.

A piece ends behind a full stop before a blank or a line break, nearly always with a sentence. Where it does not ("1.",
"Dr."), it belongs together with the next one. Sections and sentences of a piece are those of `kvlp.knowledge.sections`,
which need to know no more of what is around a piece than that a full stop is before it.
"""

from __future__ import annotations

import re

from kvlp.knowledge.sections import MAX_SENTENCE, is_abbreviated, split_sections, split_sentences

__all__ = ["FIRST", "Stretch", "cut", "sentences_of"]

#: a section that begins there, or None; start and end of a sentence in its piece
Stretch = tuple[str | None, int, int]

#: stands before the first piece, which has no full stop before it
FIRST = "^"
_MARK = "\0"
# nothing that may stand behind a header (but a dash), no break but the full stop
_ONE = re.compile(r"[^:\r\n?!.]*\.")
_STOP = re.compile(r"(?<=\.)(?=[ \n])")


def cut(text: str) -> list[str]:
    """Cut a text; the pieces make the text again, but for `FIRST` before the first one."""
    if _MARK in text:
        return _STOP.split(FIRST + text)
    return (FIRST + text).replace(". ", ".\0 ").replace(".\n", ".\0\n").split(_MARK)


def sentences_of(piece: str, *, last: bool) -> list[Stretch] | None:
    """The sentences of a piece, or None where its full stop ends no sentence.

    Args:
        piece: one of `cut`, or several in a row.
        last: whether nothing follows.
    """
    first = piece.startswith(FIRST)
    if _ONE.fullmatch(piece) is not None and "- " not in piece and "-\t" not in piece and len(piece) < MAX_SENTENCE:
        return _one_sentence(piece, int(first), last=last)
    before = piece[1:] if first else f".{piece}"
    text = before if last else f"{before} X"
    by = 1 if first else -1
    found: list[Stretch] = []
    for section in split_sections(text):
        name = section.name if section.start else None
        for start, end in split_sentences(text, section.start, section.end):
            if start or first:
                found.append((name, start + by, end + by))
                name = None
    if not last:
        _, start, _ = found.pop()
        if start != len(piece) + 1:
            return None
    return found


def _one_sentence(piece: str, start: int, *, last: bool) -> list[Stretch] | None:
    """The common case: nothing in a piece may be a header or end a sentence but its full stop."""
    end = len(piece)
    if not last and is_abbreviated(piece, start, end - 1):
        return None
    return [(None, end - len(piece[start:].lstrip()), end)]
