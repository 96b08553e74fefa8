"""kvlp kg: build, look at and validate knowledge graphs."""

from __future__ import annotations

import dataclasses
import json
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from kvlp.errors import ConfigError

if TYPE_CHECKING:
    from kvlp.knowledge.graph import Concept, KnowledgeGraph

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Build, look at and validate knowledge graphs.")

_GRAPH = typer.Option("chest", "--graph", "-g", help="A bundled graph's name, or a folder.")
_JSON = typer.Option(False, "--json", help="Print one JSON document.")


@app.command()
def build(
    out: Path = typer.Option(..., "--out", help="Folder to write the graph to."),
    obo: list[Path] = typer.Option([], "--obo", help="An OBO file (.obo, .obo.gz); give it once for each file."),
    csv: Path | None = typer.Option(None, "--csv", help="A folder with concepts.csv and relations.csv."),
    umls: Path | None = typer.Option(None, "--umls", help="A folder with MRCONSO.RRF (and MRREL, MRSTY, MRDEF)."),
    name: str = typer.Option("", "--name", help="The graph's name; default: that of the source."),
    as_json: bool = _JSON,
) -> None:
    """Build a graph folder from OBO files, a CSV folder or UMLS tables."""
    from kvlp.knowledge.graph import KnowledgeGraph

    if sum((bool(obo), csv is not None, umls is not None)) != 1:
        raise ConfigError("give exactly one source: --obo FILE (repeatable), --csv FOLDER or --umls FOLDER")
    if obo:
        graph = KnowledgeGraph.from_obo(*obo, name=name)
    elif csv is not None:
        graph = KnowledgeGraph.from_csv(csv)
    else:
        graph = KnowledgeGraph.from_umls(umls or "")
    if name:
        graph = graph.renamed(name)
    graph.save(out)
    figures = {"out": str(out), **_figures(graph)}
    _print(figures, as_json, [f"{graph.name}: {len(graph)} concepts, {len(graph.relations)} relations -> {out}"])


@app.command()
def show(concept: str, graph: str = _GRAPH, as_json: bool = _JSON) -> None:
    """Show one concept: by id, source id (C0018800, HP:0001640) or any name."""
    opened = _open(graph)
    found = opened.concept(concept)
    relations = opened.neighbours(found.id, direction="both")
    data = {**_concept(found), "relations": [dataclasses.asdict(r) for r in relations]}
    lines = [f"{found.name}  [{found.id}]  {', '.join(found.semantic_types)}"]
    lines += [f"  {found.definition}"] if found.definition else []
    lines += [f"  also: {', '.join(found.synonyms)}"] if found.synonyms else []
    lines += [f"  looks like: {text}" for text in found.descriptions]
    lines += [f"  ids: {', '.join(found.source_ids)}"] if found.source_ids else []
    lines += [f"  {r.head} {r.type} {r.tail}" for r in relations]
    _print(data, as_json, lines)


@app.command()
def find(text: str, graph: str = _GRAPH, k: int = typer.Option(10, "-k", min=1), as_json: bool = _JSON) -> None:
    """Find concepts by words of their names."""
    found = _open(graph).find(text, k=k)
    lines = [f"{c.id:40} {c.name}  ({', '.join(c.semantic_types)})" for c in found]
    _print([_concept(c) for c in found], as_json, lines or ["nothing found"])


@app.command()
def path(a: str, b: str, graph: str = _GRAPH, as_json: bool = _JSON) -> None:
    """Show a shortest way between two concepts, with the relations on it."""
    opened = _open(graph)
    ids = opened.shortest_path(a, b)
    steps = [_step(opened, one, two) for one, two in pairwise(ids)]
    data = {"path": ids, "relations": [dict(zip(("head", "type", "tail"), s, strict=True)) for s in steps]}
    _print(data, as_json, [" ".join(s) for s in steps] or ids)


@app.command()
def stats(
    graph: str = typer.Argument("chest", help="A bundled graph's name, or a folder."), as_json: bool = _JSON
) -> None:
    """Count concepts, surfaces and relations by type; print the content hash and the licence."""
    figures = _figures(_open(graph))
    lines = [f"{key}: {value}" for key, value in figures.items() if not isinstance(value, dict)]
    for key, counts in figures.items():
        if isinstance(counts, dict):
            lines += [f"{key}:", *(f"  {kind or '(none)'}: {n}" for kind, n in counts.items())]
    _print(figures, as_json, lines)


@app.command()
def validate(
    graph: str = typer.Argument("chest", help="A bundled graph's name, or a folder."),
    strict: bool = typer.Option(False, "--strict", help="Exit 1 on warnings too."),
    as_json: bool = _JSON,
) -> None:
    """Name dangling relations, is_a cycles, shared surfaces, missing definitions; exit 1 on errors."""
    problems = _open(graph, check=False).validate()
    errors = sum(p.severity == "error" for p in problems)
    lines = [f"{p.severity}: {p.kind}: {p.message}" for p in problems]
    lines.append(f"{errors} errors, {len(problems) - errors} warnings")
    _print([dataclasses.asdict(p) for p in problems], as_json, lines)
    if errors or (strict and problems):
        raise typer.Exit(1)


def _open(graph: str, *, check: bool = True) -> KnowledgeGraph:
    from kvlp.knowledge.graph import KnowledgeGraph

    return KnowledgeGraph.load(graph, check=check)


def _concept(concept: Concept) -> dict[str, Any]:
    return dataclasses.asdict(concept)


def _step(graph: KnowledgeGraph, one: str, two: str) -> tuple[str, str, str]:
    relations = [r for r in graph.neighbours(one, direction="both") if two in (r.head, r.tail)]
    return relations[0].head, relations[0].type, relations[0].tail


def _figures(graph: KnowledgeGraph) -> dict[str, Any]:
    from collections import Counter

    return {
        "name": graph.name,
        "version": graph.version,
        "licence": graph.licence,
        "content_hash": graph.content_hash,
        "concepts": len(graph),
        "surfaces": sum(len(c.surfaces) for c in graph),
        "relations": len(graph.relations),
        "with_definition": sum(bool(c.definition) for c in graph),
        "descriptions": sum(len(c.descriptions) for c in graph),
        "with_source_id": sum(bool(c.source_ids) for c in graph),
        "semantic_types": dict(Counter(t for c in graph for t in c.semantic_types or ("",)).most_common()),
        "relation_types": dict(Counter(r.type for r in graph.relations).most_common()),
    }


def _print(data: object, as_json: bool, lines: list[str]) -> None:
    typer.echo(json.dumps(data, indent=1, ensure_ascii=False) if as_json else "\n".join(lines))
