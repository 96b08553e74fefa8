"""A linker in one file: a header and the lexicon in columns, two lines of JSON, then three long columns of phrases.

The header tells what the lexicon was made from: the graph's hash, the options, and a hash of the rules and of the code
that makes a lexicon. A file that does not fit is refused, since it would read reports in another way than its graph.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import astuple
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from kvlp.errors import KnowledgeError
from kvlp.knowledge.linking.ambiguity import Sense
from kvlp.knowledge.linking.attribute_words import Cue
from kvlp.knowledge.linking.attributes import Anatomy
from kvlp.knowledge.linking.lexicon import Entry, Lexicon, LinkerOptions
from kvlp.knowledge.linking.statements import StatementWords
from kvlp.typing import Assertion

if TYPE_CHECKING:
    from kvlp.knowledge.graph import KnowledgeGraph

__all__ = ["FORMAT", "load_linker", "made_by", "save_linker"]

T = TypeVar("T")
#: version of the file's layout
FORMAT = 3
_KIND = "kvlp linker"
#: between normalised phrases, which are letters, digits and blanks
_BETWEEN = "|"
_AGAIN = "save it again with EntityLinker(graph).save(...)"


def save_linker(path: Path, graph_hash: str, lexicon: Lexicon, options: LinkerOptions) -> Path:
    """Write a linker; the file is there whole or not at all.

    Raises:
        KnowledgeError: the file cannot be written.
    """
    phrases = [_BETWEEN.join(column) for column in (lexicon.surfaces, lexicon.beginnings, sorted(lexicon.words))]
    body = "\n".join([json.dumps(_columns(lexicon), separators=(",", ":")), *phrases]).encode()
    header = {
        "kind": _KIND,
        "format": FORMAT,
        "graph": graph_hash,
        "made_by": made_by(),
        "options": options._asdict(),
        "sha256": hashlib.sha256(body).hexdigest(),
    }
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(json.dumps(header).encode() + b"\n" + body)
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise KnowledgeError(f"{path}: cannot be written: {error.strerror}") from None
    return path


def load_linker(path: Path, graph: KnowledgeGraph | None = None) -> tuple[str, Lexicon, LinkerOptions]:
    """Read what `save_linker` wrote: the hash of the graph, its lexicon, the linker's options.

    Raises:
        KnowledgeError: no such file, a damaged one, one of another graph, or one that another version made.
    """
    try:
        first, _, body = path.read_bytes().partition(b"\n")
    except OSError as error:
        raise KnowledgeError(f"{path}: expected a saved linker: {error.strerror}") from None
    header = _header(first, path)
    if header["made_by"] != made_by() or header["format"] != FORMAT:
        raise KnowledgeError(f"{path}: made by another version of kvlp or of its rules; {_AGAIN}")
    if graph is not None and header["graph"] != graph.content_hash:
        raise KnowledgeError(f"{path}: made from another graph than '{graph.name}', or the graph changed; {_AGAIN}")
    if hashlib.sha256(body).hexdigest() != header["sha256"]:
        raise KnowledgeError(f"{path}: damaged, the content does not fit its hash; {_AGAIN}")
    try:
        options = LinkerOptions(**header["options"])
        types = None if options.types is None else tuple(options.types)
        return header["graph"], _lexicon(*body.split(b"\n")), options._replace(types=types)
    except (TypeError, KeyError, ValueError, IndexError, AttributeError):  # whole, but written by someone else
        raise KnowledgeError(f"{path}: not the content of a saved linker; {_AGAIN}") from None


@cache
def made_by() -> str:
    """Hash of the rules and of the code of this folder, which make a lexicon."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for file in sorted([*folder.glob("*.py"), *folder.glob("*.yaml")]):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


def _header(line: bytes, path: Path) -> dict[str, Any]:
    try:
        header = json.loads(line)
    except ValueError:
        header = None
    wanted = {"kind", "format", "graph", "made_by", "options", "sha256"}
    if not isinstance(header, dict) or header.get("kind") != _KIND or not wanted <= header.keys():
        raise KnowledgeError(f"{path}: not a saved linker, or a damaged one; {_AGAIN}")
    return header


# ---- columns ---------------------------------------------------------------------------------------------------------


def _columns(lexicon: Lexicon) -> dict[str, Any]:
    concepts = {concept: n for n, concept in enumerate(lexicon.asserted)}
    entries = _unique(lexicon.surfaces.values())
    anatomy = lexicon.anatomy
    return {
        "concepts": list(concepts),
        "asserted": [int(a) for a in lexicon.asserted.values()],
        "entries": [
            [concepts[e.concept] for e in entries],
            [e.score for e in entries],
            [int(e.capitals) for e in entries],
        ],
        "meanings": [entries[e] for e in lexicon.surfaces.values()],
        "subjects": lexicon.said.subjects,
        "predicates": lexicon.said.predicates,
        "anatomy": None if anatomy is None else _anatomy_columns(anatomy),
        "senses": lexicon.senses,
    }


def _anatomy_columns(anatomy: Anatomy) -> dict[str, Any]:
    cues = _unique(anatomy.words.values())
    return {
        "cues": [astuple(cue) for cue in cues],
        "words": list(anatomy.words),
        "meanings": [cues[cue] for cue in anatomy.words.values()],
        "unsided": sorted(anatomy.unsided),
        "types": anatomy.types,
        "wider": {place: sorted(wider) for place, wider in anatomy.wider.items()},
    }


def _unique(values: Iterable[T]) -> dict[T, int]:
    numbers: dict[T, int] = {}
    for value in values:
        numbers.setdefault(value, len(numbers))
    return numbers


def _lexicon(line: bytes, *phrases: bytes) -> Lexicon:
    columns: dict[str, Any] = json.loads(line)
    forms, beginnings, words = map(_phrases, phrases)
    concepts: list[str] = columns["concepts"]
    asserted = dict(zip(concepts, map(bool, columns["asserted"]), strict=True))
    entries = _entries(concepts, asserted, *columns["entries"])
    surfaces = dict(zip(forms, map(entries.__getitem__, columns["meanings"]), strict=True))
    said = StatementWords(*(_says(columns[name]) for name in ("subjects", "predicates")))
    senses = {form: tuple(Sense(*_tuples(sense)) for sense in row) for form, row in columns["senses"].items()}
    anatomy = _anatomy(columns["anatomy"])
    return Lexicon(surfaces, asserted, said, anatomy, senses, tuple(beginnings), frozenset(words))


def _entries(
    concepts: list[str], asserted: dict[str, bool], numbers: list[int], scores: list[float], capitals: list[int]
) -> list[Entry]:
    names = list(map(concepts.__getitem__, numbers))
    rows = zip(names, scores, map(asserted.__getitem__, names), map(bool, capitals), strict=True)
    return list(map(Entry._make, rows))


def _phrases(column: bytes) -> list[str]:
    """Normalised phrases, written as one string: that is read several times faster than a list of them."""
    return column.decode().split(_BETWEEN) if column else []


def _tuples(row: Iterable[Any]) -> list[Any]:
    return [tuple(value) if isinstance(value, list) else value for value in row]


def _says(column: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, Assertion]]:
    return {phrase: {c: Assertion(says) for c, says in row.items()} for phrase, row in column.items()}


def _anatomy(columns: Mapping[str, Any] | None) -> Anatomy | None:
    if columns is None:
        return None
    cues = [Cue(*_tuples(row)) for row in columns["cues"]]
    words = dict(zip(columns["words"], [cues[n] for n in columns["meanings"]], strict=True))
    types = {concept: tuple(row) for concept, row in columns["types"].items()}
    wider = {place: frozenset(row) for place, row in columns["wider"].items()}
    return Anatomy(words, frozenset(columns["unsided"]), types, wider)
