"""OBO ontologies (HPO, Disease Ontology, SYMP, Uberon ...) through obonet."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvlp.errors import KnowledgeError, MissingExtraError
from kvlp.knowledge.graph import Concept, KnowledgeGraph, Relation
from kvlp.knowledge.sources.report import SourceReport
from kvlp.knowledge.sources.tables import read_text
from kvlp.knowledge.sources.xrefs import read_newer_cuis, read_xrefs, source_id
from kvlp.knowledge.surfaces import near

if TYPE_CHECKING:
    import networkx as nx

__all__ = ["SCOPES", "read_obo"]

#: how near a synonym is to the term: only EXACT ones are surfaces of it, the others name other things
SCOPES = ("EXACT", "NARROW", "BROAD", "RELATED")
_LOG = logging.getLogger(__name__)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"\s*([A-Z]*)')
_LICENCE = re.compile(r'license\S*\s+"?([^"]+?)"?(?:\s+xsd:\w+)?$')
#: what the terms of an ontology are, for those who read reports with it; the ontology's own namespace comes after it
_TYPES = {"HP": "finding", "DOID": "disease", "SYMP": "symptom", "UBERON": "anatomy"}


def read_obo(
    files: Sequence[Path],
    *,
    name: str = "",
    synonym_scopes: Collection[str] = ("EXACT",),
    vocabularies: Collection[str] = ("UMLS",),
    xrefs: Path | None = None,
    report: SourceReport | None = None,
) -> KnowledgeGraph:
    """Read OBO files into one graph; a term in several files is taken from the first.

    Obsolete terms are left out, and so are relations to terms that no file holds: published subsets are full of them.

    Args:
        files: .obo or .obo.gz files.
        name: the graph's name; default: that of the first file.
        synonym_scopes: which synonyms become surfaces, of `SCOPES`.
        vocabularies: which cross references become source ids ("UMLS", "MESH", "NCI", ...).
        xrefs: a table of further cross references (see `kvlp.knowledge.sources.xrefs`).
        report: collects what was left out; without one it is logged.

    Raises:
        KnowledgeError: a file is missing, not OBO, cut off or not UTF-8, its is_a relations close a circle, or a scope
            is unknown.
        MissingExtraError: obonet is not installed.
    """
    if not files:
        raise KnowledgeError("no OBO file given; expected at least one .obo or .obo.gz file")
    found = SourceReport() if report is None else report
    scopes = _checked_scopes(synonym_scopes)
    graphs = [_read_file(path) for path in files]
    terms = _terms(graphs, found)
    if not terms:
        raise KnowledgeError(f"{files[0]}: holds no term with a name; expected an OBO file with [Term] blocks")
    ids = _source_ids(terms, vocabularies, xrefs, found)
    concepts = [_concept(term, data, scopes, ids[term]) for term, data in terms.items()]
    relations = _relations(files, graphs, terms, found)
    title = name or files[0].name.split(".")[0]
    graph = KnowledgeGraph(concepts, relations, name=title, version=_versions(graphs), licence=_licences(graphs))
    graph.build_report.update(found.counts())
    if report is None:
        found.log(_LOG)
    _require_no_cycle(graph, files)
    return graph


def _checked_scopes(scopes: Collection[str]) -> frozenset[str]:
    wanted = frozenset(scope.upper() for scope in scopes)
    for scope in sorted(wanted - set(SCOPES)):
        close = near(scope, SCOPES, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise KnowledgeError(f"unknown synonym scope '{scope}': expected {', '.join(SCOPES)}{hint}")
    return wanted


def _read_file(path: Path) -> nx.MultiDiGraph:
    try:
        import obonet
    except ImportError:
        raise MissingExtraError("obonet", "knowledge") from None
    text = read_text(path, "an OBO file (.obo or .obo.gz)")
    if text and not text.endswith("\n"):
        raise KnowledgeError(
            f"{path}: the last line does not end, so the file may be cut off; get it again, or end it with a line break"
        )
    named = text
    if "\nontology:" not in "\n" + text.partition("\n[")[0]:  # else obonet writes to the root logger
        named = f"ontology: \n{'' if text[:1] != '[' else chr(10)}{text}"
    try:
        graph: nx.MultiDiGraph = obonet.read_obo(io.StringIO(named), ignore_obsolete=False)
    except (ValueError, KeyError, AttributeError, TypeError, IndexError) as error:
        raise KnowledgeError(f"{path}{_where(text, error)}: not readable as OBO; is it cut off or damaged?") from None
    return graph


def _where(text: str, error: Exception) -> str:
    """The line that obonet could not read, where its message tells."""
    bad = str(error).partition("failed for:\n")[2].rstrip("\n")
    at = text.find(f"\n{bad}\n") if bad else -1
    return f" near line {text.count(chr(10), 0, at) + 2}" if at >= 0 else ""


def _terms(graphs: Sequence[nx.MultiDiGraph], report: SourceReport) -> dict[str, dict[str, Any]]:
    """The terms to keep, each with what the first file says of it."""
    terms: dict[str, dict[str, Any]] = {}
    for graph in graphs:
        default = "".join(graph.graph.get("default-namespace", ())[:1])
        for term, data in graph.nodes(data=True):
            if not data:  # only named as another term's parent
                continue
            if data.get("is_obsolete") == "true":
                report.add("obsolete", term)
            elif not str(data.get("name", "")).strip():
                report.add("unnamed", term)
            elif term in terms:
                report.add("repeated", term)
            else:
                terms[term] = {"namespace": default, **data}
    return terms


def _relations(
    files: Sequence[Path], graphs: Sequence[nx.MultiDiGraph], terms: dict[str, Any], report: SourceReport
) -> list[Relation]:
    kept: dict[tuple[str, str, str], Relation] = {}
    for path, graph in zip(files, graphs, strict=True):
        about = (str(graph.graph.get(key, "")) for key in ("ontology", "data-version"))
        source = " ".join(part for part in about if part) or path.name
        for head, tail, kind in graph.edges(keys=True):
            if head not in terms or tail not in terms:
                if head in terms:
                    report.add("dangling", f"{head} {kind} {tail}")
            elif head == tail:
                report.add("self_loop", f"{head} {kind} {tail}")
            else:
                kept.setdefault((head, kind, tail), Relation(head, kind, tail, source))
    return list(kept.values())


def _source_ids(
    terms: dict[str, dict[str, Any]], vocabularies: Collection[str], xrefs: Path | None, report: SourceReport
) -> dict[str, dict[str, None]]:
    """Term -> its own id, the ids that it replaces, and its ids in other vocabularies."""
    wanted = {v.upper() for v in vocabularies}
    ids = {term: dict.fromkeys([term, *data.get("alt_id", ())]) for term, data in terms.items()}
    more = read_xrefs(xrefs) if xrefs is not None else []
    for term in dict.fromkeys(term for term, _ in more if term not in terms):
        report.add("unknown_xref", term)
    stated = ((term, xref.split(" ")[0]) for term, data in terms.items() for xref in data.get("xref", ()))
    for term, text in (*stated, *more):
        found = source_id(text)
        if found is None:
            report.add("odd_cui", f"{term} {text}")
        elif term in ids and found.partition(":")[0] in wanted:
            ids[term][found] = None
    for term, cui in read_newer_cuis() if "UMLS" in wanted else ():
        if term in ids:
            ids[term][cui] = None
    return ids


def _concept(term: str, data: dict[str, Any], scopes: frozenset[str], ids: Collection[str]) -> Concept:
    title = _plain(str(data["name"]))
    synonyms = dict.fromkeys(s for s in _synonyms(data, scopes) if s.lower() != title.lower())
    types = (_TYPES.get(term.partition(":")[0], ""), str(data.get("namespace") or ""))
    return Concept(
        id=term,
        name=title,
        synonyms=tuple(synonyms),
        definition=_first_quoted(str(data.get("def", ""))),
        semantic_types=tuple(dict.fromkeys(t for t in types if t)),
        source_ids=tuple(ids),
    )


def _synonyms(data: dict[str, Any], scopes: frozenset[str]) -> Iterator[str]:
    for line in data.get("synonym", ()):
        match = _QUOTED.search(line)
        if match and (match[2] or "RELATED") in scopes:  # RELATED is what the format takes where none is stated
            yield from filter(None, [_plain(match[1])])
    for scope in scopes:  # format version 1.0
        for line in data.get(f"{scope.lower()}_synonym", ()):
            yield from filter(None, [_first_quoted(line)])


def _first_quoted(text: str) -> str:
    match = _QUOTED.search(text)
    return _plain(match[1]) if match else ""


def _plain(text: str) -> str:
    return " ".join(re.sub(r"\\(.)", r"\1", text).split())


def _versions(graphs: Sequence[nx.MultiDiGraph]) -> str:
    return "; ".join(dict.fromkeys(str(g.graph["data-version"]) for g in graphs if g.graph.get("data-version")))


def _licences(graphs: Sequence[nx.MultiDiGraph]) -> str:
    stated = (_LICENCE.search(str(p)) for g in graphs for p in g.graph.get("property_value", ()))
    remarks = (str(r) for g in graphs for r in g.graph.get("remark", ()) if "licens" in str(r).lower())
    return "; ".join(dict.fromkeys([*(m[1] for m in stated if m), *remarks])) or "as the OBO files state"


def _require_no_cycle(graph: KnowledgeGraph, files: Sequence[Path]) -> None:
    from kvlp.knowledge.validate import require_sound

    require_sound(graph, str(files[0]))
