"""The fast ways say what the plain ways say: on made texts, on real reports, with and without memory."""

from __future__ import annotations

import csv
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvlp.knowledge.graph import KnowledgeGraph
from kvlp.knowledge.linking import Dictionary, EntityLinker
from kvlp.knowledge.linking.normalise import _opened, normalise
from kvlp.knowledge.sections import split_sentences

# ---- the plain ways -------------------------------------------------------------------------------------------------

_CROSSES = re.compile(r"[,;:()\[\]!?]|\.\s|\n\s*\n")
_BREAK = re.compile(r"[.!?]+[\"')\]]*(?=\s|$|(?<=[a-z)]\.)[A-Z])|\r?\n")
_ABBREVIATION = re.compile(
    r"(?:(?<!\w)(?:dr|mr|mrs|ms|st|vs|approx|cf|fig|e\.g|i\.e|eg|ie|resp|incl|prof|dept|ref)"
    r"|(?<!\w)[A-Za-z]|^[ \t]*\d{1,2})\.$",
    re.IGNORECASE | re.MULTILINE,
)
_OPEN_END = re.compile(
    r"(?:(?<!\w)(?:of|the|an?|no|not|or|and|nor|with|without|is|are|was|were|for|in|to|by|from|at|on|be|has|have|may)"
    r"|,|-)\s*$",
    re.IGNORECASE,
)
_PREFIXES = (
    "air", "peri", "para", "infra", "supra", "sub", "retro", "intra", "extra", "inter", "hyper", "hypo", "over",
    "under", "hydro", "haemo", "hemo", "pneumo", "cardio", "costo", "broncho", "fibro", "reticulo", "bi", "multi",
    "non", "post", "pre", "micro", "macro", "naso", "oro", "endo", "veno", "hemi", "mid", "tracheo", "pleuro",
)  # fmt: skip


def slow_find(groups: Sequence[Mapping[str, Any]], text: str) -> list[list[tuple[int, int, Any]]]:
    """In each group by itself, from left to right: the longest phrase at a word, then on behind it."""
    normal = normalise(text)
    words = [m.span() for m in re.finditer("[^ ]+", normal.text)]
    hits: list[list[tuple[int, int, Any]]] = []
    for group in groups:
        found: list[tuple[int, int, Any]] = []
        done = 0
        for n, (first, _) in enumerate(words):
            for m in range(len(words), n, -1):
                phrase = normal.text[first : words[m - 1][1]]
                if first < done or phrase not in group:
                    continue
                start, end = normal.span(first, words[m - 1][1])
                if " " in phrase and _CROSSES.search(text, start, end):
                    continue
                found.append((start, end, group[phrase]))
                done = words[m - 1][1]
        hits.append(found)
    return hits


def slow_sentences(text: str) -> list[tuple[int, int]]:
    """Sentences by the plain pattern (texts of under 1,000 characters)."""
    begin, spans = 0, []
    for match in _BREAK.finditer(text):
        if _ends(text, begin, match):
            spans.append((begin, match.end()))
            begin = match.end()
    trimmed = []
    for start, end in [*spans, (begin, len(text))]:
        piece = text[start:end]
        first = start + len(piece) - len(piece.lstrip())
        if piece.strip():
            trimmed.append((first, first + len(piece.strip())))
    return trimmed


def _ends(text: str, begin: int, match: re.Match[str]) -> bool:
    if match[0][0] in "\r\n":
        after = match.end()
        if after >= len(text) or text[after] in "\r\n":
            return True
        tail = text[max(begin, match.start() - 12) : match.start()]
        return not (re.match(r"[ \t]*[a-z(,]", text[after:]) or _OPEN_END.search(tail))
    if match[0] == "?" and (begin == match.start() or text[match.start() - 1].isspace()):
        return False
    return match[0] != "." or not _ABBREVIATION.search(text[max(begin, match.start() - 8) : match.end()])


def slow_variants(form: str) -> list[str]:
    """A normalised form with its prefixes written apart, then with those apart written together."""
    either = "|".join(_PREFIXES)
    opened = [form[: m.end()] + " " + form[m.end() :] for m in re.finditer(rf"\b(?:{either})(?=\w{{4}})", form)]
    return opened + [
        form[: m.start()] + m[1] + form[m.end() :] for m in re.finditer(rf"\b({either}) (?=\w{{4}})", form)
    ]


# ---- comparisons ----------------------------------------------------------------------------------------------------

GROUPS = [
    {"pleural effusion": "A", "effusion": "B", "left pleural effusion": "C", "the left": "D", "heart": "E"},
    {"no": 1, "no change in": 2, "left": 3, "heart": 4, "no change": 5, "effusion no": 6},
]
WORDS = ["pleural", "effusion", "left", "the", "heart", "no", "change", "in", "Heart", "x"]
GLUE = [
    " ",
    " ",
    " ",
    "  ",
    ", ",
    ". ",
    ".",
    "\n",
    "\n\n",
    "-",
    " - ",
    "\u00ad",
    "/",
    "(",
    ") ",
    "\r\n",
    ": ",
    "?",
    "1. ",
    "vs. ",
    "ﬁ",
]
SENTENCES = [
    "No pleural effusion or pneumothorax.", "Heart size is normal.", "Possible left lower lobe pneumonia.",
    "1. Stable cardiomegaly", "? consolidation", "Pleural or pericardial effusion is not excluded.", "PE.",
    "NO ACUTE DISEASE",
]  # fmt: skip


def made(words: list[str], glue: list[str], size: int) -> st.SearchStrategy[str]:
    pair = st.tuples(st.sampled_from(words), st.sampled_from(glue)).map("".join)
    return st.lists(pair, max_size=size).map("".join)


@given(made(WORDS, GLUE, 14))
def test_dictionary_finds_what_the_plain_search_finds(text: str) -> None:
    assert Dictionary(GROUPS).find(text) == slow_find(GROUPS, text)


@given(made([*WORDS, "Dr", "e.g", "A", "and"], [*GLUE, '." ', "..", "!) ", ".A", "\r", "\t"], 20))
def test_sentences_are_those_of_the_plain_pattern(text: str) -> None:
    assert split_sentences(text) == slow_sentences(text)


@given(st.lists(st.sampled_from(["hydropneumothorax", "peri", "hilar", "non", "air", "space", "bilobed", "pre", "x1"])))
def test_prefixes_are_written_apart_and_together(words: list[str]) -> None:
    assert list(_opened(" ".join(words))) == slow_variants(" ".join(words))


@pytest.fixture(scope="module")
def linkers() -> dict[int, EntityLinker]:
    graph = KnowledgeGraph.load("chest")
    return {size: EntityLinker(graph, remember=size) for size in (0, 3, 20_000)}


@given(st.lists(st.sampled_from(SENTENCES), max_size=6).map(" ".join) | made(WORDS, GLUE, 12))
def test_memory_changes_nothing(linkers: dict[int, EntityLinker], text: str) -> None:
    plain, small, large = (linkers[size](text) for size in (0, 3, 20_000))
    assert plain == small == large


def remembered(linker: EntityLinker) -> int:
    return sum(map(len, linker._memory))


def test_memory_is_bounded_and_can_be_cleared(linkers: dict[int, EntityLinker]) -> None:
    for n in range(10):
        linkers[3](f"No effusion on day {n}.")
    assert remembered(linkers[3]) <= 3
    assert remembered(linkers[0]) == 0
    linkers[3].forget()
    assert remembered(linkers[3]) == 0


def real_reports(folder: Path) -> Iterator[str]:
    file = folder / "reports" / "iu_xray_reports.csv"
    if not file.is_file():
        pytest.skip(f"no {file.name} in the folder of real data")
    with file.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            yield f"FINDINGS: {row['findings']}\nIMPRESSION: {row['impression']}"


def test_real_reports_are_read_alike(kvlp_data: Path, linkers: dict[int, EntityLinker]) -> None:
    texts = random.Random(0).sample(list(real_reports(kvlp_data)), 300)
    groups = [
        {m: m for m in ("pleural effusion", "effusion", "the heart", "heart", "no", "no acute", "size is normal")}
    ]
    found = Dictionary(groups)
    for text in texts:
        assert linkers[20_000](text) == linkers[0](text)
        assert found.find(text) == slow_find(groups, text)
        assert split_sentences(text) == slow_sentences(text)
