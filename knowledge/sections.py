"""Sections and sentences of a report, as character spans into the raw text.

>>> [s.name for s in split_sections("INDICATION: Cough. FINDINGS: Clear lungs.")]
['indication', 'findings']
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

__all__ = ["MAX_SENTENCE", "SECTION_NAMES", "Section", "is_abbreviated", "split_sections", "split_sentences"]

#: what a header may say -> the section's name
_HEADERS = {
    "indication": (
        "indication", "indications", "clinical indication", "clinical information", "clinical history", "history",
        "clinical data", "clinical details", "reason for exam", "reason for examination", "reason for study",
        "reason for the exam", "reason", "patient history", "clinical question", "medical history",
        "past medical history",
    ),
    "comparison": ("comparison", "comparisons", "comparison studies", "prior studies", "previous examination",
                   "previous examinations", "prior"),
    "technique": ("technique", "exam", "examination", "procedure", "views", "study", "type of exam", "protocol",
                  "exam type", "views of the chest"),
    "findings": ("findings", "finding", "report", "observations", "description", "body", "results", "chest findings"),
    "impression": ("impression", "impressions", "conclusion", "conclusions", "summary", "opinion", "diagnosis",
                   "assessment", "final impression", "recommendation", "recommendations", "interpretation"),
}  # fmt: skip
#: "other" is text before any header; like findings it may label
SECTION_NAMES = (*_HEADERS, "other")

_NAME_OF = {title: name for name, titles in _HEADERS.items() for title in titles}
_LONGEST_TITLE = max(len(t.split()) for t in _NAME_OF)
# What may stand behind a header: a colon, a dash, or nothing more on its line. (Patterns that begin with a set of
# characters are searched several times faster than ones that begin with alternatives.)
_BEHIND_HEADER = re.compile(r"[:\-\r\n]")
_BLANKS = frozenset(" \t")
_NO_TITLE = frozenset(".,;:!?)\r\n")
_LAST_WORDS = frozenset(t.split()[-1] for t in _NAME_OF)
_DECORATION = " \t>*#_"
_LETTERS_AND_BLANKS = string.ascii_letters + " \t"

# A full stop that ends no sentence: after an abbreviation, an initial, or a list number at a line's start.
_ABBREVIATION = re.compile(
    r"(?:(?<!\w)(?:dr|mr|mrs|ms|st|vs|approx|cf|fig|e\.g|i\.e|eg|ie|resp|incl|prof|dept|ref)"
    r"|(?<!\w)[A-Za-z]|^[ \t]*\d{1,2})\.$",
    re.IGNORECASE | re.MULTILINE,
)
#: longer ones are no sentences; they are cut at a blank, so that reading takes time linear in a text's length
MAX_SENTENCE = 1000
_BREAK = re.compile(r"[.!?\r\n](?:(?<=[.!?])[.!?]*[\"')\]]*(?=\s|$|(?<=[a-z)]\.)[A-Z])|(?<=\r)\n|(?<=\n))")
# A line that ends in one of these goes on in the next, whatever that begins with.
_OPEN_END = re.compile(
    r"(?:(?<!\w)(?:of|the|an?|no|not|or|and|nor|with|without|is|are|was|were|for|in|to|by|from|at|on|be|has|have|may)"
    r"|,|-)\s*$",
    re.IGNORECASE,
)
_GOES_ON = re.compile(r"[ \t]*[a-z(,]")


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a report.

    Attributes:
        name: indication, comparison, technique, findings, impression, or other (text under no header).
        start: first character of the content, after the header.
        end: one past the last character of the content.
    """

    name: str
    start: int
    end: int


def split_sections(text: str) -> list[Section]:
    """Split a report at its headers; text without headers is one section "other". Blank parts are left out."""
    found = list(_headers(text))
    if not found:
        return [Section("other", 0, len(text))] if text.strip() else []
    parts = [("other", 0)] + [(name, end) for name, _, end in found]
    ends = [start for _, start, _ in found] + [len(text)]
    spans = zip(parts, ends, strict=True)
    return [Section(name, start, end) for (name, start), end in spans if text[start:end].strip()]


def split_sentences(text: str, start: int = 0, end: int | None = None) -> list[tuple[int, int]]:
    """Split a stretch of text into sentences, as (start, end) spans without white space around them.

    A line break inside a sentence (wrapped text) does not split; one between list items or headed lines does.
    """
    end = len(text) if end is None else end
    spans: list[tuple[int, int]] = []
    begin = start
    for match in _BREAK.finditer(text, start, end):
        first, last = match.span()
        if _ends_sentence(text, begin, first, last, end):
            _append(spans, text, begin, last)
            begin = last
    _append(spans, text, begin, end)
    return spans


def _headers(text: str) -> Iterator[tuple[str, int, int]]:
    """Headers as (section name, start, end): in front of a colon or dash where a line or sentence begins, in front of
    a colon anywhere in capitals, or alone on a line in capitals."""
    done = 0
    for start, end, mark in _behind_headers(text):
        if text[start - 1 : start] in _NO_TITLE:  # nearly all line breaks end here
            continue
        first = max(done, start - 48)
        tail = text[first:start].rstrip(" \t*_")
        if not tail[-1:].isalpha():
            continue
        words = tail[len(tail.rstrip(_LETTERS_AND_BLANKS)) :].lstrip()
        found = _title_in(words)
        if found is None:
            continue
        name, title = found
        before = tail[: len(tail) - len(title)].rstrip(_DECORATION)
        last = before.rstrip(_DECORATION + string.digits)[-1:]
        alone = last in ("", "\n", "\r")
        opens = alone or last in ".;"
        if (opens and mark) or (title.isupper() and (alone or mark == ":")):
            yield name, first + len(before), end
            done = end


def _behind_headers(text: str) -> Iterator[tuple[int, int, str]]:
    """Where a header may end, as (start, end, mark): at a colon, at a dash between blanks, or before a line's end."""
    for match in _BEHIND_HEADER.finditer(text):
        at = match.start()
        mark = text[at]
        if mark == ":":
            yield at, at + 1, mark
        elif mark == "-":
            if text[at - 1 : at] in _BLANKS and text[at + 1 : at + 2] in _BLANKS:
                yield at - 1, at + 1, mark
        elif mark == "\n" or text.startswith("\n", at + 1):
            yield at, at, ""
    yield len(text), len(text), ""


def _title_in(words: str) -> tuple[str, str] | None:
    """The section and the title that a run of words ends in; the longest title wins."""
    parts = words.lower().split()
    if not parts or parts[-1] not in _LAST_WORDS:
        return None
    for k in range(min(_LONGEST_TITLE, len(parts)), 0, -1):
        name = _NAME_OF.get(" ".join(parts[-k:]))
        if name:
            return name, words.split(None, len(parts) - k)[-1]
    return None


def _ends_sentence(text: str, begin: int, first: int, last: int, end: int) -> bool:
    """Whether what stands from `first` to `last`, marks or a line break, ends the sentence that starts at `begin`."""
    mark = text[first]
    if mark == "." and last == first + 1:
        return not is_abbreviated(text, begin, first)
    if mark in "\r\n":
        if last >= end or text[last] in "\r\n":
            return True
        return not (_GOES_ON.match(text, last) or _OPEN_END.search(text[max(begin, first - 12) : first]))
    # "? pneumonia" is a doubt, not the end of a question
    return mark != "?" or last > first + 1 or not (begin == first or text[first - 1].isspace())


def is_abbreviated(text: str, begin: int, stop: int) -> bool:
    """Whether a full stop belongs to an abbreviation or a list number, in the sentence that starts at `begin`."""
    return _abbreviates(text[max(begin, stop - 8) : stop + 1])


@lru_cache(maxsize=8192)
def _abbreviates(tail: str) -> bool:
    return _ABBREVIATION.search(tail) is not None


def _append(spans: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    while end - start > MAX_SENTENCE:
        cut = text.rfind(" ", start, start + MAX_SENTENCE) + 1 or start + MAX_SENTENCE
        _append(spans, text, start, cut)
        start = cut
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    if start < end:
        spans.append((start, end))
