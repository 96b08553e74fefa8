"""OBO ontologies (HPO, Disease Ontology, SYMP, Uberon ...) through obonet."""

from __future__ import annotations

import gzip
import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvlp.errors import KnowledgeError, MissingExtraError
from kvlp.knowledge.graph import Concept, KnowledgeGraph, Relation

if TYPE_CHECKING:
    import networkx as nx

__all__ = ["read_obo"]

_LOG = logging.getLogger(__name__)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_LICENCE = re.compile(r'license\S*\s+"?([^"]+?)"?(?:\s+xsd:\w+)?$')
#: prefixes of UMLS cross references: HPO writes UMLS:C..., DO and SYMP write UMLS_CUI:C...
_UMLS = re.compile(r"^UMLS(?:_CUI)?:(C\d{7})$")


def read_obo(files: Sequence[Path], *, name: str = "") -> KnowledgeGraph:
    """Read OBO files into one graph; a term in several files is taken from the first.

    Obsolete terms are left out. Relations to terms that no file holds are left out too and counted in the log, since
    published subsets are full of them. EXACT, NARROW, BROAD and RELATED synonyms are not told apart: only EXACT ones
    are taken, the others being names of other things.

    Raises:
        KnowledgeError: a file is missing, not OBO, truncated or not UTF-8.
        MissingExtraError: obonet is not installed.
    """
    if not files:
        raise KnowledgeError("no OBO file given; expected at least one .obo or .obo.gz file")
    graphs = [_read_file(path) for path in files]
    concepts: dict[str, Concept] = {}
    relations: dict[Relation, None] = {}
    for path, graph in zip(files, graphs, strict=True):
        version = str(graph.graph.get("data-version", "")) or path.name
        for term, data in graph.nodes(data=True):
            if data.get("name") and term not in concepts:
                concepts[term] = _concept(term, data)
        for head, tail, kind in graph.edges(keys=True):
            relations[Relation(head, kind, tail, version)] = None
    if not concepts:
        raise KnowledgeError(f"{files[0]}: holds no term with a name; expected an OBO file with [Term] blocks")
    kept = [r for r in relations if r.head in concepts and r.tail in concepts and r.head != r.tail]
    if len(kept) < len(relations):
        _LOG.warning(
            "%d of %d relations point to terms that are not in the files", len(relations) - len(kept), len(relations)
        )
    title = name or files[0].name.split(".")[0]
    result = KnowledgeGraph(concepts.values(), kept, name=title, version=_versions(graphs), licence=_licences(graphs))
    _require_no_cycle(result, files)
    return result


def _read_file(path: Path) -> nx.MultiDiGraph:
    try:
        import obonet
    except ImportError:
        raise MissingExtraError("obonet", "knowledge") from None
    if not path.is_file():
        raise KnowledgeError(f"{path}: expected an OBO file (.obo or .obo.gz)")
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            graph: nx.MultiDiGraph = obonet.read_obo(file, ignore_obsolete=True)
    except UnicodeDecodeError as error:
        raise KnowledgeError(f"{path}: not UTF-8 (byte {error.start})") from None
    except (ValueError, KeyError, AttributeError, EOFError, gzip.BadGzipFile, TypeError, IndexError) as error:
        raise KnowledgeError(f"{path}: not readable as OBO ({type(error).__name__}); is it cut off?") from None
    return graph


def _concept(term: str, data: dict[str, Any]) -> Concept:
    title = _plain(str(data["name"]))
    synonyms = dict.fromkeys(s for s in _exact_synonyms(data) if s.lower() != title.lower())
    return Concept(
        id=term,
        name=title,
        synonyms=tuple(synonyms),
        definition=_first_quoted(data.get("def", "")),
        semantic_types=tuple(t for t in (str(data.get("namespace", "")),) if t),
        source_ids=tuple(dict.fromkeys([term, *_source_ids(data)])),
    )


def _exact_synonyms(data: dict[str, Any]) -> Iterator[str]:
    for line in data.get("synonym", ()):
        text = _first_quoted(line)
        if text and " EXACT" in line:
            yield text


def _source_ids(data: dict[str, Any]) -> Iterator[str]:
    yield from data.get("alt_id", ())
    for xref in data.get("xref", ()):
        match = _UMLS.match(xref.split(" ")[0])
        if match:
            yield f"UMLS:{match[1]}"


def _first_quoted(text: str) -> str:
    match = _QUOTED.search(text)
    return _plain(match[1]) if match else ""


def _plain(text: str) -> str:
    return " ".join(re.sub(r"\\(.)", r"\1", text).split())


def _versions(graphs: Sequence[nx.MultiDiGraph]) -> str:
    return "; ".join(dict.fromkeys(str(g.graph["data-version"]) for g in graphs if g.graph.get("data-version")))


def _licences(graphs: Sequence[nx.MultiDiGraph]) -> str:
    stated = (_LICENCE.search(str(p)) for g in graphs for p in g.graph.get("property_value", ()))
    return "; ".join(dict.fromkeys(m[1] for m in stated if m)) or "as the OBO files state"


def _require_no_cycle(graph: KnowledgeGraph, files: Sequence[Path]) -> None:
    from kvlp.knowledge.validate import require_sound

    require_sound(graph, str(files[0]))
