"""kvlp prompts: the sentences that a model is asked with about a concept, and the attributes that they carry."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from kvlp.errors import ConfigError

if TYPE_CHECKING:
    from kvlp.knowledge.prompts import AttributePrompts, PromptAttribute

__all__ = ["command"]


def command(
    concept: str = typer.Argument(..., help="A concept's id, any of its names, or words of yours."),
    style: str = typer.Option(
        "ensemble", "--style", help='"ensemble", "plain", "attributes", ...; --styles lists them.'
    ),
    assertion: str = typer.Option("", "--assertion", help="Only 'present', 'absent' or 'uncertain'."),
    synonyms: bool = typer.Option(True, "--synonyms/--no-synonyms", help="With the graph's synonyms too."),
    limit: int | None = typer.Option(None, "--limit", min=1, help="At most so many sentences of an assertion."),
    graph: str = typer.Option("chest", "--graph", "-g", help='"chest", a graph folder, or "none".'),
    backend: list[str] = typer.Option(
        ["graph", "definition"],
        "--backend",
        help="Where attributes come from: graph, definition, masked. May be repeated.",
    ),
    model: Path | None = typer.Option(None, "--model", help="For masked: a local folder with a masked language model."),
    cache: Path | None = typer.Option(None, "--cache", help="A folder that keeps attributes with their provenance."),
    templates: Path | None = typer.Option(None, "--templates", help="A YAML file with templates or styles of yours."),
    styles: bool = typer.Option(False, "--styles", help="List the styles and exit."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON document."),
) -> None:
    """Print the sentences about a concept or words of yours: present, absent, uncertain."""
    from kvlp.knowledge.graph import KnowledgeGraph
    from kvlp.knowledge.prompts import AttributePrompts

    kg = None if graph == "none" else KnowledgeGraph.load(graph)
    writer = AttributePrompts(kg, backend=backend, model=model, cache=cache, templates=templates)
    if styles:
        typer.echo(json.dumps(list(writer.prompts.styles)) if as_json else "\n".join(writer.prompts.styles))
        return
    options: dict[str, Any] = {"style": style, "synonyms": synonyms, "limit": limit}
    said = {name: writer.sentences(concept, name, **options) for name in _assertions(assertion)}
    carried = writer.attributes(concept, _kinds(writer, style)) if writer.prompts.style(style).of_attributes else []
    if as_json:
        typer.echo(json.dumps(_document(writer, concept, style, said, carried), ensure_ascii=False, indent=1))
    else:
        _show(said, carried)


def _assertions(only: str) -> list[Any]:
    from kvlp.typing import Assertion

    names = [a.value for a in Assertion]
    if only and only not in names:
        raise ConfigError(f"--assertion: expected {', '.join(names)}, got '{only}'")
    return [Assertion(only)] if only else list(Assertion)


def _kinds(writer: AttributePrompts, style: str) -> list[str]:
    """The kinds of attribute that a style says."""
    way = writer.prompts.style(style)
    parts = [writer.prompts.style(member) for member in way.members] or [way]
    return [kind for part in parts for kind in part.slots]


def _document(
    writer: AttributePrompts, words: str, style: str, said: dict[Any, list[str]], carried: list[PromptAttribute]
) -> dict[str, Any]:
    concept = writer.prompts.concept(words)
    return {
        "concept": concept.id if concept else None,
        "name": concept.name if concept else words,
        "style": style,
        **{str(assertion): sentences for assertion, sentences in said.items()},
        "attributes": [dataclasses.asdict(attribute) for attribute in carried],
        "provenance": {
            "template_hash": writer.prompts.content_hash,
            "backends": writer.provenance() if carried else [],
        },
    }


def _show(said: dict[Any, list[str]], carried: list[PromptAttribute]) -> None:
    for assertion, sentences in said.items():
        typer.echo(f"{assertion}:")
        typer.echo("\n".join(f"  {sentence}" for sentence in sentences))
    if carried:
        typer.echo("attributes:")
        typer.echo("\n".join(f"  {a.kind}: {a.text}  ({a.score:.3g}; {a.source})" for a in carried))
