"""What is asked for a class: the sentences that state it and those that deny it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from kvlp.errors import ConfigError
from kvlp.knowledge.names import Names
from kvlp.typing import Assertion

if TYPE_CHECKING:
    from kvlp.knowledge.graph import KnowledgeGraph
    from kvlp.knowledge.prompts import AttributePrompts, Prompts

__all__ = ["Templates", "class_prompts"]

#: a file of templates, templates, or what writes sentences itself
Templates: TypeAlias = "str | Path | Mapping[str, Sequence[str]] | Prompts | AttributePrompts | None"


def class_prompts(
    name: str,
    graph: KnowledgeGraph | None,
    templates: Templates,
    *,
    synonyms: bool,
    style: str,
    kinds: Sequence[str],
) -> dict[str, list[str]]:
    """The sentences that say of a class "present" and "absent"; see `ZeroShotClassifier` for the arguments.

    Args:
        name: a name, synonym or id of the graph's concepts, or free text.
        graph: where synonyms come from.
        templates: other wordings.
        synonyms: with the graph's synonyms.
        style: of `Prompts`.
        kinds: the kinds that templates of the caller's own must have.

    Raises:
        ConfigError: templates without one of these kinds or without "{}", or an unknown style.
    """
    if isinstance(templates, Mapping):
        return _filled(name, graph, templates, synonyms=synonyms, kinds=kinds)
    from kvlp.knowledge.prompts import Prompts

    if templates is None or isinstance(templates, str | Path):
        writer: Prompts | AttributePrompts = Prompts(graph, templates=templates)
    else:
        writer = templates
    say = partial(writer.sentences, name, synonyms=synonyms, style=style)
    return {"present": say(Assertion.PRESENT), "absent": say(Assertion.ABSENT)}


def _filled(
    name: str,
    graph: KnowledgeGraph | None,
    templates: Mapping[str, Sequence[str]],
    *,
    synonyms: bool,
    kinds: Sequence[str],
) -> dict[str, list[str]]:
    missing = [kind for kind in kinds if not templates.get(kind)]
    if missing or any("{}" not in line for lines in templates.values() for line in lines):
        raise ConfigError(
            f"templates: expected lists of sentences with '{{}}' under {' and '.join(map(repr, kinds))}, "
            f"got {sorted(templates)}; score='positive' needs no 'absent'"
        )
    surfaces, names = [name], Names(graph)
    if graph is not None and names.in_graph(name):
        concept = graph[names(name)]
        surfaces = list(concept.surfaces) if synonyms else [concept.name]
    return {kind: [line.format(s) for line in lines for s in surfaces] for kind, lines in templates.items()}
