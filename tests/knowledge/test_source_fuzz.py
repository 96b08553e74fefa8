"""Damaged sources: whatever bytes come, a graph or one line. Seeded, so that a failure comes again."""

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from kvlp.errors import KnowledgeError
from kvlp.knowledge.sources.obo import read_obo
from kvlp.knowledge.sources.radgraph import radgraph_graph
from kvlp.knowledge.sources.report import SourceReport
from kvlp.knowledge.sources.triples import read_triples

OBO = b"""format-version: 1.2
data-version: 1
ontology: tiny

[Term]
id: T:1
name: lung
def: "A \\"bad\\" thing." [ref:1]
synonym: "lungs" EXACT []
xref: UMLS:C0024115

[Term]
id: T:2
name: lobe
is_a: T:1 ! lung
relationship: part_of T:1

[Typedef]
id: part_of
name: part of
"""
TRIPLES = b'head,relation,tail\na,is a,b\n"c, d",r,e\n'
ENTITY = {"tokens": "effusion", "label": "OBS-DP", "start_ix": 1, "end_ix": 1, "relations": [["modify", "2"]]}
LEFT = {"tokens": "left", "label": "ANAT-DP", "start_ix": 0, "end_ix": 0, "relations": []}
RADGRAPH = json.dumps({"r": {"text": "left effusion .", "entities": {"1": ENTITY, "2": LEFT}}}).encode()
PIECES = [
    *(
        b"\n",
        b"\n\n",
        b'"',
        b"\\",
        b"[Term]",
        b"is_a: ",
        b"{",
        b"}",
        b"!",
        b":",
        b" ",
        b"\xff",
        b"\0",
        b",",
        b";",
        b"\t",
    ),
    *(b"null", b"[]", b"1e999", b"NaN", b"-1", b"id: x", b"\xe2\x80\xa8", b"'", b"=", b"is_obsolete: true\n"),
]
Reader = Callable[[Path], object]
READERS: dict[str, tuple[bytes, str, Reader]] = {
    "obo": (OBO, ".obo", lambda path: read_obo([path], report=SourceReport())),
    "triples": (TRIPLES, ".csv", lambda path: read_triples([path], report=SourceReport())),
    "radgraph": (RADGRAPH, ".json", lambda path: radgraph_graph([path], report=SourceReport())),
}


def damaged(raw: bytes, rng: random.Random) -> bytes:
    """Cut out, put in, cut off or repeat a piece, one to four times."""
    for _ in range(rng.randint(1, 4)):
        at, kind = rng.randrange(len(raw) + 1), rng.random()
        if kind < 0.3:
            raw = raw[:at] + raw[at + rng.randint(1, 12) :]
        elif kind < 0.8:
            raw = raw[:at] + rng.choice(PIECES) + raw[at:]
        elif kind < 0.9:
            raw = raw[:at]
        else:
            other = rng.randrange(len(raw) + 1)
            raw = raw[:at] + raw[other : other + 30] + raw[at:]
    return raw


def _read_damaged(folder: Path, name: str, seed: int) -> str:
    """What the reader says of a damaged file; nothing if it reads it."""
    raw, suffix, read = READERS[name]
    rng = random.Random(seed)
    raw = damaged(raw, rng)
    if rng.random() < 0.2:
        suffix, raw = f"{suffix}.gz", damaged(gzip.compress(raw, mtime=0), rng)
    path = folder / f"x{suffix}"
    path.write_bytes(raw)
    try:
        read(path)
    except KnowledgeError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", READERS)
def test_a_graph_or_one_line(tmp_path: Path, name: str) -> None:
    pytest.importorskip("obonet")
    said = [_read_damaged(tmp_path, name, seed) for seed in range(60)]
    assert {bool(line) for line in said} == {True, False}
    assert not [line for line in said if "\n" in line]


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_a_graph_or_one_line_many_times(tmp_path: Path, name: str) -> None:
    pytest.importorskip("obonet")
    assert not [seed for seed in range(60, 10_000) if "\n" in _read_damaged(tmp_path, name, seed)]
