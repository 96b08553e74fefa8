"""Sections and sentences of a report, as character spans into the raw text.

>>> [s.name for s in split_sections("INDICATION: Cough. FINDINGS: Clear lungs.")]
['indication', 'findings']
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["SECTION_NAMES", "Section", "split_sections", "split_sentences"]

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
_TITLES = "|".join(t.replace(" ", "[ ]+") for t in sorted(_NAME_OF, key=len, reverse=True))
_CAPITALS = _TITLES.upper()
# A header with a colon at the start of a line or sentence, or anywhere in capitals; or alone on its line in capitals.
_HEADER = re.compile(
    rf"(?:(?:^|(?<=[.;\n]))[ \t>*#_\d]*(?P<line>(?i:{_TITLES}))[ \t*_]*(?::|[ \t]-[ \t]))"
    rf"|(?:(?<!\w)(?P<shout>{_CAPITALS})[ \t*_]*:)"
    rf"|(?:^[ \t*#_]*(?P<alone>{_CAPITALS})[ \t*_]*$)",
    re.MULTILINE,
)

# A full stop that ends no sentence: after an abbreviation, an initial, or a list number at a line's start.
_ABBREVIATION = re.compile(
    r"(?:(?<!\w)(?:dr|mr|mrs|ms|st|vs|approx|cf|fig|e\.g|i\.e|eg|ie|resp|incl|prof|dept|ref)"
    r"|(?<!\w)[A-Za-z]|^[ \t]*\d{1,2})\.$",
    re.IGNORECASE | re.MULTILINE,
)
_BREAK = re.compile(r"[.!?]+[\"')\]]*(?=\s|$|(?<=[a-z)]\.)[A-Z])|\r?\n")
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
    found = [] if ":" not in text and "\n" not in text and " - " not in text else list(_HEADER.finditer(text))
    if not found:
        return [Section("other", 0, len(text))] if text.strip() else []
    parts = [("other", 0)] + [(_NAME_OF[_title(m)], m.end()) for m in found]
    ends = [m.start() for m in found] + [len(text)]
    return [
        Section(name, start, end) for (name, start), end in zip(parts, ends, strict=True) if text[start:end].strip()
    ]


def split_sentences(text: str, start: int = 0, end: int | None = None) -> list[tuple[int, int]]:
    """Split a stretch of text into sentences, as (start, end) spans without white space around them.

    A line break inside a sentence (wrapped text) does not split; one between list items or headed lines does.
    """
    end = len(text) if end is None else end
    spans: list[tuple[int, int]] = []
    begin = start
    for match in _BREAK.finditer(text, start, end):
        if match.start() >= begin and _ends_sentence(text, begin, match, end):
            _append(spans, text, begin, match.end())
            begin = match.end()
    _append(spans, text, begin, end)
    return spans


def _title(match: re.Match[str]) -> str:
    words = match["line"] or match["shout"] or match["alone"]
    return " ".join(words.lower().split())


def _ends_sentence(text: str, begin: int, match: re.Match[str], end: int) -> bool:
    if match[0][0] in "\r\n":
        after = match.end()
        if after >= end or text[after] in "\r\n":
            return True
        tail = text[max(begin, match.start() - 12) : match.start()]
        return not (_GOES_ON.match(text, after) or _OPEN_END.search(tail))
    if match[0] == "?" and (begin == match.start() or text[match.start() - 1].isspace()):
        return False  # "? pneumonia" is a doubt, not the end of a question
    return match[0] != "." or not _ABBREVIATION.search(text[max(begin, match.start() - 8) : match.end()])


def _append(spans: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    piece = text[start:end]
    bare = piece.strip()
    if bare:
        first = start + len(piece) - len(piece.lstrip())
        spans.append((first, first + len(bare)))
