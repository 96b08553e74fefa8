"""kvlp kg: build, merge, look at, validate and export knowledge graphs."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from kvlp.cli.kg_build import build, export, merge, open_graph
from kvlp.cli.kg_embed import embed
from kvlp.cli.text import emit

if TYPE_CHECKING:
    from kvlp.knowledge.graph import Concept, KnowledgeGraph
    from kvlp.knowledge.provenance import Origin

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Build, merge, look at, validate and export knowledge graphs."
)

_GRAPH = typer.Option("chest", "--graph", "-g", help="A bundled graph's name, or a folder.")
_JSON = typer.Option(False, "--json", help="Print one JSON document.")


app.command()(build)
app.command()(merge)
app.command()(export)
app.command()(embed)


@app.command()
def show(
    concept: str,
    graph: str = _GRAPH,
    picture: Path | None = typer.Option(None, "--picture", help="Draw it and its neighbours: .png, .svg or .pdf."),
    limit: int = typer.Option(8, "--limit", help="How many neighbours of a relation the picture shows.", min=2),
    as_json: bool = _JSON,
) -> None:
    """Show one concept and its neighbours: by id, source id (C0018800, HP:0001640) or any name."""
    opened = open_graph(graph)
    found = opened.concept(concept)
    relations = opened.neighbours(found.id, direction="both")
    origins = _origins(graph, found.id)
    data = {**_concept(found), "relations": [dataclasses.asdict(r) for r in relations]}
    data |= {"provenance": [dataclasses.asdict(o) for o in origins]} if origins else {}
    if picture is not None:
        from kvlp.knowledge.draw import draw_neighbourhood

        data["picture"] = str(draw_neighbourhood(opened, found.id, picture, limit=limit))
    lines = [f"{found.name}  [{found.id}]  {', '.join(found.semantic_types)}"]
    lines += [f"  {found.definition}"] if found.definition else []
    lines += [f"  also: {', '.join(found.synonyms)}"] if found.synonyms else []
    lines += [f"  looks like: {text}" for text in found.descriptions]
    lines += [f"  ids: {', '.join(found.source_ids)}"] if found.source_ids else []
    lines += [f"  {line}" for line in _told(origins)]
    lines += [f"  {_end(opened, found, r.head)} {r.type} {_end(opened, found, r.tail)}" for r in relations]
    lines += [f"picture: {picture}"] if picture is not None else []
    emit(data, lines, as_json=as_json)


@app.command()
def find(text: str, graph: str = _GRAPH, k: int = typer.Option(10, "-k", min=1), as_json: bool = _JSON) -> None:
    """Find concepts by words of their names."""
    found = open_graph(graph).find(text, k=k)
    lines = [f"{c.id:40} {c.name}  ({', '.join(c.semantic_types)})" for c in found]
    emit([_concept(c) for c in found], lines or ["nothing found"], as_json=as_json)


@app.command()
def path(a: str, b: str, graph: str = _GRAPH, as_json: bool = _JSON) -> None:
    """Show a shortest way between two concepts, with the relations on it."""
    opened = open_graph(graph)
    ids = opened.shortest_path(a, b)
    steps = [_step(opened, one, two) for one, two in pairwise(ids)]
    data = {"path": ids, "relations": [dict(zip(("head", "type", "tail"), s, strict=True)) for s in steps]}
    emit(data, [f"{_named(opened, h)} {r} {_named(opened, t)}" for h, r, t in steps] or ids, as_json=as_json)


@app.command()
def stats(
    graph: str = typer.Argument("chest", help="A bundled graph's name, or a folder."), as_json: bool = _JSON
) -> None:
    """Count concepts, surfaces and relations by type; print the content hash and the licence."""
    figures = _figures(open_graph(graph))
    lines = [f"{key}: {value}" for key, value in figures.items() if not isinstance(value, dict)]
    for key, counts in figures.items():
        if isinstance(counts, dict):
            lines += [f"{key}:", *(f"  {kind or '(none)'}: {n}" for kind, n in counts.items())]
    emit(figures, lines, as_json=as_json)


@app.command()
def validate(
    graph: str = typer.Argument("chest", help="A bundled graph's name, or a folder."),
    strict: bool = typer.Option(False, "--strict", help="Exit 1 on warnings too."),
    as_json: bool = _JSON,
) -> None:
    """Name dangling relations, is_a cycles, shared surfaces, missing definitions; exit 1 on errors."""
    problems = open_graph(graph, check=False).validate()
    errors = sum(p.severity == "error" for p in problems)
    lines = [f"{p.severity}: {p.kind}: {p.message}" for p in problems]
    lines.append(f"{errors} errors, {len(problems) - errors} warnings")
    emit([dataclasses.asdict(p) for p in problems], lines, as_json=as_json)
    if errors or (strict and problems):
        raise typer.Exit(1)


def _origins(graph: str, concept_id: str) -> list[Origin]:
    """Where the parts of a merged graph's concept came from; nothing for other graphs."""
    from kvlp.knowledge.provenance import read_origins

    return [o for o in read_origins(graph) if o.concept == concept_id]


def _told(origins: list[Origin]) -> list[str]:
    """One line a graph: what it gave."""
    given: dict[str, dict[str, int]] = {}
    for o in origins:
        parts = given.setdefault(o.graph, {})
        parts[o.part] = parts.get(o.part, 0) + 1
    return [
        f"from {name}: {', '.join(_counted(part, n) for part, n in parts.items())}" for name, parts in given.items()
    ]


def _counted(part: str, n: int) -> str:
    return f"{n} {part.replace('_', ' ')}s" if n > 1 else part.replace("_", " ")


def _end(graph: KnowledgeGraph, found: Concept, end: str) -> str:
    return end if end == found.id else _named(graph, end)


def _named(graph: KnowledgeGraph, key: str) -> str:
    """An id that does not speak for itself stands behind the name."""
    name = graph[key].name if key in graph else key
    return key if name in (key, key.replace("_", " ")) else f"{name} [{key}]"


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
