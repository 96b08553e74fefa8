"""kvlp link: which concepts a report speaks of, and whether they are present, absent or uncertain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from kvlp.cli.link_coverage import coverage
from kvlp.cli.link_labels import labels, score

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.text import Text

    from kvlp.knowledge.graph import KnowledgeGraph
    from kvlp.knowledge.linking import Mention

_COLOURS = {"present": "bold red", "absent": "green", "uncertain": "yellow"}
_TRIGGER = "underline"


class _TextFirst(TyperGroup):
    """`kvlp link "some text"` is `kvlp link text "some text"`: what is no sub-command is a report.

    `kvlp link --coverage FILE` is `kvlp link coverage FILE`.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the sub-command `text` in front where none is given."""
        if "--coverage" in args:
            args = ["coverage", *(a for a in args if a != "--coverage")]
        if args and args[0] not in {*self.commands, "--help"}:
            args = ["text", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, cls=_TextFirst)
app.command("coverage")(coverage)
app.command("labels")(labels)
app.command("score")(score)


@app.command("text")
def read(
    text: str | None = typer.Argument(None, help="Report text; or use --file."),
    file: Path | None = typer.Option(None, "--file", help="A UTF-8 text file with one report."),
    graph: str = typer.Option("chest", "--graph", help="'chest' or the folder of a graph."),
    types: str = typer.Option("", "--types", help="Only these semantic types, such as 'finding,disease'."),
    any_language: bool = typer.Option(False, "--any-language", help="Read a text that is not English, too."),
    linker: Path | None = typer.Option(None, "--linker", help="File that keeps the linker, for a start in no time."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON list."),
) -> None:
    """Find the concepts of a graph in report text and say whether each is present, absent or uncertain."""
    from kvlp.knowledge.graph import KnowledgeGraph
    from kvlp.knowledge.linking.kept import kept_linker
    from kvlp.knowledge.linking.lexicon import LinkerOptions
    from kvlp.knowledge.linking.linker import EntityLinker

    if (text is None) == (file is None):
        raise typer.BadParameter("give either the text or --file FILE")
    report = read_report(file) if file is not None else str(text)
    kg = KnowledgeGraph.load(graph)
    wanted = tuple(t.strip() for t in types.split(",") if t.strip()) or None
    options = LinkerOptions(types=wanted, language=None if any_language else "en")
    if linker is not None:
        mentions = kept_linker(linker, kg, options, say=lambda line: typer.echo(line, err=True))(report)
    else:
        mentions = EntityLinker(kg, **options._asdict())(report)
    if as_json:
        typer.echo(json.dumps([row(m, kg) for m in mentions], ensure_ascii=False, indent=1))
    else:
        show(report, mentions, kg)


def read_report(file: Path) -> str:
    """Read a text file.

    Raises:
        DataError: a directory, or not UTF-8.
    """
    from kvlp.errors import DataError

    if file.is_dir():
        raise DataError(f"{file}: expected a text file, got a directory; give one file")
    try:
        return file.read_bytes().decode("utf-8-sig")  # read_text would change line ends, and with them offsets
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file}: expected UTF-8 text, got another encoding at byte {error.start}; convert it"
        ) from None


def row(mention: Mention, graph: KnowledgeGraph) -> dict[str, Any]:
    """A mention with its concept's name and UMLS identifier (or None), ready for JSON."""
    concept = graph[mention.concept]
    cui = next((s.removeprefix("UMLS:") for s in concept.source_ids if s.startswith("UMLS:")), None)
    return {**mention.to_dict(), "name": concept.name, "cui": cui}


def show(report: str, mentions: Sequence[Mention], graph: KnowledgeGraph) -> None:
    """Print the text in colours and one line a mention."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    console.print(coloured(report, mentions))
    table = Table(box=None, pad_edge=False)
    for title in ("concept", "surface", "assertion", "trigger", "attributes", "section", "at"):
        table.add_column(title)
    for m in mentions:
        said = Text(m.assertion.value, style=_COLOURS[m.assertion.value])
        place = f"{m.start}-{m.end}"
        more = attributes(m, graph)
        table.add_row(graph[m.concept].name, Text(m.surface), said, Text(m.trigger or ""), more, m.section, place)
    console.print(table if mentions else "no concept of the graph is mentioned")


def attributes(mention: Mention, graph: KnowledgeGraph) -> str:
    """What is said of a mention beside its assertion, in one line: "new small left, lung base; historical"."""
    words = " ".join(filter(None, (mention.change, mention.severity, mention.side)))
    places = [graph[place].name for place in mention.location]
    status = "" if mention.status == "current" else mention.status
    return "; ".join(filter(None, (", ".join(filter(None, (words, *places))), status)))


def coloured(report: str, mentions: Sequence[Mention]) -> Text:
    """The report with mentions coloured by assertion and triggers underlined."""
    from rich.text import Text

    text = Text(report)
    for m in mentions:
        text.stylize(_COLOURS[m.assertion.value], m.start, m.end)
        if m.trigger_start is not None:
            text.stylize(_TRIGGER, m.trigger_start, m.trigger_end)
    return text
