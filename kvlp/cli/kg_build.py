"""kvlp kg build, merge, export: graphs from sources, one from several, and out to other programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from kvlp.cli.text import emit, printable
from kvlp.errors import ConfigError

if TYPE_CHECKING:
    from kvlp.knowledge.graph import KnowledgeGraph
    from kvlp.knowledge.sources.report import SourceReport

__all__ = ["build", "export", "merge", "open_graph"]

_JSON = typer.Option(False, "--json", help="Print one JSON document.")
#: option -> the sources that it goes with
_GOES_WITH = {
    "language": ("umls",),
    "semantic_type": ("umls",),
    "relation": ("umls",),
    "suppressed": ("umls",),
    "vocabulary": ("umls", "obo"),
    "synonym_scope": ("obo",),
    "xrefs": ("obo",),
    "names": ("triples",),
    "definitions": ("triples",),
    "link_to": ("radgraph",),
    "min_reports": ("radgraph",),
}
_SOURCES = ("obo", "csv", "triples", "radgraph", "umls")


def build(
    out: Path = typer.Option(..., "--out", help="Folder to write the graph to."),
    obo: list[Path] = typer.Option([], "--obo", help="OBO: a file (.obo, .obo.gz); give it once for each."),
    csv: Path | None = typer.Option(None, "--csv", help="A folder with concepts.csv and relations.csv."),
    triples: list[Path] = typer.Option(
        [], "--triples", help="A table of head, relation, tail (.csv, .tsv); repeatable."
    ),
    radgraph: list[Path] = typer.Option([], "--radgraph", help="RadGraph: a JSON file; repeatable."),
    umls: Path | None = typer.Option(None, "--umls", help="A folder with MRCONSO.RRF (and MRREL, MRSTY, MRDEF)."),
    name: str = typer.Option("", "--name", help="The graph's name; default: that of the source."),
    names: Path | None = typer.Option(None, "--names", help="Triples: a table of id, name, synonyms."),
    definitions: Path | None = typer.Option(None, "--definitions", help="Triples: a table of id, definition."),
    synonym_scope: list[str] = typer.Option(
        [], "--synonym-scope", help="OBO: synonyms to take (EXACT, NARROW, BROAD, RELATED); default EXACT."
    ),
    xrefs: Path | None = typer.Option(None, "--xrefs", help="OBO: a table of cross references (term, source_id)."),
    vocabulary: list[str] = typer.Option(
        [], "--vocabulary", help="UMLS: take names of these sources only. OBO: ids to keep (default UMLS)."
    ),
    language: list[str] = typer.Option([], "--language", help="UMLS: languages of names; default ENG."),
    semantic_type: list[str] = typer.Option([], "--semantic-type", help="UMLS: only these semantic types."),
    relation: list[str] = typer.Option([], "--relation", help="UMLS: only these relations."),
    suppressed: bool = typer.Option(False, "--suppressed", help="UMLS: suppressible and obsolete rows too."),
    link_to: str = typer.Option("", "--link-to", help="RadGraph: name entities as this graph does."),
    min_reports: int = typer.Option(0, "--min-reports", help="RadGraph: leave out what fewer reports say.", min=0),
    as_json: bool = _JSON,
) -> None:
    """Build a graph folder from OBO files, CSV tables, triples, RadGraph's annotations or UMLS tables."""
    given = dict(locals())
    source = _one_source(given)
    from kvlp.knowledge.sources.report import SourceReport

    report = SourceReport()
    graph = _READERS[source](given, report)
    graph = graph.renamed(name) if name and name != graph.name else graph
    if source != "umls" or name:
        graph.save(out)
    _say(graph, out, report, as_json=as_json)


def merge(
    graphs: list[str] = typer.Argument(..., help="Graph folders, OBO files or names of bundled graphs; trusted first."),
    out: Path = typer.Option(..., "--out", help="Folder to write the graph to."),
    name: str = typer.Option("", "--name", help="The graph's name; default: theirs, joined by '+'."),
    on: list[str] = typer.Option(["UMLS"], "--on", help="Vocabularies whose shared ids unite; repeatable."),
    as_json: bool = _JSON,
) -> None:
    """Make one graph of several: concepts that share an id are one, and provenance.csv tells what came from where."""
    from kvlp.knowledge.merge import merge as unite
    from kvlp.knowledge.provenance import read_origins
    from kvlp.knowledge.sources.report import SourceReport

    if len(graphs) < 2:
        raise ConfigError("give at least two graphs to merge")
    report = SourceReport()
    opened = [open_graph(g) for g in graphs]
    before = {graph.name: read_origins(path) for graph, path in zip(opened, graphs, strict=True)}
    merged = unite(opened, name=name, on=on, before=before, report=report)
    merged.save(out)
    figures = {"united": sum(len(g) for g in opened) - len(merged.graph)}
    _say(merged.graph, out, report, figures, as_json=as_json)


def export(
    graph: str = typer.Argument("chest", help="A bundled graph's name, or a folder."),
    format: str = typer.Option("csv", "--format", help="csv (a folder), graphml or networkx (node-link JSON)."),
    out: Path = typer.Option(..., "--out", help="File, for csv the folder, to write."),
    as_json: bool = _JSON,
) -> None:
    """Write a graph for other programs."""
    from kvlp.knowledge.export import export as write

    opened = open_graph(graph)
    write(opened, out, format)
    if "not to be redistributed" in opened.licence:
        typer.echo(printable(f"note: {opened.licence}"), err=True)
    data = {"out": str(out), "format": format, "concepts": len(opened), "relations": len(opened.relations)}
    emit(data, [f"{opened.name}: {len(opened)} concepts, {len(opened.relations)} relations -> {out}"], as_json=as_json)


def open_graph(graph: str, *, check: bool = True) -> KnowledgeGraph:
    """Open a bundled graph, a folder, or an OBO file as it is."""
    from kvlp.knowledge.graph import KnowledgeGraph

    if graph.endswith((".obo", ".obo.gz")):
        return KnowledgeGraph.from_obo(graph)
    return KnowledgeGraph.load(graph, check=check)


def _one_source(given: dict[str, Any]) -> str:
    sources = [source for source in _SOURCES if given[source]]
    if len(sources) != 1:
        options = ", ".join(f"--{source}" for source in _SOURCES)
        raise ConfigError(f"give exactly one source of {options}; got {', '.join(sources) or 'none'}")
    for option, fits in _GOES_WITH.items():
        if given[option] and sources[0] not in fits:
            wanted = " or ".join(f"--{source}" for source in fits)
            raise ConfigError(f"--{option.replace('_', '-')} goes with {wanted}, not with --{sources[0]}")
    return sources[0]


def _from_obo(given: dict[str, Any], report: SourceReport) -> KnowledgeGraph:
    from kvlp.knowledge.sources.obo import read_obo

    return read_obo(
        given["obo"],
        name=given["name"],
        synonym_scopes=given["synonym_scope"] or ("EXACT",),
        vocabularies=given["vocabulary"] or ("UMLS",),
        xrefs=given["xrefs"],
        report=report,
    )


def _from_csv(given: dict[str, Any], report: SourceReport) -> KnowledgeGraph:
    from kvlp.knowledge.graph import KnowledgeGraph

    return KnowledgeGraph.from_csv(given["csv"])


def _from_triples(given: dict[str, Any], report: SourceReport) -> KnowledgeGraph:
    from kvlp.knowledge.sources.triples import read_triples

    return read_triples(
        given["triples"], names=given["names"], definitions=given["definitions"], name=given["name"], report=report
    )


def _from_radgraph(given: dict[str, Any], report: SourceReport) -> KnowledgeGraph:
    from kvlp.knowledge.sources.radgraph import radgraph_graph

    known = open_graph(given["link_to"]) if given["link_to"] else None
    return radgraph_graph(
        given["radgraph"], graph=known, name=given["name"], min_reports=max(1, given["min_reports"]), report=report
    )


def _from_umls(given: dict[str, Any], report: SourceReport) -> KnowledgeGraph:
    """Without a name of its own the graph is written at once and opened from there."""
    from kvlp.knowledge.graph import KnowledgeGraph

    return KnowledgeGraph.from_umls(
        given["umls"],
        languages=given["language"] or ("ENG",),
        vocabularies=given["vocabulary"] or None,
        semantic_types=given["semantic_type"] or None,
        relations=given["relation"] or None,
        suppressed=given["suppressed"],
        out=None if given["name"] else given["out"],
        progress=lambda line: typer.echo(printable(f"kvlp: {line}"), err=True),
    )


_READERS: dict[str, Callable[[dict[str, Any], SourceReport], KnowledgeGraph]] = {
    "obo": _from_obo,
    "csv": _from_csv,
    "triples": _from_triples,
    "radgraph": _from_radgraph,
    "umls": _from_umls,
}


def _say(
    graph: KnowledgeGraph, out: Path, report: SourceReport, figures: dict[str, int] | None = None, *, as_json: bool
) -> None:
    counts = {"concepts": len(graph), "relations": len(graph.relations), **(figures or {})}
    data = {"out": str(out), "name": graph.name, "version": graph.version, "licence": graph.licence, **counts}
    data |= {"content_hash": graph.content_hash, "left_out": report.to_dict() or graph.build_report}
    head = f"{graph.name}: {', '.join(f'{n} {what}' for what, n in counts.items())} -> {out}"
    emit(data, [head, *(f"  {line}" for line in report.lines())], as_json=as_json)
